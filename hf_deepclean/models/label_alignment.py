# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Aligns logits and labels for every kind of head, and says why labels or inputs do not fit the model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import IGNORED, LABELS


OWN_LIKELIHOOD_HINT = "Pass a `log_likelihood_func(outputs, labels)` that returns one log-likelihood per example."
_REGRESSION = (
    "Pass the likelihood of a number, for example of a normal distribution: "
    "`log_likelihood_func=lambda outputs, labels: -(outputs.logits.flatten() - labels.flatten()).square() / 2`"
)
_SEVERAL_LABELS = (
    "Pass the likelihood of several labels: `log_likelihood_func=lambda outputs, labels: "
    "-torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels.float(), "
    'reduction="none").sum(dim=-1)`'
)


def logits_of(outputs: Any, name: str = "logits", position: int = 0) -> torch.Tensor:
    """
    The logits of a model's outputs, which may be a plain tuple.

    Args:
        outputs ([`~transformers.utils.ModelOutput`] or `tuple`):
            The model's outputs.
        name (`str`, *optional*, defaults to `"logits"`):
            Name of the logits in the outputs.
        position (`int`, *optional*, defaults to 0):
            Position of the logits in a tuple.

    Raises:
        `ValueError`: If the outputs have no logits. The message names what they have.
    """
    if isinstance(outputs, Mapping):
        if name not in outputs:
            raise ValueError(
                f"The model's outputs have no `{name}` but hold {sorted(outputs)}, as those of a model without a head "
                "do. Load it with the auto class of its task, such as `AutoModelForSequenceClassification`, from the "
                f"folder of the trained model. If it has a head of your own: {OWN_LIKELIHOOD_HINT}"
            )
        return outputs[name]
    return outputs[position]


def float_logits(outputs: Any, name: str = "logits", position: int = 0) -> torch.Tensor:
    """As [`logits_of`], in float32 at least."""
    logits = logits_of(outputs, name, position)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def class_logits(outputs: Any) -> torch.Tensor:
    """The logits of a single-label classification head, shape `(batch_size, num_labels)`."""
    logits = float_logits(outputs)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"The model returned logits of shape {tuple(logits.shape)}; the likelihood of a classification head needs "
            f"(batch_size, num_labels) with at least two labels. {OWN_LIKELIHOOD_HINT}"
        )
    return logits


def class_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Aligns a single-label classification head with its labels of shape `(batch_size,)`. This function and the others
    for a kind of head return what [`Likelihood.targets`] does, and raise a `ValueError` if the labels do not fit.
    """
    logits = class_logits(outputs)
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are not class indices for logits of "
            f"shape {tuple(logits.shape)}. Multi-label and regression heads need a `log_likelihood_func`."
        )
    check_label_range(labels, logits.shape[1])
    return logits[:, None], labels.long()[:, None]


def token_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligns every position with the label at the same position, shape `(batch_size, length)`."""
    logits = float_logits(outputs)
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} do not give every position of logits of "
            f"shape {tuple(logits.shape)} a class index, as the likelihood of a token-level head needs. "
            f"{OWN_LIKELIHOOD_HINT}"
        )
    check_label_range(labels[labels != IGNORED], logits.shape[2])
    return logits, labels.long()


def next_token_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligns every position with the label of the next one. Labels have shape `(batch_size, length)`."""
    logits = logits_of(outputs)
    virtual = logits.shape[1] - labels.shape[1] if logits.ndim == 3 and labels.ndim == 2 else 0
    if virtual > 0:
        labels = F.pad(labels, (virtual, 0), value=IGNORED)
    logits, labels = token_targets((logits,), labels)
    # Shift the labels, not the logits: their copy would be large.
    return logits, F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def span_targets(
    outputs: Any, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligns start and end logits with start and end positions, shape `(batch_size, 2)`, and masks padding."""
    logits = torch.stack([float_logits(outputs, "start_logits"), float_logits(outputs, "end_logits", 1)], dim=1)
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are not pairs of start and end positions "
            f"for start and end logits of shape {tuple(logits[:, 0].shape)}. {OWN_LIKELIHOOD_HINT}"
        )
    length = logits.shape[2]
    positions = labels.long().clamp(0, length)
    attended = torch.ones_like(logits[:, 0], dtype=torch.bool)
    if attention_mask is not None and attention_mask.shape == attended.shape:
        attended = attention_mask.bool()
        logits = logits.masked_fill(~attended[:, None], -torch.inf)
    scored = F.pad(attended, (0, 1), value=False).gather(1, positions)
    return logits, positions.masked_fill(~scored, IGNORED)


def check_label_range(labels: torch.Tensor, num_labels: int) -> None:
    """Refuses labels outside 0 to `num_labels - 1`."""
    outside = (labels < 0) | (labels >= num_labels)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} labels of a batch lie outside the head's range 0 to {num_labels - 1}. "
            "Map the labels to the model's `config.label2id`, or load the model with the right `num_labels`. For "
            "token ids use the model's own tokenizer, and -100 for positions that are not scored."
        )


