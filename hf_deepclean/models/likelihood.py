# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The log-likelihood of every example of a batch, from the logits and never from the model's own (averaged) loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import IGNORED
from .label_alignment import (
    OWN_LIKELIHOOD_HINT,
    check_label_range,
    class_logits,
    class_targets,
    float_logits,
    logits_of,
    next_token_targets,
    span_targets,
    token_targets,
)


# Called with the model's outputs and the labels; returns one log-likelihood per example, shape `(batch_size,)`.
LogLikelihoodFunction = Callable[[Any, torch.Tensor], torch.Tensor]

# The kinds whose examples consist of scored tokens.
TOKEN_KINDS = ("token", "next_token")


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
    return torch.log_softmax(class_logits(outputs), dim=-1)


def classification_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood `log p(y_n | x_n, w)` of every example under a single-label head: sequence, image, audio or video
    classification, multiple choice, next-sentence prediction.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, num_labels)` or `(batch_size, num_choices)`.
        labels (`torch.Tensor`):
            Class indices, shape `(batch_size,)`.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are no class indices, or lie outside the head's range.
    """
    return log_probability_of_labels(*class_targets(outputs, labels))


def token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood of every example under a head with an output for every position: token classification, masked and
    sequence-to-sequence language models. It is the sum of `log p(y_nt | x_n, w)` over the scored positions.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, length, num_labels)`.
        labels (`torch.Tensor`):
            Class indices or token ids, shape `(batch_size, length)`; -100 where nothing is scored.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats; 0 for an example without scored positions.

    Raises:
        `ValueError`: If the labels do not have the shape of the logits' positions, or lie outside the head's range.
    """
    return log_probability_of_labels(*token_targets(outputs, labels))


def next_token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood of every example under a causal language model. The logits at a position are scored on the label at
    the next position.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, length, vocab_size)`. The virtual tokens of
            prompt tuning may make them longer than the labels, at the left.
        labels (`torch.Tensor`):
            Token ids, not shifted, shape `(batch_size, length)`; -100 where nothing is scored.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats; 0 for an example without scored positions.

    Raises:
        `ValueError`: If the labels do not have the shape of the logits' positions, or lie outside the vocabulary.
    """
    return log_probability_of_labels(*next_token_targets(outputs, labels))


