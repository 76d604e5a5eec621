# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the answers of many unlearned models with those of many retrained models, as distributions."""

import numpy as np


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Computes the margin of the true class: `logit_y - log(sum of exp(logit_c) over c other than y)`.

    Above 0 the true class is more probable than all others together. The margin is the logit-scaled confidence
    `log(p / (1 - p))`, without the cancellation of `1 - p` where `p` is almost 1. Logits and log-probabilities give
    the same margins.

    Args:
        logits (`np.ndarray`):
            Logits or log-probabilities of one model, shape `(num_examples, num_classes)` with at least two classes.
        labels (`np.ndarray`):
            Index of the true class of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats.

    Raises:
        `ValueError`: If the shapes do not fit, or a label is not a class.
    """
    values, classes = np.array(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape[1] < 2 or classes.shape != values.shape[:1]:
        raise ValueError(
            f"Margins need logits of shape (num_examples, num_classes), with at least two classes, and a label for "
            f"every example, but the logits have shape {values.shape} and the labels {classes.shape}."
        )
    if not np.isin(classes, range(values.shape[1])).all():
        raise ValueError(
            f"Labels run from {classes.min()} to {classes.max()}, but there are {values.shape[1]} classes, numbered "
            "from 0. Leave out examples without a label."
        )
    rows = np.arange(len(values))
    chosen = values[rows, classes]
    values[rows, classes] = -np.inf
    return chosen - np.logaddexp.reduce(values, axis=1)


def klom(
    unlearned_margins: np.ndarray,
    oracle_margins: np.ndarray,
    num_bins: int = 20,
    max_margin: float = 100.0,
    epsilon: float = 1e-5,
) -> np.ndarray:
    """
    Computes KLoM: the divergence `KL(unlearned || oracle)` between the distributions of an example's margin over two
    ensembles.

    The margins are clipped to `[-max_margin, max_margin]` and counted in equal bins between the smallest and the
    largest margin of both ensembles. With the shares `p` and `q` of the bins, KLoM is the sum of
    `p log(p / max(q, epsilon))` over the bins with `p > 0`. It is 0 for equal distributions and at most
    `log(1 / epsilon)` (11.5). Lower is better.

    KLoM needs many models with different seeds, 100 of each kind in the paper. With few models most bins are empty:
    two ensembles from one normal distribution are 5.6 apart with 10 models each, 3.0 with 20, 0.35 with 100 and 0.02
    with 1,000. So compare with the value between two ensembles of retrained models of the same sizes. Report KLoM for
    forget, retain and unseen examples separately, by [`klom_percentile`]. Public code drops the largest margin of all
    from the histogram. Here every model counts.

    Georgiev et al., [Attribute-to-delete](https://huggingface.co/papers/2410.23232).

    Args:
        unlearned_margins (`np.ndarray`):
            Margins of the unlearned models by [`margins`], shape `(num_examples, num_models)`.
        oracle_margins (`np.ndarray`):
            Margins of the models retrained without the forget data, for the same examples in the same order. The
            number of models may differ.
        num_bins (`int`, *optional*, defaults to `20`):
            Number of bins.
        max_margin (`float`, *optional*, defaults to `100.0`):
            The value at which margins are clipped.
        epsilon (`float`, *optional*, defaults to `1e-5`):
            Smaller shares of the retrained models count as this share.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats.

    Raises:
        `ValueError`: If the shapes do not fit, or a margin is NaN.
    """
    unlearned, oracle = (np.asarray(side, dtype=np.float64) for side in (unlearned_margins, oracle_margins))
    shapes = unlearned.shape, oracle.shape
    if unlearned.ndim != 2 or oracle.ndim != 2 or len(unlearned) != len(oracle) or 0 in (*shapes[0], *shapes[1]):
        raise ValueError(
            f"KLoM needs the margins of the same examples under both ensembles, shape (num_examples, num_models), but "
            f"was given {shapes[0]} and {shapes[1]}."
        )
    if np.isnan(unlearned).any() or np.isnan(oracle).any():
        raise ValueError(
            f"{int(np.isnan(unlearned).sum() + np.isnan(oracle).sum())} of the margins are NaN. Leave out the models "
            "whose training diverged, and say how many there were."
        )
    both = np.concatenate([unlearned, oracle], axis=1).clip(-max_margin, max_margin)
    start, width = both.min(axis=1, keepdims=True), np.ptp(both, axis=1, keepdims=True)
    places = np.divide(both - start, width, out=np.zeros_like(both), where=width > 0)
    # The largest margin lies on the upper edge of the last bin, and belongs to that bin.
    bins = np.minimum((places * num_bins).astype(int), num_bins - 1)
    shares = [_bin_shares(side, num_bins) for side in np.split(bins, [unlearned.shape[1]], axis=1)]
    ratio = np.where(shares[0] > 0, shares[0], 1) / np.maximum(shares[1], epsilon)
    # With the floor, the second shares may add up to slightly more than 1.
    return np.where(shares[0] > 0, shares[0] * np.log(ratio), 0).sum(axis=1).clip(0)


def klom_percentile(values: np.ndarray, percent: float = 95) -> float:
    """
    Computes the KLoM that 95 % of the examples do not exceed, which the literature reports beside the mean.

    Lower is better. The mean hides a few examples that give the data away. The percentile shows them if they are at
    least 5 %.

    Args:
        values (`np.ndarray`):
            Values of [`klom`] for one group of examples.
        percent (`float`, *optional*, defaults to `95`):
            Share of the examples, in percent.

    Returns:
        `float`: In nats, interpolated between examples.
    """
    return float(np.percentile(values, percent))


def _bin_shares(bins: np.ndarray, num_bins: int) -> np.ndarray:
    num_examples, num_models = bins.shape
    flat = (bins + num_bins * np.arange(num_examples)[:, None]).ravel()
    return np.bincount(flat, minlength=num_examples * num_bins).reshape(num_examples, num_bins) / num_models
