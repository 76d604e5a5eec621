# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Aligns logits and labels: which logits are scored on which labels, for every kind of head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from ..data.batches import IGNORED


OWN_LIKELIHOOD_HINT = "Pass a `log_likelihood_func(outputs, labels)` that returns one log-likelihood per example."


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
            raise ValueError(f"The model's outputs have no `{name}` but hold {sorted(outputs)}. {OWN_LIKELIHOOD_HINT}")
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
