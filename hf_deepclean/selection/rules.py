# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selects weights by a rule: a threshold of the ratio, a share of the weights, or a percentile."""

import logging
import math

import torch

from ..fisher.diagonal import FisherDiagonal
from ..runtime.choices import check_choice
from .largest import LargestRatios
from .ranking import percentile
from .ratios import FisherRatios, check_comparable, explain_empty_selection
from .weight_selection import WeightSelection


logger = logging.getLogger(__name__)

SELECTION_RULES = ("auto", "gamma", "reset_fraction", "adaptive")


def select_weights(
    forget: FisherDiagonal,
    retain: FisherDiagonal,
    selection: str | None = None,
    *,
    gamma: float | None = None,
    reset_fraction: float | None = None,
    forget_share: float | None = None,
) -> WeightSelection:
    """
    Selects the weights that matter more to the forget set than to the retain set.

    Weights are ranked by the ratio `r(w) = F_f(w) / F_r(w)`. A weight that matters to neither set (0/0) is never
    selected. Weights that matter only to the forget set (x/0) are selected first. Among equal ratios the larger `F_f`
    comes first.

    All processes must call this if the model is sharded, and all get the same selection.

    Args:
        forget ([`FisherDiagonal`]):
            The Fisher `F_f` of the forget set.
        retain ([`FisherDiagonal`]):
            The Fisher `F_r` of the retain set, at the same weights and with the same estimator.
        selection (`str`, *optional*):
            `"gamma"`: all weights with `r(w) > gamma`, the rule of
            [DeepClean](https://huggingface.co/papers/2311.10448). `"reset_fraction"`: the share of the weights in
            scope with the largest ratios. `"adaptive"`: the percentile rule of
            [ASSD](https://huggingface.co/papers/2402.10098), which selects about ln(1 + 100 s) percent of the weights
            for a forget set that is the share s of all data. By default the rule whose value is given, else
            `"adaptive"`.
        gamma (`float`, *optional*):
            Threshold of the rule `"gamma"`.
        reset_fraction (`float`, *optional*):
            Share of the rule `"reset_fraction"`, above 0 and at most 1.
        forget_share (`float`, *optional*):
            The share s of the rule `"adaptive"`. By default the share of the examples in the two diagonals.

    Returns:
        [`WeightSelection`]

    Raises:
        `ValueError`: If the rule and its values do not fit together, if the two diagonals cannot be compared, or if no
            weight is selected.
    """
    selection = check_selection_rule(selection, gamma, reset_fraction)
    check_comparable(forget, retain)
    if forget_share is None:
        forget_share = forget.num_examples / (forget.num_examples + retain.num_examples)
    ratios = FisherRatios(forget, retain)
    if selection == "reset_fraction":
        result = _top_share(LargestRatios(forget, retain), ratios, reset_fraction)
    else:
        if selection == "adaptive":
            gamma = _adaptive_gamma(ratios, forget_share)
        result = _selection_above(ratios, gamma, selection)
    if not result.indices:
        raise ValueError(f"No weight was selected: {explain_empty_selection(ratios, gamma, None)}")
    _warn_of_collapse(result, forget)
    return result


def select_above(forget: FisherDiagonal, retain: FisherDiagonal, gamma: float) -> WeightSelection:
    """
    Selects the weights with a ratio above `gamma`, for a trial. The selection may be empty, and there are no warnings.

    Args:
        forget, retain ([`FisherDiagonal`]):
            As for [`select_weights`], which must have compared them before.
        gamma (`float`):
            The ratio above which weights are selected.
    """
    return _selection_above(FisherRatios(forget, retain), gamma, "gamma")


def _selection_above(ratios: FisherRatios, gamma: float, rule: str) -> WeightSelection:
    indices = ratios.where(lambda ratio, _: ratio > gamma)
    num_weights = {name: total.numel() for name, total in ratios.forget.sums.items()}
    # Infinite ratios are above every threshold but an infinite one.
    num_infinite = ratios.count(lambda ratio, _: ratio.isinf()) if indices else 0
    return WeightSelection(indices, num_weights, rule, gamma, num_infinite)


