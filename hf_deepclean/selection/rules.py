# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two Fisher diagonals in, the weights to reset out."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from ..fisher.diagonal import FisherDiagonal
from ..models.scope import module_name
from ..runtime.shards import holders_of, local_part
from .ranking import Blocks, count, percentile, value_at_rank


logger = logging.getLogger(__name__)

# Ratios are made this many at a time, 128 MB in float64.
_BLOCK_SIZE = 2**24
# Of so many weights the ratios are sorted, in 2 GB; more are counted, which takes no memory and three times as long.
_MAX_SORTED = 2**26

# Of the ratios and the importances (`F_f`, as a sum) of a block of weights.
Condition = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

SELECTION_RULES = ("auto", "gamma", "reset_fraction", "adaptive")


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
            `"gamma"`, `"reset_fraction"`, `"adaptive"`, `"auto"` or `"random"`.
        gamma (`float`, *optional*):
            The ratio above which weights were selected; for `"reset_fraction"` and `"auto"` the smallest selected
            ratio, for `"random"` none.
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

    Diagonals of a sharded model give the same selection in every process; all must call this.

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
    check_comparable(forget, retain)
    if forget_share is None:
        forget_share = forget.num_examples / (forget.num_examples + retain.num_examples)
    ratios = FisherRatios(forget, retain)
    if selection == "reset_fraction":
        indices, gamma = _top_share(ratios, reset_fraction)
    else:
        if selection == "adaptive":
            gamma = _adaptive_gamma(ratios, forget_share)
        indices = ratios.where(lambda ratio, _: ratio > gamma)
    if not indices:
        raise ValueError(f"No weight was selected: {_describe(ratios, gamma, reset_fraction)}")
    result = _selection_of(ratios, indices, gamma, selection)
    _warn_of_collapse(result, forget)
    return result


def select_above(forget: FisherDiagonal, retain: FisherDiagonal, gamma: float) -> WeightSelection:
    """
    What the rule `"gamma"` of [`select_weights`] selects, for a trial: it may be nothing, and nothing is warned of.

    Args:
        forget, retain ([`FisherDiagonal`]):
            As for [`select_weights`], which has compared them.
        gamma (`float`):
            The ratio above which weights are selected.
    """
    ratios = FisherRatios(forget, retain)
    return _selection_of(ratios, ratios.where(lambda ratio, _: ratio > gamma), gamma, "gamma")


class LargestRatios:
    """
    The weights with the largest ratios, in any number: for the trials of the rule `"auto"`; nothing is warned of.

    Weights that one process holds, if they are not too many, are put in order once. Otherwise every selection counts
    anew.

    Args:
        forget, retain ([`FisherDiagonal`]):
            As for [`select_weights`].

    Attributes:
        num_candidates (`int`): Number of weights that matter to the forget set.

    Raises:
        `ValueError`: If there are none, or if the two Fishers cannot be compared.
    """

    def __init__(self, forget: FisherDiagonal, retain: FisherDiagonal) -> None:
        check_comparable(forget, retain)
        self._ratios = FisherRatios(forget, retain)
        self.num_candidates = self._ratios.count(_matters)
        if self.num_candidates == 0:
            raise ValueError(f"No weight was selected: {_describe(self._ratios, None, None)}")
        self._ranks = self._sorted = None
        if not self._ratios.processes.are_several and self._ratios.num_weights <= _MAX_SORTED:
            self._ranks, self._sorted = _ranked(self._ratios)

    def select(self, number: int) -> WeightSelection:
        """
        As many weights with the largest ratios.

        Args:
            number (`int`):
                How many, at least 1 and at most `num_candidates`.
        """
        if self._ranks is None:
            return _selection_of(self._ratios, *_top(self._ratios, number), rule="auto")
        chosen = {name: (ranks < number).nonzero().squeeze(1).cpu() for name, ranks in self._ranks.items()}
        return WeightSelection(
            {name: indices for name, indices in chosen.items() if len(indices)},
            {name: total.numel() for name, total in self._ratios.forget.sums.items()},
            "auto",
            self._sorted[number - 1].item(),
            int(self._sorted[:number].isinf().sum()),
        )


def select_random_weights(selection: WeightSelection, seed: int) -> WeightSelection:
    """
    The control of every claim: as many weights as `selection` has, drawn uniformly from the same scope.

    Args:
        selection ([`WeightSelection`]):
            The selection to match in size.
        seed (`int`):
            Seed of the draw.
    """
    return draw_weights(selection.num_weights, selection.num_selected, seed)


def draw_weights(num_weights: Mapping[str, int], number: int, seed: int) -> WeightSelection:
    """
    A selection of as many weights, drawn uniformly.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter to draw from.
        number (`int`):
            How many to draw.
        seed (`int`):
            Seed of the draw.
    """
    order = torch.randperm(sum(num_weights.values()), generator=torch.Generator().manual_seed(seed))
    return selection_at(num_weights, order[:number], "random")


