# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihood of every example of a batch, from the logits and never from the model's own (averaged) loss."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import IGNORED
from .label_draws import draw_targets


FISHER_TYPES = ("empirical", "sampled", "expected")

LogLikelihoodFunction = Callable[[Any, torch.Tensor], torch.Tensor]

_OWN_LIKELIHOOD = "Pass a `log_likelihood_func(outputs, labels)` that returns one log-likelihood per example."


def logits_of(outputs: Any, name: str = "logits", position: int = 0) -> torch.Tensor:
    """
    The logits of a model's outputs, which may be a plain tuple.

    Raises:
        `ValueError`: If the outputs hold none; names what they hold.
    """
    if isinstance(outputs, Mapping):
        if name not in outputs:
            raise ValueError(f"The model's outputs have no `{name}` but hold {sorted(outputs)}. {_OWN_LIKELIHOOD}")
        return outputs[name]
    return outputs[position]


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
    return torch.log_softmax(_class_logits(outputs), dim=-1)


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
    return _log_probability(*_class_targets(outputs, labels))


def token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood of every example under a head that says something of every position: token classification, masked
    and sequence-to-sequence language models. The sum over the scored positions of `log p(y_nt | x_n, w)`.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, length, num_labels)`.
        labels (`torch.Tensor`):
            Class indices or token ids, shape `(batch_size, length)`, with -100 where nothing is scored.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats; 0 for an example without scored positions.

    Raises:
        `ValueError`: If the labels do not have the shape of the logits' positions, or lie outside the head's range.
    """
    return _log_probability(*_token_targets(outputs, labels))


def next_token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-likelihood of every example under a causal language model: the logits at a position are scored on the label of
    the next one.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, length, vocab_size)`. Virtual tokens of prompt
            tuning may make them longer at the left than the labels are.
        labels (`torch.Tensor`):
            Token ids, not shifted, shape `(batch_size, length)`, with -100 where nothing is scored.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats; 0 for an example without scored positions.

    Raises:
        `ValueError`: If the labels do not have the shape of the logits' positions, or lie outside the vocabulary.
    """
    return _log_probability(*_next_token_targets(outputs, labels))


def span_log_likelihood(
    outputs: Any, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Log-likelihood of every example under an extractive question-answering head: `log p(start) + log p(end)`.

    Padding has no part in the two distributions, so that an example has the likelihood of its unpadded self. A
    position behind the sequence (a truncated answer) is not scored, as in transformers.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `start_logits` and `end_logits` of shape `(batch_size, length)`.
        labels (`torch.Tensor`):
            Start and end positions, shape `(batch_size, 2)`.
        attention_mask (`torch.Tensor`, *optional*):
            Nonzero for tokens that are no padding, shape `(batch_size, length)`.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are no pairs of positions.
    """
    return _log_probability(*_span_targets(outputs, labels, attention_mask))


def ctc_log_likelihood(
    outputs: Any, labels: torch.Tensor, lengths: torch.Tensor, blank: int, zero_infinity: bool = False
) -> torch.Tensor:
    """
    Log-likelihood of every example under connectionist temporal classification, summed over all alignments.

    Args:
        outputs ([`~transformers.utils.ModelOutput`]):
            The model's outputs, with `logits` of shape `(batch_size, num_frames, vocab_size)`.
        labels (`torch.Tensor`):
            Token ids, shape `(batch_size, length)`; negative values and the blank are padding.
        lengths (`torch.Tensor`):
            Number of frames of every example, shape `(batch_size,)`.
        blank (`int`):
            Token id of the blank.
        zero_infinity (`bool`, *optional*, defaults to `False`):
            Whether an example that has no alignment, being too short for its labels, scores 0 instead of -inf.

    Returns:
        `torch.Tensor`: Shape `(batch_size,)`, in nats.

    Raises:
        `ValueError`: If the labels are no token ids of the head.
    """
    logits = _float_logits(outputs)
    if logits.ndim != 3 or labels.ndim != 2 or len(labels) != len(logits) or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are no token ids for CTC logits of shape "
            f"{tuple(logits.shape)}. {_OWN_LIKELIHOOD}"
        )
    kept = (labels >= 0) & (labels != blank)
    _check_range(labels[kept], logits.shape[-1])
    # Targets are given in one row: the padded form would read the values of the padding too.
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


