# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how far the answers of two models are apart."""

import numpy as np


def jensen_shannon_divergence(log_probabilities: np.ndarray, other_log_probabilities: np.ndarray) -> np.ndarray:
    """
    Computes the Jensen-Shannon divergence between two distributions over classes, for every example.

    `JS(p, q) = (KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2`. It is 0 for equal answers and ln 2 (0.693) for
    answers that exclude each other. Public unlearning code averages over classes and swaps the arguments of the
    divergence, so that its value shrinks with the number of classes and can exceed ln 2. This function does neither.

    Lin, Divergence measures based on the Shannon entropy (1991), equation 4.1.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probabilities of the classes under one model, shape `(num_examples, num_classes)`.
        other_log_probabilities (`np.ndarray`):
            Log-probabilities under the other model, of the same shape.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats.

    Raises:
        `ValueError`: If the shapes differ, or do not have two axes.
    """
    first = np.asarray(log_probabilities, dtype=np.float64)
    second = np.asarray(other_log_probabilities, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"The divergence needs two arrays of shape (num_examples, num_classes), but was given {first.shape} and "
            f"{second.shape}. Both models must have the same classes and see the same examples."
        )
    mixture = np.logaddexp(first, second) - np.log(2)
    return ((_relative_entropy(first, mixture) + _relative_entropy(second, mixture)) / 2).clip(0, np.log(2))


def _relative_entropy(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # A class of probability 0 adds nothing, but exp(-inf) * (-inf - ...) would be NaN.
    possible = np.isfinite(first)
    terms = np.exp(first) * (np.where(possible, first, 0) - np.where(possible, second, 0))
    return np.where(possible, terms, 0).sum(axis=1)
