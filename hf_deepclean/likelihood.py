# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihood of every example of a batch, from the logits and never from the model's own (averaged) loss."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .batches import LABELS, split_labels


FISHER_TYPES = ("empirical", "sampled", "expected")

LogLikelihoodFunction = Callable[[Any, torch.Tensor], torch.Tensor]


def logits_of(outputs: Any) -> torch.Tensor:
    """The logits of a model's outputs, which may be a plain tuple."""
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]


def class_log_probabilities(outputs: Any) -> torch.Tensor:
    """
    Log-probability of every class for every example of a classification head.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, num_labels)`.

    Returns:
        `torch.Tensor`: Shape `(batch_size, num_labels)`, in float32 or, if the logits are float64, in float64.

    Raises:
        `ValueError`: If the logits are not those of a single-label classification head.
    """
    logits = logits_of(outputs)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"The model returned logits of shape {tuple(logits.shape)}; the built-in likelihood is that of a "
            "classification head, of shape (batch_size, num_labels) with at least two labels. Pass a "
            "`log_likelihood_func(outputs, labels)` that returns one log-likelihood per example."
        )
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


def classification_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood `log p(y_n | x_n, w)` of every example under a single-label classification head.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, num_labels)`.
        labels (`torch.Tensor`):
            Class indices, shape `(batch_size,)`.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are no class indices, or lie outside the head's range.
    """
    log_probabilities = class_log_probabilities(outputs)
    num_labels = log_probabilities.shape[1]
    if labels.shape != log_probabilities.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are no class indices for logits of shape "
            f"{tuple(log_probabilities.shape)}. Multi-label and regression heads need a `log_likelihood_func`."
        )
    outside = (labels < 0) | (labels >= num_labels)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} labels of a batch lie outside the head's range 0 to {num_labels - 1}. "
            "Map the labels to the model's `config.label2id`, or load the model with the right `num_labels`."
        )
    return log_probabilities.gather(1, labels[:, None]).squeeze(1)


def per_example_log_likelihood(
    outputs: Any, labels: torch.Tensor, log_likelihood_func: LogLikelihoodFunction | None = None
) -> torch.Tensor:
    """
    Log-likelihood of every example of a batch: the built-in one, or the caller's.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs for a batch without labels.
        labels (`torch.Tensor`):
            The batch's labels.
        log_likelihood_func (`Callable`, *optional*):
            Called with `outputs` and `labels`; must return one value per example, shape `(batch_size,)`, in which no
            example depends on another one.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.
    """
    if log_likelihood_func is None:
        return classification_log_likelihood(outputs, labels)
    log_likelihood = log_likelihood_func(outputs, labels)
    if log_likelihood.shape != (len(labels),):
        raise ValueError(
            f"`log_likelihood_func` returned shape {tuple(log_likelihood.shape)} for {len(labels)} examples. It must "
            "return one log-likelihood per example: sum over tokens or targets, and do not average over the batch."
        )
    return log_likelihood


def check_finite_log_likelihood(log_likelihood: torch.Tensor, first_position: int) -> None:
    """
    Refuses log-likelihoods that are not finite.

    Args:
        log_likelihood (`torch.Tensor`):
            Log-likelihoods of consecutive examples, shape `(num_examples,)`.
        first_position (`int`):
            Position of the first of them in the data set.

    Raises:
        `ValueError`: Names the position of the first such example, never its content.
    """
    finite = log_likelihood.isfinite()
    if finite.all():
        return
    offset = int((~finite).nonzero()[0])
    raise ValueError(
        f"The log-likelihood of the example at position {first_position + offset} is {log_likelihood[offset].item()}. "
        "Check that example and the model's weights; a half-precision model may overflow: try float32."
    )


def fisher_scores(
    outputs: Any,
    labels: torch.Tensor,
    fisher_type: str,
    *,
    log_likelihood_func: LogLikelihoodFunction | None = None,
    first_position: int = 0,
    seed: int = 0,
) -> Iterator[torch.Tensor]:
    """
    The scalars whose squared per-example gradients add up to the Fisher information of a batch.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs for a batch.
        labels (`torch.Tensor`):
            The batch's labels.
        fisher_type (`str`):
            `"empirical"`: one score, the log-likelihood of the given label. `"sampled"`: one score, the
            log-likelihood of a label drawn from the model. `"expected"`: one score per class c,
            `sqrt(p_c) * log p_c` with `p_c` held constant, whose squares sum to the expectation over classes.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood; only for `"empirical"`.
        first_position (`int`, *optional*, defaults to `0`):
            Position of the batch's first example in the data set. A sampled label depends on the seed and on the
            example's position only, not on how examples are batched.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.

    Yields:
        `torch.Tensor`: Scores of shape `(batch_size,)`.
    """
    if fisher_type == "empirical":
        yield per_example_log_likelihood(outputs, labels, log_likelihood_func)
        return
    log_probabilities = class_log_probabilities(outputs)
    if fisher_type == "sampled":
        sampled = _sample_labels(log_probabilities.detach(), first_position, seed)
        yield log_probabilities.gather(1, sampled[:, None]).squeeze(1)
        return
    for log_probability in log_probabilities.unbind(dim=1):
        yield (log_probability.detach() / 2).exp() * log_probability


def _sample_labels(log_probabilities: torch.Tensor, first_position: int, seed: int) -> torch.Tensor:
    cumulative = log_probabilities.double().exp().cumsum(dim=1)
    uniform = [
        np.random.Generator(np.random.Philox(key=seed).advance(first_position + offset)).random()
        for offset in range(len(cumulative))
    ]
    thresholds = torch.tensor(uniform, dtype=torch.float64, device=cumulative.device)[:, None] * cumulative[:, -1:]
    return (cumulative <= thresholds).sum(dim=1).clamp_max(cumulative.shape[1] - 1)


def check_fisher_type(fisher_type: str, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    """Refuses an unknown `fisher_type`, and one that the caller's likelihood cannot serve."""
    if fisher_type not in FISHER_TYPES:
        raise ValueError(f"`fisher_type` is {fisher_type!r} but must be one of {', '.join(map(repr, FISHER_TYPES))}.")
    if fisher_type != "empirical" and log_likelihood_func is not None:
        raise ValueError(
            f"`fisher_type={fisher_type!r}` draws or enumerates labels from the class probabilities of the logits, "
            "which a `log_likelihood_func` does not give. Use `fisher_type='empirical'` with it."
        )


@torch.no_grad()
def check_log_likelihood_against_loss(
    model: nn.Module, batch: Mapping[str, Any], log_likelihood_func: LogLikelihoodFunction | None = None
) -> None:
    """
    Compares the likelihood with the model's own loss on one batch, where the model computes one.

    A difference means that the model was trained on something else than this likelihood (several labels, a
    regression, an auxiliary loss), so that its Fisher information would answer another question.

    Raises:
        `ValueError`: If the two differ by more than 1e-3 (relative; 8 units in the last place for half precision),
            and no `log_likelihood_func` was given.
    """
    if log_likelihood_func is not None:
        return
    inputs, labels = split_labels(batch)
    problem_type = getattr(model.config, "problem_type", None)
    try:
        outputs = model(**inputs, **{LABELS: labels})
    finally:
        model.config.problem_type = problem_type
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
    if loss is None:
        return
    ours = -classification_log_likelihood(outputs, labels).mean()
    tolerance = max(1e-3, 8 * torch.finfo(loss.dtype).eps)
    if torch.isfinite(loss) and abs(ours.item() - loss.item()) > tolerance * abs(loss.item()) + 1e-5:
        raise ValueError(
            f"{type(model).__name__} reports a loss of {loss.item():.6g} where the mean negative log-likelihood of "
            f"its logits is {ours.item():.6g}: it is not trained on the plain classification likelihood. Pass a "
            "`log_likelihood_func(outputs, labels)` that returns one log-likelihood per example."
        )
