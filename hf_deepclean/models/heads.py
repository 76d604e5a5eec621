# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the likelihood that a model's head was trained on, and prepares batches for it."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.models.auto import modeling_auto

from ..data.batches import IGNORED, LABELS, SPAN_LABELS, num_examples, split_labels
from ..data.packing import cut_padding, pad_labels_right, pad_right, unpack_documents
from ..runtime.sharded_models import plain_class
from .contexts import differentiable_mode, evaluation_mode, is_autocasting, with_gradients
from .label_alignment import fault_of_class_labels, fault_of_token_labels
from .likelihood import Likelihood, LogLikelihoodFunction, built_in_kind
from .rows import OWN_ROWS_HINT, select_examples, unexplained_tensors


# Collators make a decoder's inputs with this method of the model. Some models rely on that and make none themselves.
_PREPARE = "prepare_decoder_input_ids_from_labels"

# At most so many classes are compared with the model's own loss.
_MAX_CHECKED_CLASSES = 8

# Tasks whose heads give every example a class, or several, or a number.
_EXAMPLE_TASKS = ("SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION")


def prepare_batch(model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Turns a collated batch into one with one example per row that needs no labels in the forward pass.

    Packed documents get a row each. Padding at the left is moved to the right, unless the model reads the last
    position by convention. An encoder-decoder gets the decoder inputs that it would make from the labels.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, or a peft model around it.
        batch (`dict[str, Any]`):
            Model inputs and labels, as collated.

    Returns:
        `dict[str, Any]`: The prepared batch, or the batch itself if there is nothing to do.

    Raises:
        `ValueError`: If the batch has no labels, if the labels do not follow the documents of a packed row, or if the
            decoder's inputs cannot be made.
    """
    split_labels(batch)
    config = getattr(base_model(model), "config", None)
    batch = unpack_documents(batch, getattr(config, "pad_token_id", None) or 0)
    generates = _generates_labels(model, batch)
    if getattr(config, "summary_type", None) != "last":
        batch = pad_right(batch, labels_follow_inputs=not generates)
    if not generates:
        return batch
    if "use_cache" not in batch and _accepts(model, "use_cache"):
        # Some decoders attend to the future if they may use a cache. With labels they would not use one.
        batch = {**batch, "use_cache": False}
    if any(key.startswith("decoder_") for key in batch):
        return batch
    labels = pad_labels_right(batch[LABELS])
    return {**batch, LABELS: labels, "decoder_input_ids": _decoder_input_ids(model, labels)}


def without_padding(model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A prepared batch without the columns at the right that are padding in every row."""
    generates = _generates_labels(model, batch)
    if batch.get("decoder_input_ids") is not None and not generates:
        # The head reads a decoder whose given tokens stand for those of the input.
        return batch
    return cut_padding(batch, labels_follow_inputs=not generates)


@with_gradients
def find_likelihood(
    model: nn.Module, batch: Mapping[str, Any], log_likelihood_func: LogLikelihoodFunction | None = None
) -> Likelihood:
    """
    Finds the likelihood that a model was trained on, and compares it with the model's own loss on one example, with
    several labels where it has a class.

    If they differ, the model was trained on something else (several labels, a regression, an auxiliary loss), and the
    Fisher information of this likelihood would answer another question.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, or a peft model around it. It is not changed.
        batch (`dict[str, Any]`):
            A batch from [`prepare_batch`].
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood, or one of [`classification_log_likelihood`], [`token_log_likelihood`],
            [`next_token_log_likelihood`] and [`span_log_likelihood`]. It is not compared with the loss.

    Returns:
        [`Likelihood`]

    Raises:
        `ValueError`: If no likelihood agrees with the loss to 1e-4 (relative; 8 units in the last place for half
            precision and under autocast), if the labels fit no built-in likelihood, or if the caller's likelihood does
            not return one differentiable value per example.
    """
    labels_of_batch, example = split_labels(batch)[1], _example_to_check(model, batch)
    inputs, labels = split_labels(example)
    if log_likelihood_func is not None:
        kind = built_in_kind(log_likelihood_func)
        likelihood = Likelihood("custom", log_likelihood_func) if kind is None else Likelihood(kind)
        with evaluation_mode(model), differentiable_mode(model), torch.no_grad():
            outputs = _outputs(model, inputs, batch)
        with torch.enable_grad():
            differentiable = [tensor.requires_grad_() for tensor in _float_tensors(outputs)]
            log_likelihood = likelihood(inputs, outputs, labels)
        if differentiable and not log_likelihood.requires_grad:
            raise ValueError(
                "`log_likelihood_func` returned values that do not depend on the model's outputs, so they have no "
                "gradient. Compute them from the outputs with torch, without `detach`, `item` or `torch.no_grad`."
            )
        return likelihood

    candidates = _candidates(model, batch)
    example = _with_every_class(model, example, len(labels_of_batch))
    inputs, labels = split_labels(example)
    with (
        _explaining_labels(model, batch),
        evaluation_mode(model),
        differentiable_mode(model),
        torch.no_grad(),
    ):
        outputs = _outputs(model, inputs, batch)
        ours = {candidates[0]: _mean_loss(candidates[0], inputs, outputs, labels)}
        for candidate in candidates[1:]:
            # A candidate may not fit the shapes; with the virtual tokens of prompt tuning only the shifted one does.
            with suppress(ValueError):
                ours[candidate] = _mean_loss(candidate, inputs, outputs, labels)
        loss = _own_loss(model, example)
    if loss is None or not torch.isfinite(loss):
        return _without_loss(model, candidates, labels)
    precision = torch.finfo(torch.bfloat16 if is_autocasting(model) else loss.dtype).eps
    tolerance = max(1e-4, 8 * precision) * abs(loss.item()) + 1e-5
    best = min(ours, key=lambda candidate: abs(ours[candidate] - loss.item()))
    # A sum over the labels is as good as their mean.
    if min(abs(number * ours[best] - loss.item()) for number in (1, len(labels))) > tolerance:
        figures = " and ".join(f"{figure:.6g} ({candidate.kind})" for candidate, figure in ours.items())
        raise ValueError(
            f"{type(model).__name__} reports a loss of {loss.item():.6g}, but the mean negative log-likelihood of its "
            f"logits is {figures}, so it was not trained on that likelihood alone. Pass a "
            "`log_likelihood_func(outputs, labels)` that returns one log-likelihood per example. To ignore the "
            "auxiliary loss of a router, for example, pass the plain `hf_deepclean.next_token_log_likelihood`."
        )
    return best


def num_classes(model: nn.Module) -> int | None:
    """
    Number of classes of a head that gives every example one class; `None` for any other head.

    `config.num_labels` alone is not enough: it is 2 for every language model and every multiple-choice head.
    """
    if not _is_one_of(model, *_EXAMPLE_TASKS) or model.config.num_labels == 1:
        return None
    if getattr(model.config, "problem_type", None) in ("multi_label_classification", "regression"):
        return None
    return model.config.num_labels


def class_numbers(model: nn.Module) -> dict[str, int] | None:
    """The number of every class by its name in the model's configuration; `None` for a head without classes."""
    if num_classes(model) is None and not classifies_tokens(model):
        return None
    # Some configurations have no `label2id`, and transformers ranks the other above it.
    return {name: int(number) for number, name in model.config.id2label.items()}


def classifies_tokens(model: nn.Module) -> bool:
    """Whether the labels of tokens are classes, not tokens of a vocabulary."""
    return _is_one_of(model, "TOKEN_CLASSIFICATION")


def predicts_tokens(model: nn.Module) -> bool:
    """Whether a head gives classes or tokens of a vocabulary for the positions of a sequence."""
    return _is_one_of(model, "TOKEN_CLASSIFICATION", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM")


def masks_tokens(model: nn.Module) -> bool:
    """Whether a head fills in masked tokens of its own input, and does not also write texts."""
    return _is_one_of(model, "MASKED_LM") and not _is_one_of(model, "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM")


def generates_tokens(model: nn.Module, likelihood: Likelihood, batch: Mapping[str, Any]) -> bool:
    """Whether every scored token of a prepared batch is predicted only from the tokens before it."""
    return likelihood.kind == "next_token" or (likelihood.kind == "token" and _generates_labels(model, batch))


def base_model(model: nn.Module) -> nn.Module:
    """The model itself, or the base model of a peft model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def model_class_name(model: nn.Module) -> str:
    """The name of the model's class, without what peft and FSDP add to it."""
    return plain_class(base_model(model)).__name__


@cache
def class_names_of_task(task: str) -> frozenset[str]:
    """Names of the classes that transformers' auto classes list for a task, such as `"CAUSAL_LM"`."""
    mapping = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})
    return frozenset(name for names in mapping.values() for name in ([names] if isinstance(names, str) else names))


