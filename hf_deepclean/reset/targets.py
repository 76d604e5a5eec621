# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Estimates what a model that never saw the forget data would answer on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.predictions import ExamplePredictions


# The other classes share what the target leaves over as halfway to the checkpoint, raised to one of these powers.
_SHARPNESS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 20.0)

# Losses are compared by their log odds within these bounds, where both are as good as certain.
_LEAST_ODDS, _MOST_ODDS = -8.0, 8.0


@dataclass(frozen=True)
class ForgetTargets:
    """
    What a model that never saw the forget data would answer on them, by estimate.

    Args:
        losses (`np.ndarray`):
            The loss of the label of every example, for token-level heads of every scored token, in nats. None is below
            the model's present loss, so nothing becomes better known.
        log_probabilities (`np.ndarray`, *optional*):
            Of every class, for a head with a class per example, shape `(num_examples, num_labels)`.
        present (`np.ndarray`):
            The model's present losses.
        wanted (`np.ndarray`):
            As `losses`, also where they are below the present ones.
        counts (`np.ndarray`):
            Number of losses of every example, shape `(num_examples,)`.
        unseen (`np.ndarray`, *optional*):
            The losses of unseen rows.
    """

    losses: np.ndarray
    log_probabilities: np.ndarray | None
    present: np.ndarray
    wanted: np.ndarray
    counts: np.ndarray
    unseen: np.ndarray | None = None

    def entries_of(self, examples: Sequence[int]) -> np.ndarray:
        """The places of the losses of some examples, in their order."""
        ends = self.counts.cumsum()
        return np.concatenate([np.arange(ends[place] - self.counts[place], ends[place]) for place in examples])

    @property
    def distance(self) -> float:
        """How far the mean log odds of the present losses are below what is expected; see `distance_of`."""
        return self.distance_of(self.present, np.arange(len(self.present)))

    def distance_of(self, losses: np.ndarray, entries: np.ndarray) -> float:
        """
        How far the mean log odds of losses are below those of their targets, or of all unseen rows if they are nearer,
        in nats. A row that was never learnt is harder halfway than all retained rows, so its target is too far.

        Args:
            losses (`np.ndarray`):
                The losses of some rows, in nats.
            entries (`np.ndarray`):
                The places of their targets.
        """
        others = [self.wanted[entries]] + ([] if self.unseen is None else [self.unseen])
        return min(float(log_odds(other).mean()) for other in others) - float(log_odds(losses).mean())

    def lead(self, losses: np.ndarray, entries: np.ndarray) -> float:
        """
        How much better known some rows are than their targets, from -1 to 1: the mean over all pairs of a loss and a
        target of the hyperbolic tangent of the difference of their log odds. 0 means that an attacker who orders both
        by their losses sees no difference.

        Args:
            losses (`np.ndarray`):
                The losses of the rows, in nats.
            entries (`np.ndarray`):
                The places of their targets.
        """
        return float(np.tanh(log_odds(self.wanted[entries])[None] - log_odds(losses)[:, None]).mean())


def log_odds(losses: np.ndarray) -> np.ndarray:
    """
    Returns the log odds against the label for its loss `-log p`, clipped to [-8, 8].

    Args:
        losses (`np.ndarray`):
            The losses, in nats.
    """
    return np.log(np.expm1(losses.clip(1e-12, 50.0))).clip(_LEAST_ODDS, _MOST_ODDS)