def span_log_likelihood(
    outputs: Any, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Log-likelihood of every example under an extractive question-answering head: `log p(start) + log p(end)`.

    Padding is excluded from the two distributions, so an example has the same likelihood with and without it. A
    position behind the sequence (a truncated answer) is not scored, as in transformers.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `start_logits` and `end_logits` of shape `(batch_size, length)`.
        labels (`torch.Tensor`):
            Start and end positions, shape `(batch_size, 2)`.
        attention_mask (`torch.Tensor`, *optional*):
            Nonzero for tokens that are not padding, shape `(batch_size, length)`.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are not pairs of positions.
    """
    return log_probability_of_labels(*span_targets(outputs, labels, attention_mask))


def ctc_log_likelihood(
    outputs: Any, labels: torch.Tensor, lengths: torch.Tensor, blank: int, zero_infinity: bool = False
) -> torch.Tensor:
    """
    Log-likelihood of every example under connectionist temporal classification, summed over all alignments.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, num_frames, vocab_size)`.
        labels (`torch.Tensor`):
            Token ids, shape `(batch_size, length)`. Negative values and the blank are padding.
        lengths (`torch.Tensor`):
            Number of frames of every example, shape `(batch_size,)`.
        blank (`int`):
            Token id of the blank.
        zero_infinity (`bool`, *optional*, defaults to `False`):
            Whether an example that is too short for its labels, and so has no alignment, scores 0 instead of -inf.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are not token ids of the head.
    """
    logits = float_logits(outputs)
    if logits.ndim != 3 or labels.ndim != 2 or len(labels) != len(logits) or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are not token ids for CTC logits of "
            f"shape {tuple(logits.shape)}. {OWN_LIKELIHOOD_HINT}"
        )
    kept = (labels >= 0) & (labels != blank)
    check_label_range(labels[kept], logits.shape[-1])
    # Pass all targets in one row: the padded form would also read the values of the padding.
    with torch.backends.cudnn.flags(enabled=False):
        return -F.ctc_loss(
            torch.log_softmax(logits, dim=-1).transpose(0, 1),
            labels[kept],
            lengths.clamp_max(logits.shape[1]),
            kept.sum(dim=1),
            blank=blank,
            reduction="none",
            zero_infinity=zero_infinity,
        )


class _LogProbability(torch.autograd.Function):
    """
    Log-probability of every target, 0 for ignored ones. The backward pass makes one tensor of the logits' size.

    Cross-entropy makes three of them. With a large vocabulary these take much of the time and memory of a Fisher pass.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        ignored = targets == IGNORED
        chosen = targets.masked_fill(ignored, 0)[..., None]
        ctx.save_for_backward(logits, chosen, ignored)
        log_probabilities = torch.log_softmax(logits, dim=-1)
        return log_probabilities.gather(-1, chosen).squeeze(-1).masked_fill_(ignored, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, chosen, ignored = ctx.saved_tensors
        gradient = gradient.masked_fill(ignored, 0)[..., None]
        result = torch.softmax(logits, dim=-1).mul_(-gradient)
        return result.scatter_add_(-1, chosen, gradient), None


def log_probability_of_labels(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Sums the log-probabilities of the targets of every example.

    Args:
        logits (`torch.Tensor`):
            Shape `(batch_size, num_choices, num_outcomes)`, float32 or float64.
        targets (`torch.Tensor`):
            Outcomes, shape `(batch_size, num_choices)`; -100 where nothing is scored.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.
    """
    return _LogProbability.apply(logits, targets).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """
    How the examples of a model are scored. Made by [`~heads.find_likelihood`].

    Args:
        kind (`str`):
            `"classification"`, `"token"`, `"next_token"`, `"span"`, `"ctc"` or, with `func`, `"custom"`.
        func (`Callable`, *optional*):
            The caller's likelihood, called with the model's outputs and the labels.
        model (`torch.nn.Module`, *optional*):
            The model. `"ctc"` needs it for the number of frames of every example.
    """

    kind: str
    func: LogLikelihoodFunction | None = None
    model: nn.Module | None = None

    def __call__(self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """
        Log-likelihood of every example of a batch.

        Args:
            inputs (`dict[str, Any]`):
                The model's inputs, without the labels.
            outputs ([`~transformers.utils.ModelOutput`]):
                The model's outputs.
            labels (`torch.Tensor`):
                The labels of the batch.

        Returns:
            `torch.Tensor`: Shape `(batch_size,)`, in nats.

        Raises:
            `ValueError`: If outputs and labels do not fit the kind, or if the caller's likelihood does not return one
                value per example.
        """
        if self.kind == "custom":
            return _checked(self.func(outputs, labels), len(labels))
        if self.kind == "ctc":
            config = self.model.config
            lengths = _num_frames(self.model, inputs, logits_of(outputs))
            return ctc_log_likelihood(outputs, labels, lengths, config.pad_token_id, config.ctc_zero_infinity)
        return log_probability_of_labels(*self.targets(inputs, outputs, labels))

    def losses(self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """
        Negative log-likelihood of every example; for token-level heads the mean over its scored tokens. Examples
        without a scored token are left out.

        Args:
            inputs, outputs, labels:
                As for [`Likelihood.__call__`].

        Returns:
            `torch.Tensor`: Shape `(num_scored_examples,)`, in nats.
        """
        log_likelihood = self(inputs, outputs, labels)
        if self.kind not in TOKEN_KINDS:
            return -log_likelihood
        counts = (self.targets(inputs, outputs, labels)[1] != IGNORED).sum(dim=1)
        return (-log_likelihood / counts.clamp_min(1))[counts > 0]

    def mean_over_outcomes(self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """
        The mean of the log-probabilities of all outcomes, summed over the scored choices of every example: what label
        smoothing mixes with the log-likelihood, as transformers does.

        Args:
            inputs, outputs, labels:
                As for [`Likelihood.__call__`].

        Returns:
            `torch.Tensor`: Shape `(batch_size,)`, in nats.

        Raises:
            `ValueError`: If the kind has no such mean.
        """
        if self.kind not in ("classification", *TOKEN_KINDS):
            raise ValueError(
                f"`label_smoothing_factor` spreads every label over all classes or tokens, and the likelihood of this "
                f"model is of the kind {self.kind!r}, which has none to spread over. Set it to 0."
            )
        logits, targets = self.targets(inputs, outputs, labels)
        means = torch.log_softmax(logits, dim=-1).mean(dim=-1)
        return means.masked_fill(targets == IGNORED, 0).sum(dim=1)

    def targets(
        self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The single choices of a categorical likelihood.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Logits of shape `(batch_size, num_choices, num_outcomes)` in float32
            or float64, and outcomes of shape `(batch_size, num_choices)`, with -100 where nothing is scored.
        """
        if self.kind == "span":
            return span_targets(outputs, labels, inputs.get("attention_mask"))
        return _TARGETS[self.kind](outputs, labels)


def check_finite_log_likelihood(log_likelihood: torch.Tensor, first_position: int) -> None:
    """
    Refuses log-likelihoods that are not finite.

    Args:
        log_likelihood (`torch.Tensor`):
            Log-likelihoods of consecutive examples, shape `(num_examples,)`.
        first_position (`int`):
            Position of the first of these examples in the data set.

    Raises:
        `ValueError`: If one is not finite. The message gives the position of the first such example, not its content.
    """
    finite = log_likelihood.isfinite()
    if finite.all():
        return
    offset = int((~finite).nonzero()[0])
    raise ValueError(
        f"The log-likelihood of the example at position {first_position + offset} is {log_likelihood[offset].item()}. "
        "Check that example and the model's weights; a half-precision model may overflow: try float32."
    )


def built_in_kind(log_likelihood_func: LogLikelihoodFunction) -> str | None:
    """The kind of likelihood that a function of this module computes; `None` for any other function."""
    return next((kind for kind, function in _FUNCTIONS.items() if function is log_likelihood_func), None)


def _checked(log_likelihood: Any, size: int) -> torch.Tensor:
    if not isinstance(log_likelihood, torch.Tensor) or log_likelihood.shape != (size,):
        returned = (
            f"shape {tuple(log_likelihood.shape)}"
            if isinstance(log_likelihood, torch.Tensor)
            else f"a {type(log_likelihood).__name__}"
        )
        raise ValueError(
            f"`log_likelihood_func` returned {returned} for {size} examples. It must return a tensor with one "
            "log-likelihood per example: sum over tokens or targets, and do not average over the batch."
        )
    return log_likelihood


def _num_frames(model: nn.Module, inputs: Mapping[str, Any], logits: torch.Tensor) -> torch.Tensor:
    """Number of frames that come from the audio, not from padding, as the model itself counts them."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.full((len(logits),), logits.shape[1], device=logits.device)
    for name in ("_get_feat_extract_output_lengths", "_get_subsampling_output_length"):
        if hasattr(model, name):
            return getattr(model, name)(mask.sum(dim=-1)).long()
    raise ValueError(
        f"{type(model).__name__} does not tell how many frames an attention mask leaves. Pass a "
        "`log_likelihood_func(outputs, labels)` that calls `ctc_log_likelihood` with them."
    )


_TARGETS = {"classification": class_targets, "token": token_targets, "next_token": next_token_targets}
_FUNCTIONS = {
    "classification": classification_log_likelihood,
    "token": token_log_likelihood,
    "next_token": next_token_log_likelihood,
    "span": span_log_likelihood,
}