def check_selection_rule(
    selection: str | None, gamma: float | None, reset_fraction: float | None, *, by_trials: bool = False
) -> str:
    """
    Returns the name of the rule, and refuses values that do not fit the rule.

    Args:
        selection, gamma, reset_fraction:
            As for [`select_weights`].
        by_trials (`bool`, *optional*, defaults to `False`):
            Whether there is a model to try selections on. Then the rule may be `"auto"`, which is the default.

    Raises:
        `ValueError`: If the rule is unknown, or the values do not fit the rule.
    """
    if gamma is not None and reset_fraction is not None:
        raise ValueError(
            f"Both `gamma` ({gamma}) and `reset_fraction` ({reset_fraction}) were given, but each alone decides which "
            "weights are reset. Give one of them."
        )
    if gamma is not None and not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(
            f"`gamma` is {gamma} but must be a finite ratio above 0. With 1, the weights that matter more to the "
            "forget set are selected."
        )
    if reset_fraction is not None and not 0 < reset_fraction <= 1:
        raise ValueError(
            f"`reset_fraction` is {reset_fraction} but must be a share of the weights, above 0 and at most 1."
        )
    given = {"gamma": gamma, "reset_fraction": reset_fraction}
    if selection is None:
        default = "auto" if by_trials else "adaptive"
        return next((rule for rule, value in given.items() if value is not None), default)
    if selection == "auto" and not by_trials:
        raise ValueError(
            "`selection='auto'` tries resets on the model and its data, and there are only two Fishers here. Use "
            "`FisherUnlearner`, or choose another rule."
        )
    check_choice("selection", selection, SELECTION_RULES)
    for rule, value in given.items():
        if (value is not None) != (rule == selection):
            raise ValueError(
                f"`selection={selection!r}` with `gamma={gamma}` and `reset_fraction={reset_fraction}` is no rule: "
                "'gamma' takes `gamma`, 'reset_fraction' takes `reset_fraction`, 'adaptive' and 'auto' take neither."
            )
    return selection


def _top_share(largest: LargestRatios, ratios: FisherRatios, reset_fraction: float) -> WeightSelection:
    """Selects the share of all weights with the largest ratios, among those that matter to the forget set."""
    wanted = int(reset_fraction * ratios.num_weights)
    if wanted == 0:
        raise ValueError(f"No weight was selected: {explain_empty_selection(ratios, None, reset_fraction)}")
    if wanted > largest.num_candidates:
        logger.warning(
            f"`reset_fraction={reset_fraction}` asks for {wanted:,} weights, but only {largest.num_candidates:,} of "
            f"{ratios.num_weights:,} matter to the forget set. Only those are selected."
        )
    return largest.select(min(wanted, largest.num_candidates), rule="reset_fraction")


def adaptive_percentile(share: float) -> float:
    """
    Returns the percentile `100 - ln(1 + 100 s)` of [ASSD](https://huggingface.co/papers/2402.10098).

    Args:
        share (`float`):
            The share s of the forget set among all training data.
    """
    return 100 - math.log1p(100 * share)


def _adaptive_gamma(ratios: FisherRatios, share: float) -> float:
    """
    Finds the ratio at ASSD's percentile `100 - ln(1 + 100 s)`.

    ASSD takes a threshold alpha of `F_f / F_D`, with `F_D = s F_f + (1 - s) F_r`. In terms of the ratio r this is
    `r / (s r + 1 - s)`, which rises with r and tends to 1/s. So alpha is the ratio `alpha (1 - s) / (1 - alpha s)`.
    """

    def is_defined(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return ~ratio.isnan()

    def to_all_data(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return torch.where(ratio.isinf(), 1 / share, ratio / (share * ratio + 1 - share))

    if not ratios.count(is_defined):
        return math.inf
    values = ratios.values(is_defined, to_all_data)
    alpha = percentile(values, adaptive_percentile(share), ratios.processes)
    return alpha * (1 - share) / (1 - alpha * share) if alpha * share < 1 else math.inf


def _warn_of_collapse(selection: WeightSelection, forget: FisherDiagonal) -> None:
    whole = [
        name
        for name, indices in selection.indices.items()
        if forget.sums[name].ndim > 1 and len(indices) == selection.num_weights[name]
    ]
    if whole:
        logger.warning(
            f"Every weight of {', '.join(whole)} is selected. After a reset to zero the output of the layer no longer "
            "depends on its input, and the model collapses unless the repair rebuilds the layer. Raise `gamma`, lower "
            "`reset_fraction`, or name the layer in `exclude_modules`."
        )
