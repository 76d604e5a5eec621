# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""How far the answers of many unlearned models are from those of many retrained ones, as distributions."""

import numpy as np


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Margin of the true class: `logit_y - log(sum of exp(logit_c) over c other than y)`.

    Above 0: more probable than all the others together. It is the logit-scaled confidence `log(p / (1 - p))`, without
    the cancellation that `1 - p` suffers where `p` is almost 1, and the same for logits and log-probabilities.

    Args:
        logits (`np.ndarray`):
            Logits or log-probabilities of one model, shape `(num_examples, num_classes)` with at least two classes.
        labels (`np.ndarray`):
            Number of the true class of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats.

    Raises:
        `ValueError`: If the shapes do not fit, or a label is no class.
    """
    values, classes = np.array(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape[1] < 2 or classes.shape != values.shape[:1]:
        raise ValueError(
            f"Margins need logits of shape (num_examples, num_classes), with two classes at least, and a label for "
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
    KLoM: divergence `KL(unlearned || oracle)` between the distributions of an example's margin over two ensembles.

    The margins are clipped to `[-max_margin, max_margin]` and counted in equal bins between the smallest and the
    largest one of both ensembles, `p` and `q` the shares: `sum of p log(p / max(q, epsilon))` over the bins with
    `p > 0`. 0: the same distribution; lower is better; at most `log(1 / epsilon)` (11.5).

    It takes many models, 100 of each kind in the paper, with other seeds; with few of them most bins are empty.
    Two ensembles of one normal distribution are 5.6 apart with 10 models each, 3.0 with 20, 0.35 with 100 and 0.02
    with 1,000, so compare with the value between two ensembles of retrained models, of the sizes at hand. Report it
    for forget, retain and unseen examples apart, by [`klom_percentile`]. Public code drops the largest margin of all
    from the histogram; here every model counts.

    Georgiev et al., [Attribute-to-delete](https://huggingface.co/papers/2410.23232).

    Args:
        unlearned_margins (`np.ndarray`):
            Margins by [`margins`] of the unlearned models, shape `(num_examples, num_models)`.
        oracle_margins (`np.ndarray`):
            Those of the models retrained without the forgotten data, of the same examples in the same order; there
            may be another number of models.
        num_bins (`int`, *optional*, defaults to `20`):
            Number of bins.
        max_margin (`float`, *optional*, defaults to `100.0`):
            Where margins are clipped.
        epsilon (`float`, *optional*, defaults to `1e-5`):
            The share that takes the place of smaller ones of the oracles.

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
            f"{int(np.isnan(unlearned).sum() + np.isnan(oracle).sum())} of the margins are NaN: leave out the models "
            "whose training diverged, and say how many there were."
        )
    both = np.concatenate([unlearned, oracle], axis=1).clip(-max_margin, max_margin)
    start, width = both.min(axis=1, keepdims=True), np.ptp(both, axis=1, keepdims=True)
    places = np.divide(both - start, width, out=np.zeros_like(both), where=width > 0)
    # The largest margin lies on the upper edge of the last bin and belongs to it.
    bins = np.minimum((places * num_bins).astype(int), num_bins - 1)
    shares = [_bin_shares(side, num_bins) for side in np.split(bins, [unlearned.shape[1]], axis=1)]
    ratio = np.where(shares[0] > 0, shares[0], 1) / np.maximum(shares[1], epsilon)
    # With the floor the second shares may add up to a little more than 1.
    return np.where(shares[0] > 0, shares[0] * np.log(ratio), 0).sum(axis=1).clip(0)


def klom_percentile(values: np.ndarray, percent: float = 95) -> float:
    """
    The KLoM that 95 % of the examples do not exceed, the figure the literature reports beside the mean.

    Lower is better. The mean hides the few examples that give the data away; this one shows them, unless they are
    fewer than 5 %.

    Args:
        values (`np.ndarray`):
            Values by [`klom`], of one group of examples.
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
