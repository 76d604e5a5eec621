# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two Fisher diagonals in, the weights to reset out."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .fisher.diagonal import FisherDiagonal
from .scope import module_name


logger = logging.getLogger(__name__)

SELECTION_RULES = ("gamma", "reset_fraction", "adaptive")


@dataclass(frozen=True)
class WeightSelection:
    """
    The weights to reset, as sorted flat indices per parameter.

    Args:
        indices (`dict[str, torch.Tensor]`):
            For every parameter with a selected weight, the int64 indices into the flattened parameter, ascending.
        num_weights (`dict[str, int]`):
            Number of weights of every parameter in scope.
        rule (`str`):
            `"gamma"`, `"reset_fraction"`, `"adaptive"` or `"random"`.
        gamma (`float`, *optional*):
            The ratio above which weights were selected; for `"reset_fraction"` the smallest selected ratio, for
            `"random"` none.
        num_infinite_ratios (`int`, *optional*, defaults to `0`):
            How many selected weights matter to the forget set and have a retain Fisher of exactly 0.
    """

    indices: dict[str, torch.Tensor]
    num_weights: dict[str, int]
    rule: str
    gamma: float | None = None
    num_infinite_ratios: int = 0

    @property
    def num_selected(self) -> int:
        """Number of selected weights."""
        return sum(len(indices) for indices in self.indices.values())

    @property
    def num_in_scope(self) -> int:
        """Number of weights that could have been selected."""
        return sum(self.num_weights.values())

    def counts_per_module(self) -> dict[str, tuple[int, int]]:
        """Selected weights and weights in scope of every module that owns parameters in scope."""
        counts: dict[str, tuple[int, int]] = {}
        for name, size in self.num_weights.items():
            selected, total = counts.get(module_name(name), (0, 0))
            counts[module_name(name)] = (selected + len(self.indices.get(name, ())), total + size)
        return counts


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

    With the ratio `r(w) = F_f(w) / F_r(w)`: a weight that matters to neither set (0/0) is never selected; one that
    matters to the forget set alone (x/0) is always the first to be. Ties in the ratio go to the larger `F_f`.

    Args:
        forget ([`FisherDiagonal`]):
            `F_f`, on the forget set.
        retain ([`FisherDiagonal`]):
            `F_r`, on the retain set, at the same weights and with the same estimator.
        selection (`str`, *optional*):
            `"gamma"`: `r(w) > gamma`, the rule of [DeepClean](https://huggingface.co/papers/2311.10448).
            `"reset_fraction"`: the global top share of the weights in scope. `"adaptive"`: the percentile rule of
            [ASSD](https://huggingface.co/papers/2402.10098), which resets about ln(1 + 100 s) percent of the weights
            for a forget set that is the share s of all data. By default the rule whose value is given, else
            `"adaptive"`.
        gamma (`float`, *optional*):
            Threshold of the rule `"gamma"`.
        reset_fraction (`float`, *optional*):
            Share of the rule `"reset_fraction"`, above 0 and at most 1.
        forget_share (`float`, *optional*):
            The share s of the rule `"adaptive"`, by default that of the examples in the two diagonals.

    Returns:
        [`WeightSelection`]

    Raises:
        `ValueError`: If the rule and its values do not fit together, if the two diagonals do not, or if no weight
            is selected.
    """
    selection = check_selection_rule(selection, gamma, reset_fraction)
    if forget.sums.keys() != retain.sums.keys() or forget.fisher_type != retain.fisher_type:
        raise ValueError(
            f"The forget Fisher ({len(forget.sums)} parameters, {forget.fisher_type!r}) and the retain Fisher "
            f"({len(retain.sums)} parameters, {retain.fisher_type!r}) cannot be compared. Compute both with the same "
            "scope and `fisher_type`."
        )
    if forget_share is None:
        forget_share = forget.num_examples / (forget.num_examples + retain.num_examples)
    ratios = {name: _ratio(forget, retain, name) for name in forget.sums}
    if selection == "reset_fraction":
        indices, gamma = _top_share(ratios, forget, reset_fraction)
    else:
        if selection == "adaptive":
            gamma = _adaptive_gamma(ratios, forget_share)
        indices = {name: (ratio > gamma).nonzero().squeeze(1) for name, ratio in ratios.items()}
    indices = {name: selected for name, selected in indices.items() if len(selected)}
    if not indices:
        raise ValueError(f"No weight was selected: {_describe(ratios, gamma, reset_fraction)}")
    result = WeightSelection(
        indices,
        {name: len(ratio) for name, ratio in ratios.items()},
        selection,
        gamma,
        sum(int(ratios[name][selected].isinf().sum()) for name, selected in indices.items()),
    )
    _warn_of_collapse(result, forget)
    return result


def select_random_weights(selection: WeightSelection, seed: int) -> WeightSelection:
    """
    The control of every claim: as many weights as `selection` has, drawn uniformly from the same scope.

    Args:
        selection ([`WeightSelection`]):
            The selection to match in size.
        seed (`int`):
            Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(selection.num_in_scope, generator=generator)[: selection.num_selected].sort().values
    indices, first = {}, 0
    for name, size in selection.num_weights.items():
        start, end = torch.searchsorted(drawn, torch.tensor([first, first + size])).tolist()
        if end > start:
            indices[name] = drawn[start:end] - first
        first += size
    return WeightSelection(indices, selection.num_weights, "random")


def check_selection_rule(selection: str | None, gamma: float | None, reset_fraction: float | None) -> str:
    """Returns the name of the rule; refuses values that do not fit it, before anything is computed."""
    if gamma is not None and reset_fraction is not None:
        raise ValueError(
            f"Both `gamma` ({gamma}) and `reset_fraction` ({reset_fraction}) were given, and each alone decides which "
            "weights are reset. Give one of them."
        )
    if gamma is not None and not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(
            f"`gamma` is {gamma} but must be a finite ratio above 0; 1 selects what matters more to the forget set."
        )
    if reset_fraction is not None and not 0 < reset_fraction <= 1:
        raise ValueError(
            f"`reset_fraction` is {reset_fraction} but must be a share of the weights, above 0 and at most 1."
        )
    given = {"gamma": gamma, "reset_fraction": reset_fraction, "adaptive": None}
    if selection is None:
        return next((rule for rule, value in given.items() if value is not None), "adaptive")
    if selection not in SELECTION_RULES:
        raise ValueError(f"`selection` is {selection!r} but must be one of {', '.join(map(repr, SELECTION_RULES))}.")
    for rule, value in given.items():
        if (value is not None) != (rule == selection) and rule != "adaptive":
            raise ValueError(
                f"`selection={selection!r}` with `gamma={gamma}` and `reset_fraction={reset_fraction}` is no rule: "
                "'gamma' takes `gamma`, 'reset_fraction' takes `reset_fraction`, 'adaptive' takes neither."
            )
    return selection


def _ratio(forget: FisherDiagonal, retain: FisherDiagonal, name: str) -> torch.Tensor:
    """Flat float64 ratios on the CPU; NaN where both Fishers are 0."""
    forget_mean = forget.sums[name].flatten().double() / forget.num_examples
    retain_mean = retain.sums[name].flatten().double() / retain.num_examples
    return (forget_mean / retain_mean).cpu()


def _top_share(
    ratios: Mapping[str, torch.Tensor], forget: FisherDiagonal, reset_fraction: float
) -> tuple[dict[str, torch.Tensor], float]:
    """The given share of all weights, by ratio; never a weight that does not matter to the forget set."""
    every = torch.cat(list(ratios.values()))
    eligible = every[every > 0]
    wanted = int(reset_fraction * len(every))
    if wanted == 0 or len(eligible) == 0:
        return {}, math.inf
    if wanted > len(eligible):
        logger.warning(
            f"`reset_fraction={reset_fraction}` asks for {wanted:,} weights but only {len(eligible):,} of "
            f"{len(every):,} matter to the forget set at all; those are selected."
        )
        wanted = len(eligible)
    threshold = eligible.kthvalue(len(eligible) - wanted + 1).values
    tied = (every == threshold).nonzero().squeeze(1)
    if len(tied) > 1:
        importance = torch.cat([forget.sums[name].flatten().double().cpu() for name in ratios])[tied]
        tied = tied[importance.argsort(descending=True, stable=True)]
    selected = every > threshold
    selected[tied[: wanted - int(selected.sum())]] = True
    parts = selected.split([len(ratio) for ratio in ratios.values()])
    return {name: part.nonzero().squeeze(1) for name, part in zip(ratios, parts, strict=True)}, threshold.item()


def _adaptive_gamma(ratios: Mapping[str, torch.Tensor], share: float) -> float:
    """
    The ratio at ASSD's percentile `100 - ln(1 + 100 s)`.

    ASSD thresholds `F_f / F_D`, with `F_D = s F_f + (1 - s) F_r`; that is `r / (s r + 1 - s)`, which rises with r and
    tends to 1/s, so its threshold alpha is the ratio `alpha (1 - s) / (1 - alpha s)`.
    """
    every = torch.cat(list(ratios.values()))
    every = every[~every.isnan()]
    if len(every) == 0:
        return math.inf
    to_all_data = torch.where(every.isinf(), 1 / share, every / (share * every + 1 - share))
    alpha = float(np.percentile(to_all_data.numpy(), 100 - math.log1p(100 * share)))
    return alpha * (1 - share) / (1 - alpha * share) if alpha * share < 1 else math.inf


def _describe(ratios: Mapping[str, torch.Tensor], gamma: float | None, reset_fraction: float | None) -> str:
    every = torch.cat(list(ratios.values()))
    positive = every[every > 0]
    if len(positive) == 0:
        return (
            "the forget Fisher is 0 for every weight in scope: they do not matter to the forget set. Widen the scope."
        )
    if reset_fraction is not None:
        return f"`reset_fraction={reset_fraction}` of {len(every):,} weights is less than one weight. Raise it."
    median, high, top = np.quantile(positive.numpy(), [0.5, 0.99, 1.0], method="nearest")
    return (
        f"no ratio of forget to retain Fisher is above {gamma:.4g}. The median ratio is {median:.4g}, the 99th "
        f"percentile {high:.4g} and the largest {top:.4g}. Lower `gamma`, or use `reset_fraction`."
    )


def _warn_of_collapse(selection: WeightSelection, forget: FisherDiagonal) -> None:
    whole = [
        name
        for name, indices in selection.indices.items()
        if forget.sums[name].ndim > 1 and len(indices) == selection.num_weights[name]
    ]
    if whole:
        logger.warning(
            f"Every weight of {', '.join(whole)} is selected: after a reset to zero the layer's output no longer "
            "depends on its input, and the model will collapse unless the repair rebuilds it. Raise `gamma`, lower "
            "`reset_fraction`, or name the layer in `exclude_modules`."
        )