def estimate_targets(
    now: Mapping[str, ExamplePredictions], halfway: Mapping[str, ExamplePredictions], target: str
) -> ForgetTargets:
    """
    Estimates the answers on the forget data of a model that never saw them.

    How hard a row is shows halfway back to the checkpoint, where little of what was learnt by heart is left: its loss
    there has a rank among the retained rows. Its target is the loss of unseen rows at the same rank, under the model
    as it is. The other classes share the rest as they do halfway, as sharply as makes the targets right as often as
    the model is on unseen rows.

    If classes are to go (target `"chance"`), their probability becomes what the model gives a wrong class of a
    retained row, by the mean of the logarithms.

    Args:
        now (`dict[str, ExamplePredictions]`):
            The model's answers on `"forget"`, and on a sample of `"unseen"`, for the target `"chance"` of `"retain"`.
        halfway (`dict[str, ExamplePredictions]`):
            The answers on `"forget"` halfway to the checkpoint, and on a sample of `"retain"`.
        target (`str`):
            `"unseen"` or `"chance"`.
    """
    present, tokens = label_losses(now["forget"]), now["forget"].tokens
    counts = np.ones(len(present), dtype=int) if tokens is None else tokens.counts
    if target == "chance":
        wanted = np.full(len(present), _loss_of_wrong_classes(now["retain"]))
        gone = np.unique(now["forget"].labels)
        losses = np.maximum(wanted, present)
        return ForgetTargets(losses, _shared(halfway["forget"], losses, 2.0, gone), present, wanted, counts)
    unseen = label_losses(now["unseen"])
    ranks = _ranks(label_losses(halfway["forget"]), label_losses(halfway["retain"]))
    wanted = np.quantile(unseen, ranks)
    losses = np.maximum(wanted, present)
    if now["forget"].log_probabilities is None:
        return ForgetTargets(losses, None, present, wanted, counts, unseen)
    labels, order = now["forget"].labels, np.argsort(unseen, kind="stable")
    are_right = (now["unseen"].log_probabilities.argmax(axis=1) == now["unseen"].labels)[order]
    share_right = are_right[(ranks * len(order)).astype(int)].mean()

    def error(sharpness: float) -> float:
        answers = _shared(halfway["forget"], losses, sharpness).argmax(axis=1)
        return abs(float((answers == labels).mean()) - share_right)

    answers = _shared(halfway["forget"], losses, min(_SHARPNESS, key=error))
    return ForgetTargets(losses, answers, present, wanted, counts, unseen)


def label_losses(predictions: ExamplePredictions) -> np.ndarray:
    """
    Returns the loss of every label, for token-level heads of every scored token, in nats.

    Args:
        predictions ([`ExamplePredictions`]):
            The answers of a head with classes or tokens.
    """
    if predictions.tokens is not None:
        return -predictions.tokens.log_probabilities.astype(np.float64)
    return -np.take_along_axis(predictions.log_probabilities, predictions.labels[:, None], axis=1)[:, 0]


def _loss_of_wrong_classes(predictions: ExamplePredictions) -> float:
    every = -predictions.log_probabilities
    others = np.where(np.arange(every.shape[1]) == predictions.labels[:, None], np.nan, every)
    return float(np.nanmean(others))


def _ranks(losses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of others below each loss, with half of those that are equal, never quite 0 or 1."""
    others = np.sort(others)
    below, up_to = (np.searchsorted(others, losses, side=side) for side in ("left", "right"))
    margin = 0.5 / len(others)
    return ((below + up_to) / (2 * len(others))).clip(margin, 1 - margin)


def _shared(
    halfway: ExamplePredictions, losses: np.ndarray, sharpness: float, gone: np.ndarray | None = None
) -> np.ndarray:
    """The log-probabilities of all classes: the label has its loss, the others share the rest as halfway."""
    rows, others = np.arange(len(losses)), sharpness * halfway.log_probabilities
    # If every class is to go, none is left that could take the rest.
    if gone is not None and len(gone) < others.shape[1]:
        others[:, gone] = -np.inf
    others[rows, halfway.labels] = -np.inf
    others -= others.max(axis=1, keepdims=True)
    others -= np.log(np.exp(others).sum(axis=1, keepdims=True))
    found = others + np.log(-np.expm1(-losses))[:, None]
    found[rows, halfway.labels] = -losses
    return found