def selection_at(num_weights: Mapping[str, int], chosen: torch.Tensor, rule: str) -> WeightSelection:
    """
    The selection of weights by their places in all parameters, laid end to end.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter that could have been selected.
        chosen (`torch.Tensor`):
            The places, in any order.
        rule (`str`):
            Name of the rule that chose them.
    """
    chosen = chosen.cpu().sort().values
    indices, first = {}, 0
    for name, size in num_weights.items():
        start, end = torch.searchsorted(chosen, torch.tensor([first, first + size])).tolist()
        if end > start:
            indices[name] = chosen[start:end] - first
        first += size
    return WeightSelection(indices, dict(num_weights), rule)


def check_comparable(forget: FisherDiagonal, retain: FisherDiagonal) -> None:
    """Refuses Fishers of different weights or estimators."""
    if forget.sums.keys() != retain.sums.keys() or forget.fisher_type != retain.fisher_type:
        raise ValueError(
            f"The forget Fisher ({len(forget.sums)} parameters, {forget.fisher_type!r}) and the retain Fisher "
            f"({len(retain.sums)} parameters, {retain.fisher_type!r}) cannot be compared. Compute both with the same "
            "scope and `fisher_type`."
        )


def check_selection_rule(
    selection: str | None, gamma: float | None, reset_fraction: float | None, *, by_trials: bool = False
) -> str:
    """
    Returns the name of the rule; refuses values that do not fit it, before anything is computed.

    Args:
        selection, gamma, reset_fraction:
            As for [`select_weights`].
        by_trials (`bool`, *optional*, defaults to `False`):
            Whether there is a model to try selections on, so that the rule may be `"auto"`, which is the default then.
    """
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
    given = {"gamma": gamma, "reset_fraction": reset_fraction}
    if selection is None:
        default = "auto" if by_trials else "adaptive"
        return next((rule for rule, value in given.items() if value is not None), default)
    if selection == "auto" and not by_trials:
        raise ValueError(
            "`selection='auto'` tries selections on the model and its data, which two Fishers are not. Use "
            "`FisherUnlearner`, or choose one of the other rules."
        )
    if selection not in SELECTION_RULES:
        raise ValueError(f"`selection` is {selection!r} but must be one of {', '.join(map(repr, SELECTION_RULES))}.")
    for rule, value in given.items():
        if (value is not None) != (rule == selection):
            raise ValueError(
                f"`selection={selection!r}` with `gamma={gamma}` and `reset_fraction={reset_fraction}` is no rule: "
                "'gamma' takes `gamma`, 'reset_fraction' takes `reset_fraction`, 'adaptive' and 'auto' take neither."
            )
    return selection


class FisherRatios:
    """
    The ratios of two Fishers, made anew block by block whenever they are asked for, from what this process holds.

    Args:
        forget, retain ([`FisherDiagonal`]):
            The two diagonals.
    """

    def __init__(self, forget: FisherDiagonal, retain: FisherDiagonal) -> None:
        self.forget, self.retain = forget, retain
        self.names = list(forget.sums)
        self.num_weights = sum(forget.sums[name].numel() for name in self.names)
        self.processes = holders_of([*forget.sums.values(), *retain.sums.values()])

    def blocks(self, name: str) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """The place of a block's first weight in the parameter, float64 ratios (NaN: 0/0), and `F_f` as a sum."""
        forget, start = local_part(self.forget.sums[name])
        retain, _ = local_part(self.retain.sums[name])
        forget, retain = forget.flatten(), retain.flatten()
        for first in range(0, len(forget), _BLOCK_SIZE):
            block = slice(first, first + _BLOCK_SIZE)
            importance, other = forget[block].double(), retain[block].to(forget.device).double()
            ratio = (importance / self.forget.num_examples) / (other / self.retain.num_examples)
            yield start + first, ratio, importance

    def values(self, condition: Condition, value: Condition | None = None) -> Blocks:
        """The ratios for which a condition of ratio and importance holds, or another value in their place."""

        def blocks() -> Iterator[torch.Tensor]:
            for name in self.names:
                for _, ratio, importance in self.blocks(name):
                    kept = condition(ratio, importance)
                    yield (ratio if value is None else value(ratio, importance))[kept]

        return blocks

    def count(self, condition: Condition) -> int:
        """Number of weights, in all processes, for which a condition of ratio and importance holds."""
        return count(self.values(condition), self.processes)

    def where(
        self, condition: Condition, *, or_first: int = 0, of: Condition | None = None
    ) -> dict[str, torch.Tensor]:
        """
        The flat indices of the weights for which a condition holds, by parameter; the same in all processes.

        Args:
            condition (`Callable`):
                A condition of ratio and importance.
            or_first (`int`, *optional*, defaults to `0`):
                How many weights are taken besides, the first in position.
            of (`Callable`, *optional*):
                The condition that they must fulfil.
        """
        indices = {}
        for name in self.names:
            taken, further = [], []
            for start, ratio, importance in self.blocks(name):
                taken.append(condition(ratio, importance).nonzero().squeeze(1).cpu() + start)
                if or_first:
                    further.append(of(ratio, importance).nonzero().squeeze(1).cpu() + start)  # type: ignore[misc]
            # Shards follow each other in the order of the processes.
            parts = self.processes.gather((_joined(taken), _joined(further)))
            first = torch.cat([part for _, part in parts])[:or_first]
            or_first -= len(first)
            selected = torch.cat([first, *(part for part, _ in parts)]).sort().values
            if len(selected):
                indices[name] = selected
        return indices