def _is_one_of(model: nn.Module, *tasks: str) -> bool:
    """Whether transformers' auto classes list the model's class, or a class it inherits from, for one of the tasks."""
    names = {base.__name__ for base in type(base_model(model)).__mro__}
    return any(not names.isdisjoint(class_names_of_task(task)) for task in tasks)


def forward_arguments(model: nn.Module) -> list[str]:
    """Names of the arguments of a model's forward pass; of a [`~peft.PeftModel`] those of its base."""
    return list(inspect.signature(base_model(model).forward).parameters)


def _accepts(model: nn.Module, argument: str) -> bool:
    return argument in forward_arguments(model)


def _generates_labels(model: nn.Module, batch: Mapping[str, Any]) -> bool:
    """Whether the labels are the tokens of a decoder, not of the input sequence."""
    labels = batch.get(LABELS)
    return (
        isinstance(labels, torch.Tensor)
        and labels.ndim == 2
        and not labels.is_floating_point()
        and _accepts(model, "decoder_input_ids")
        and not _is_one_of(model, "TOKEN_CLASSIFICATION")
    )


def _decoder_input_ids(model: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """The inputs that the model itself would give its decoder if it got the labels."""
    model = base_model(model)
    for name in (_PREPARE, "_shift_right"):
        if hasattr(model, name):
            return getattr(model, name)(labels)
    for base in type(model).__mro__:
        shift = getattr(sys.modules[base.__module__], "shift_tokens_right", None)
        if shift is not None:
            return shift(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
    raise ValueError(
        f"It is not known how {type(model).__name__} makes its decoder's inputs from labels. Add `decoder_input_ids` "
        f"to the batches, as `DataCollatorForSeq2Seq(tokenizer, model=model)` does for models with `{_PREPARE}`."
    )


def _candidates(model: nn.Module, batch: Mapping[str, Any]) -> list[Likelihood]:
    """The likelihoods that fit the labels; the one of the model's class comes first."""
    labels = split_labels(batch)[1]
    if LABELS not in batch:
        return [Likelihood("span")]
    if _is_one_of(model, "CTC"):
        return [Likelihood("ctc", model=base_model(model))]
    if labels.ndim != 2 or labels.is_floating_point():
        return [Likelihood("classification")]
    shifts = _is_one_of(model, "CAUSAL_LM", "IMAGE_TEXT_TO_TEXT") and not _generates_labels(model, batch)
    kinds = ["next_token", "token"] if shifts else ["token", "next_token"]
    return [Likelihood(kind) for kind in kinds]


def _without_loss(model: nn.Module, candidates: list[Likelihood], labels: torch.Tensor) -> Likelihood:
    known = _accepts(model, "decoder_input_ids") or _is_one_of(
        model, "CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MASKED_LM", "TOKEN_CLASSIFICATION"
    )
    if len(candidates) > 1 and not known:
        raise ValueError(
            f"transformers lists {type(model).__name__} for no task, and the model gives no loss for labels of shape "
            f"{tuple(labels.shape)}, so nothing tells whether they are shifted. Pass "
            "`log_likelihood_func=hf_deepclean.next_token_log_likelihood` if the logits at a position are scored on "
            "the next label, or `hf_deepclean.token_log_likelihood` if they are scored on the label at the same "
            "position."
        )
    return candidates[0]


def _example_to_check(model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The example with the most scored tokens, without its padding, which some losses count."""
    labels = split_labels(batch)[1]
    index = 0
    if LABELS not in batch:
        index = int(labels.amax(dim=1).argmin())
    elif labels.ndim == 2:
        index = int((labels[:, 1:] != IGNORED).sum(dim=1).argmax())
    return without_padding(model, select_examples(model, batch, [index]))


def _outputs(model: nn.Module, inputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
    try:
        return model(**inputs)
    except Exception as error:
        names = unexplained_tensors(model, batch)
        if not names or num_examples(batch) == 1:
            raise
        raise ValueError(
            f"{type(model).__name__} does not run on one row of a batch. It is not known which entries of {names} "
            f"belong to the row, because their number is not that of the rows. {OWN_ROWS_HINT}"
        ) from error


def _with_every_class(model: nn.Module, example: Mapping[str, Any], batch_size: int) -> Mapping[str, Any]:
    """
    The example with other classes as its labels, because a mean over labels of one class cancels the weight that the
    loss gives the class. A batch of one example stays one, because some models take no more.
    """
    labels = split_labels(example)[1]
    if classifies_tokens(model) and labels.ndim == 2 and not labels.is_floating_point():
        scored = labels != IGNORED
        number, classes = int(scored.sum()), model.config.num_labels
        in_turn = (labels[scored] + torch.arange(number, device=labels.device)) % classes
        is_in_range = (labels[scored] >= 0).all() and (labels[scored] < classes).all()
        return {**example, LABELS: labels.masked_scatter(scored, in_turn)} if is_in_range else example
    classes = num_classes(model)
    if classes is None or labels.ndim != 1 or labels.is_floating_point() or batch_size < 2:
        return example
    others = torch.linspace(0, classes - 1, min(classes, _MAX_CHECKED_CLASSES), device=labels.device)
    labels = torch.cat([labels, others.round().to(labels)])
    return {**select_examples(model, example, [0] * len(labels)), LABELS: labels}


@contextmanager
def _explaining_labels(model: nn.Module, batch: Mapping[str, Any]) -> Iterator[None]:
    """Turns an error that labels of another kind cause, in the likelihood or in the model, into one that says so."""
    try:
        yield
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        fault = None
        if LABELS in batch and _is_one_of(model, *_EXAMPLE_TASKS):
            fault = fault_of_class_labels(base_model(model), batch)
        elif _is_one_of(model, "CAUSAL_LM", "MASKED_LM", "TOKEN_CLASSIFICATION"):
            fault = fault_of_token_labels(base_model(model), batch)
        if fault is None:
            raise
        raise ValueError(fault) from error


def _own_loss(model: nn.Module, example: Mapping[str, Any]) -> torch.Tensor | None:
    keys = [LABELS] if LABELS in example else list(SPAN_LABELS)
    if not all(_accepts(model, key) for key in keys):
        return None
    inputs = dict(example)
    if LABELS in inputs and num_classes(model) is not None and not inputs[LABELS].is_floating_point():
        # transformers takes bools for several labels, and torch takes no smaller integers.
        inputs[LABELS] = inputs[LABELS].long()
    own_shift = _generates_labels(model, example) and not hasattr(base_model(model), _PREPARE)
    if own_shift and "decoder_input_ids" in inputs:
        # Let the model shift the labels itself, so that the comparison covers the inputs made for it.
        if torch.equal(inputs["decoder_input_ids"], _decoder_input_ids(model, inputs[LABELS])):
            del inputs["decoder_input_ids"]
    config = getattr(model, "config", None)
    problem_type = getattr(config, "problem_type", None)
    try:
        outputs = model(**inputs)
    finally:
        if hasattr(config, "problem_type"):
            config.problem_type = problem_type
    if isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    else:
        loss = outputs[0] if outputs[0].ndim == 0 else None
    return None if loss is None else loss.mean()


def _mean_loss(likelihood: Likelihood, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> float:
    """The negative log-likelihood of one example, or of one with several classes, averaged as transformers does."""
    loss = -likelihood(inputs, outputs, labels).sum().item()
    if likelihood.kind == "ctc":
        config = likelihood.model.config
        count = int(((labels >= 0) & (labels != config.pad_token_id)).sum())
        return loss / max(1, count) if config.ctc_loss_reduction == "mean" else loss
    return loss / max(1, int((likelihood.targets(inputs, outputs, labels)[1] != IGNORED).sum()))


def _float_tensors(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        if outputs.is_floating_point() and not isinstance(outputs, nn.Parameter):
            yield outputs
    elif isinstance(outputs, (Mapping, tuple, list)):
        for value in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _float_tensors(value)