@dataclass(frozen=True, eq=False)
class Likelihood:
    """
    How the examples of a model are scored; made by [`~heads.find_likelihood`].

    Args:
        kind (`str`):
            `"classification"`, `"token"`, `"next_token"`, `"span"`, `"ctc"` or, with `func`, `"custom"`.
        func (`Callable`, *optional*):
            The caller's likelihood, called with the model's outputs and the labels.
        model (`torch.nn.Module`, *optional*):
            The model, which for `"ctc"` tells the number of frames of every example.
    """

    kind: str
    func: LogLikelihoodFunction | None = None
    model: nn.Module | None = None

    def __call__(self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """
        Log-likelihood of every example of a batch.

        Args:
            inputs (`dict[str, Any]`):
                What the model was given, without the labels.
            outputs ([`~transformers.utils.ModelOutput`]):
                What it returned.
            labels (`torch.Tensor`):
                The batch's labels.

        Returns:
            `torch.Tensor`: Shape `(batch_size,)`, in nats.

        Raises:
            `ValueError`: If outputs and labels do not fit the kind, or the caller's likelihood does not return one
                value per example.
        """
        if self.kind == "custom":
            return _checked(self.func(outputs, labels), len(labels))
        if self.kind == "ctc":
            config = self.model.config
            lengths = _num_frames(self.model, inputs, logits_of(outputs))
            return ctc_log_likelihood(outputs, labels, lengths, config.pad_token_id, config.ctc_zero_infinity)
        return _log_probability(*self.targets(inputs, outputs, labels))

    def losses(self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """
        Negative log-likelihoods of the examples, for token-level heads per scored token; examples without any are left
        out.

        Args:
            inputs, outputs, labels:
                As for the likelihood itself.

        Returns:
            `torch.Tensor`: Shape `(num_scored_examples,)`, in nats.
        """
        log_likelihood = self(inputs, outputs, labels)
        if self.kind not in ("token", "next_token"):
            return -log_likelihood
        counts = (self.targets(inputs, outputs, labels)[1] != IGNORED).sum(dim=1)
        return (-log_likelihood / counts.clamp_min(1))[counts > 0]

    def targets(
        self, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The choices that a categorical likelihood consists of.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Logits of shape `(batch_size, num_choices, num_outcomes)` in float32
            or float64, and the outcomes of shape `(batch_size, num_choices)` with -100 where nothing is scored.
        """
        if self.kind == "span":
            return _span_targets(outputs, labels, inputs.get("attention_mask"))
        return _TARGETS[self.kind](outputs, labels)


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
    likelihood: Likelihood,
    inputs: Mapping[str, Any],
    outputs: Any,
    labels: torch.Tensor,
    fisher_type: str = "empirical",
    *,
    positions: Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[torch.Tensor]:
    """
    The scalars whose squared per-example gradients add up to the Fisher information of a batch.

    Args:
        likelihood ([`Likelihood`]):
            How the model's examples are scored.
        inputs (`dict[str, Any]`):
            What the model was given, without the labels.
        outputs ([`~transformers.utils.ModelOutput`]):
            What it returned.
        labels (`torch.Tensor`):
            The batch's labels.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"`: one score, the log-likelihood of the given labels. `"sampled"`: one score, the
            log-likelihood of labels drawn from the model, one for every position that is scored; positions do not
            correlate, so that one draw of all of them estimates without bias. `"expected"`: one score per class c,
            `sqrt(p_c) * log p_c` with `p_c` held constant, whose squares sum to the expectation over classes.
        positions (`Sequence[int]`, *optional*):
            Position of every example in the data set, by default in the batch. A sampled label depends on the seed,
            the example's position and its own index among the scored ones only, not on how examples are batched or
            padded.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.

    Yields:
        `torch.Tensor`: Scores of shape `(batch_size,)`.

    Raises:
        `ValueError`: If the likelihood has no distribution to draw from, or no few classes to enumerate.
    """
    if fisher_type == "empirical":
        yield likelihood(inputs, outputs, labels)
        return
    if likelihood.kind in ("custom", "ctc"):
        raise ValueError(
            f"`fisher_type={fisher_type!r}` draws or enumerates labels from the probabilities of single choices, "
            f"which a {likelihood.kind} likelihood does not give. Use `fisher_type='empirical'` with it."
        )
    if fisher_type == "expected" and likelihood.kind != "classification":
        raise ValueError(
            f"`fisher_type='expected'` takes one backward pass per class and is for single-label classification, but "
            f"this is a {likelihood.kind} likelihood with as many outcomes as sequences. Use `fisher_type='sampled'`, "
            "which estimates the same expectation from one pass."
        )
    logits, targets = likelihood.targets(inputs, outputs, labels)
    if fisher_type == "sampled":
        probabilities = torch.softmax(logits.detach(), dim=-1)
        drawn = draw_targets(probabilities, targets, range(len(labels)) if positions is None else positions, seed)
        del probabilities
        yield _log_probability(logits, drawn)
        return
    for log_probability in torch.log_softmax(logits[:, 0], dim=-1).unbind(dim=1):
        yield (log_probability.detach() / 2).exp() * log_probability


def check_fisher_type(fisher_type: str, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    """Refuses an unknown `fisher_type`, and one that the caller's likelihood cannot serve."""
    if fisher_type not in FISHER_TYPES:
        raise ValueError(f"`fisher_type` is {fisher_type!r} but must be one of {', '.join(map(repr, FISHER_TYPES))}.")
    if fisher_type != "empirical" and log_likelihood_func is not None and built_in_kind(log_likelihood_func) is None:
        raise ValueError(
            f"`fisher_type={fisher_type!r}` draws or enumerates labels from the class probabilities of the logits, "
            "which a `log_likelihood_func` does not give. Use `fisher_type='empirical'` with it."
        )


def built_in_kind(log_likelihood_func: LogLikelihoodFunction) -> str | None:
    """The kind of likelihood that one of this module's functions computes; none for any other function."""
    return next((kind for kind, function in _FUNCTIONS.items() if function is log_likelihood_func), None)


class _LogProbability(torch.autograd.Function):
    """
    Log-probability of every target, 0 for the ignored ones, with one tensor of the logits' size in the backward pass.

    Cross entropy makes three, which for a large vocabulary are much of the time and memory of a Fisher pass.
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


def _log_probability(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return _LogProbability.apply(logits, targets).sum(dim=1)


def _float_logits(outputs: Any, name: str = "logits", position: int = 0) -> torch.Tensor:
    logits = logits_of(outputs, name, position)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _class_logits(outputs: Any) -> torch.Tensor:
    logits = _float_logits(outputs)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"The model returned logits of shape {tuple(logits.shape)}; the likelihood of a classification head needs "
            f"(batch_size, num_labels) with at least two labels. {_OWN_LIKELIHOOD}"
        )
    return logits


def _class_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _class_logits(outputs)
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are no class indices for logits of shape "
            f"{tuple(logits.shape)}. Multi-label and regression heads need a `log_likelihood_func`."
        )
    _check_range(labels, logits.shape[1])
    return logits[:, None], labels.long()[:, None]


def _token_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _float_logits(outputs)
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} do not give every position of logits of "
            f"shape {tuple(logits.shape)} a class index, as the likelihood of a token-level head needs. "
            f"{_OWN_LIKELIHOOD}"
        )
    _check_range(labels[labels != IGNORED], logits.shape[2])
    return logits, labels.long()


def _next_token_targets(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits_of(outputs)
    virtual = logits.shape[1] - labels.shape[1] if logits.ndim == 3 and labels.ndim == 2 else 0
    if virtual > 0:
        labels = F.pad(labels, (virtual, 0), value=IGNORED)
    logits, labels = _token_targets((logits,), labels)
    # The labels are shifted and not the logits, whose copy would be large.
    return logits, F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def _span_targets(
    outputs: Any, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.stack([_float_logits(outputs, "start_logits"), _float_logits(outputs, "end_logits", 1)], dim=1)
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or labels.is_floating_point():
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} and dtype {labels.dtype} are no pairs of start and end positions "
            f"for start and end logits of shape {tuple(logits[:, 0].shape)}. {_OWN_LIKELIHOOD}"
        )
    length = logits.shape[2]
    positions = labels.long().clamp(0, length)
    attended = torch.ones_like(logits[:, 0], dtype=torch.bool)
    if attention_mask is not None and attention_mask.shape == attended.shape:
        attended = attention_mask.bool()
        logits = logits.masked_fill(~attended[:, None], -torch.inf)
    scored = F.pad(attended, (0, 1), value=False).gather(1, positions)
    return logits, positions.masked_fill(~scored, IGNORED)


def _check_range(labels: torch.Tensor, num_labels: int) -> None:
    outside = (labels < 0) | (labels >= num_labels)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} labels of a batch lie outside the head's range 0 to {num_labels - 1}. "
            "Map the labels to the model's `config.label2id`, or load the model with the right `num_labels`; for "
            "token ids use the model's own tokenizer, and -100 for positions that are not scored."
        )


def _checked(log_likelihood: Any, size: int) -> torch.Tensor:
    if not isinstance(log_likelihood, torch.Tensor) or log_likelihood.shape != (size,):
        returned = (
            f"shape {tuple(log_likelihood.shape)}"
            if isinstance(log_likelihood, torch.Tensor)
            else f"a {type(log_likelihood).__name__}"
        )
        raise ValueError(
            f"`log_likelihood_func` returned {returned} for {size} examples. It must return a tensor with "
            "one log-likelihood per example: sum over tokens or targets, and do not average over the batch."
        )
    return log_likelihood


def _num_frames(model: nn.Module, inputs: Mapping[str, Any], logits: torch.Tensor) -> torch.Tensor:
    """Number of logits that stem from the audio and not from padding, as the model itself counts them."""
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


_TARGETS = {"classification": _class_targets, "token": _token_targets, "next_token": _next_token_targets}
_FUNCTIONS = {
    "classification": classification_log_likelihood,
    "token": token_log_likelihood,
    "next_token": next_token_log_likelihood,
    "span": span_log_likelihood,
}