def _selection_of(
    ratios: FisherRatios, indices: dict[str, torch.Tensor], gamma: float | None, rule: str
) -> WeightSelection:
    return WeightSelection(
        indices,
        {name: total.numel() for name, total in ratios.forget.sums.items()},
        rule,
        gamma,
        # They come first in every rule.
        min(sum(map(len, indices.values())), ratios.count(lambda ratio, _: ratio.isinf())),
    )


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def _top_share(ratios: FisherRatios, reset_fraction: float) -> tuple[dict[str, torch.Tensor], float]:
    """The given share of all weights, by ratio; never a weight that does not matter to the forget set."""
    num_eligible = ratios.count(_matters)
    wanted = int(reset_fraction * ratios.num_weights)
    if wanted == 0 or num_eligible == 0:
        return {}, math.inf
    if wanted > num_eligible:
        logger.warning(
            f"`reset_fraction={reset_fraction}` asks for {wanted:,} weights but only {num_eligible:,} of "
            f"{ratios.num_weights:,} matter to the forget set at all; those are selected."
        )
        wanted = num_eligible
    return _top(ratios, wanted)


def _top(ratios: FisherRatios, wanted: int) -> tuple[dict[str, torch.Tensor], float]:
    """As many of the weights that matter to the forget set, by ratio."""
    num_eligible = ratios.count(_matters)
    threshold = value_at_rank(ratios.values(_matters), num_eligible - wanted, ratios.processes)

    def is_tied(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return ratio == threshold

    # Ties go to the larger forget Fisher, and then to the first in position.
    num_tied = ratios.count(is_tied)
    num_of_tied = wanted - ratios.count(lambda ratio, _: ratio > threshold)
    if num_of_tied == num_tied:
        return ratios.where(lambda ratio, _: ratio >= threshold), threshold
    importances = ratios.values(is_tied, lambda _, importance: importance)
    least = value_at_rank(importances, num_tied - num_of_tied, ratios.processes)

    def is_selected(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return (ratio > threshold) | (is_tied(ratio, importance) & (importance > least))

    indices = ratios.where(
        is_selected,
        or_first=wanted - ratios.count(is_selected),
        of=lambda ratio, importance: is_tied(ratio, importance) & (importance == least),
    )
    return indices, threshold


def _ranked(ratios: FisherRatios) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The place of every weight in the order of the ratios, by parameter, and the ratios that matter in that order."""
    blocks = [block for name in ratios.names for block in ratios.blocks(name)]
    device = blocks[0][1].device
    every, importances = (torch.cat([block[part].to(device) for block in blocks]) for part in (1, 2))
    places = _matters(every, importances).nonzero().squeeze(1)
    found, order = every[places].sort(descending=True, stable=True)
    places = places[order]
    # Ties go to the larger forget Fisher, and then to the first in position.
    same = found[1:] == found[:-1]
    tied = (torch.nn.functional.pad(same, (0, 1)) | torch.nn.functional.pad(same, (1, 0))).nonzero().squeeze(1)
    among = places[tied]
    order = importances[among].argsort(descending=True, stable=True)
    places[tied] = among[order[found[tied[order]].argsort(descending=True, stable=True)]]
    ranks = torch.full_like(every, len(every), dtype=torch.int32)
    ranks[places] = torch.arange(len(places), dtype=torch.int32, device=device)
    sizes = [ratios.forget.sums[name].numel() for name in ratios.names]
    return dict(zip(ratios.names, ranks.split(sizes), strict=True)), found


def _matters(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    return ratio > 0


def adaptive_percentile(share: float) -> float:
    """
    The percentile `100 - ln(1 + 100 s)` of [ASSD](https://huggingface.co/papers/2402.10098).

    Args:
        share (`float`):
            The forget data's share s of all training data.
    """
    return 100 - math.log1p(100 * share)


def _adaptive_gamma(ratios: FisherRatios, share: float) -> float:
    """
    The ratio at ASSD's percentile `100 - ln(1 + 100 s)`.

    ASSD thresholds `F_f / F_D`, with `F_D = s F_f + (1 - s) F_r`; that is `r / (s r + 1 - s)`, which rises with r and
    tends to 1/s, so its threshold alpha is the ratio `alpha (1 - s) / (1 - alpha s)`.
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


def _describe(ratios: FisherRatios, gamma: float | None, reset_fraction: float | None) -> str:
    num_positive = ratios.count(_matters)
    if num_positive == 0:
        return (
            "the forget Fisher is 0 for every weight in scope: they do not matter to the forget set. Widen the scope."
        )
    if reset_fraction is not None:
        return (
            f"`reset_fraction={reset_fraction}` of {ratios.num_weights:,} weights is less than one weight. Raise it."
        )
    ranks = [round(share * (num_positive - 1)) for share in (0.5, 0.99, 1.0)]
    median, high, top = (value_at_rank(ratios.values(_matters), rank, ratios.processes) for rank in ranks)
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
