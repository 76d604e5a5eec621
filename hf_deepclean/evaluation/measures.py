# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured: every figure by its name."""

from .results import SplitResult, TokenResult


# A figure and its interval, if it has one.
Estimate = tuple[float, tuple[float, float] | None]


def estimates_of_split(result: SplitResult) -> dict[str, Estimate]:
    """The figures of one data set and their intervals, by name."""
    estimates: dict[str, Estimate] = {}
    if result.accuracy is not None:
        estimates["accuracy"] = result.accuracy, result.accuracy_interval
    if result.tokens is None:
        estimates["mean loss"] = result.mean_loss, result.mean_loss_interval
    else:
        estimates |= _token_estimates(result.tokens)
    return estimates | {metric: (value, None) for metric, value in result.metrics.items()}


def _token_estimates(tokens: TokenResult) -> dict[str, Estimate]:
    estimates = {
        "token accuracy": (tokens.accuracy, tokens.accuracy_interval),
        "perplexity": (tokens.perplexity, tokens.perplexity_interval),
    }
    verbatim = tokens.num_verbatim / tokens.num_examples, tokens.verbatim_interval
    if tokens.extraction_strength is None:
        return estimates | {"all tokens right": verbatim}
    strength = tokens.extraction_strength, tokens.extraction_strength_interval
    return estimates | {"extraction strength": strength, "verbatim": verbatim}