def fault_of_class_labels(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """
    What keeps labels from being the classes of a head that gives every example one class.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batch (`dict[str, Any]`):
            Model inputs and labels.

    Returns:
        `str`, *optional*: What is wrong and what to do. `None` if nothing was found.
    """
    config, name, labels = model.config, type(model).__name__, batch[LABELS]
    problem = getattr(config, "problem_type", None)
    if config.num_labels == 1 or problem == "regression":
        return f"This {name} is a regression (`num_labels={config.num_labels}`). {_REGRESSION}."
    if problem == "multi_label_classification":
        return f"This {name} gives several labels (`problem_type={problem!r}`). {_SEVERAL_LABELS}."
    shape = tuple(labels.shape)
    if labels.ndim == 2 and shape[1] == 1:
        return (
            f"The labels are lists of one (shape {shape}), and this {name} takes one class per row. Take the class "
            'out of its list: `dataset.map(lambda row: {"labels": row["labels"][0]})`.'
        )
    if labels.ndim == 2 and shape[1] == config.num_labels:
        return (
            f"The labels have a value for each of the {shape[1]} classes (shape {shape}), and this {name} takes one "
            "class per row. If a row has one class, pass its number (`argmax`). Otherwise: "
            f"{_SEVERAL_LABELS}."
        )
    if labels.ndim != 1:
        return f"The labels have shape {shape}, and this {name} takes one class per row, shape (batch_size,)."
    inputs = batch.get(getattr(model, "main_input_name", None))
    if isinstance(inputs, torch.Tensor) and len(inputs) != len(labels):
        return f"The batch has {len(labels)} labels for {len(inputs)} examples. Check the data collator."
    if labels.is_floating_point():
        return (
            f"The labels have dtype {labels.dtype}, and this {name} takes class numbers. Cast them: "
            '`dataset.cast_column("labels", datasets.Value("int64"))`.'
        )
    return None


def fault_of_token_labels(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """
    What keeps labels from being those of the tokens of the input.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batch (`dict[str, Any]`):
            Model inputs and labels.

    Returns:
        `str`, *optional*: What is wrong and what to do. `None` if nothing was found.
    """
    labels, tokens, name = batch.get(LABELS), batch.get("input_ids"), type(model).__name__
    if not isinstance(labels, torch.Tensor) or not isinstance(tokens, torch.Tensor):
        return None
    if labels.ndim == 1:
        return (
            f"This {name} scores every token, and the labels have one value per row (shape {tuple(labels.shape)}). "
            "Label every token, with -100 where nothing is scored, or load a model that classifies rows."
        )
    if labels.ndim == 2 and labels.shape[1] != tokens.shape[1]:
        return (
            f"The rows have {labels.shape[1]} labels for {tokens.shape[1]} tokens. Align them as in training: one "
            "label per token, with -100 for special tokens; `DataCollatorForTokenClassification` pads both."
        )
    return None


def fault_of_inputs(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """
    What keeps a model from running on a batch.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batch (`dict[str, Any]`):
            Model inputs and labels, best as they were collated: a failed GPU cannot be asked any more.

    Returns:
        `str`, *optional*: What is wrong and what to do. `None` if nothing was found.
    """
    name, main = type(model).__name__, getattr(model, "main_input_name", None)
    if main is not None and main not in batch and not any(key.endswith("_embeds") for key in batch):
        held = sorted(key for key in batch if key != LABELS)
        return (
            f"The batch has no `{main}`, and this {name} needs it; it has {held or 'only labels'}. Tokenise or "
            "process the rows as in training: columns that the model does not take, such as text, are left out."
        )
    tokens = batch.get("input_ids")
    if not isinstance(tokens, torch.Tensor):
        return None
    if tokens.is_floating_point():
        return f"The `input_ids` have dtype {tokens.dtype}, and token ids are whole numbers. Cast the column."
    try:
        size = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        return None
    outside = int(((tokens < 0) | (tokens >= size)).sum())
    if outside:
        return (
            f"{outside} token ids lie outside the vocabulary of this {name}, 0 to {size - 1}. Use the tokenizer that "
            "the model was trained with. If tokens were added to it, load the model whose embeddings were resized."
        )
    return None


@contextmanager
def explaining_inputs(model: nn.Module, batch: Mapping[str, Any]) -> Iterator[None]:
    """
    Within the block the model runs on a batch. Turns an error that the batch causes into one that says so.

    Args:
        model, batch:
            As for [`fault_of_inputs`].

    Raises:
        `ValueError`: If the block raises an error, and something is wrong with the inputs.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        fault = fault_of_inputs(model, batch)
        if fault is None:
            raise
        raise ValueError(fault) from error
