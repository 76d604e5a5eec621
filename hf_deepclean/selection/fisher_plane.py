# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
A two-dimensional histogram of the weights in scope: one axis is the forget Fisher, the other the retain Fisher.

It holds counts of at least 10 weights, never the values of a single weight. Reports, cards and plots show it.
"""

import math
from dataclasses import dataclass

import torch

from ..fisher.diagonal import FisherDiagonal
from .ranking import Histogram
from .ratios import NUM_CELLS, FisherRatios, positions_of
from .weight_selection import WeightSelection


# Decades per bin: the smallest of these widths that needs at most `_MAX_BINS` bins per axis.
_WIDTHS = (0.25, 0.5, 1.0, 2.0)
_MAX_BINS = 16

# Weights beyond the central 99 % have no bins of their own.
_TAIL = 0.005

# A bin with fewer weights would say too much of each of them.
_MIN_WEIGHTS = 10

# Weights are counted once, in bins of the smallest width from this decade on. All means of float32 values lie in them.
_FIRST_DECADE = -64
_NUM_FINE_BINS = 416

# Six thresholds per decade, from 0.01 to 100.
_GAMMAS = tuple(10 ** (step / 6 - 2) for step in range(25))


@dataclass(frozen=True)
class FisherPlane:
    """
    A two-dimensional histogram of the weights in scope by forget Fisher (rows) and retain Fisher (columns).

    Args:
        forget_edges, retain_edges (`tuple[float, ...]`):
            Edges of the equally wide bins of each axis, as log10 of the Fisher (a mean over examples). There is one
            more edge than bins. The first and the last bin also hold the weights beyond them.
        counts (`tuple[tuple[int, ...], ...]`):
            Number of weights per bin, `counts[row][column]`. Bins with fewer than 10 weights hold 0; their weights are
            in `other`.
        selected_counts (`tuple[tuple[int, ...], ...]`):
            Number of selected weights per bin.
        other (`tuple[int, int]`):
            Number of selected weights, and of all weights, in bins with fewer than 10 weights.
        forget_zero (`tuple[int, int]`):
            Number of selected weights, and of all weights, with a forget Fisher of 0.
        retain_zero (`tuple[int, int]`):
            Number of selected weights, and of all weights, with a retain Fisher of 0 and a forget Fisher above 0.
        share_by_gamma (`tuple[tuple[float, float], ...]`):
            Thresholds from 0.01 to 100, each with the share of the weights in scope whose ratio of forget to retain
            Fisher is above it.
    """

    forget_edges: tuple[float, ...]
    retain_edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]
    selected_counts: tuple[tuple[int, ...], ...]
    other: tuple[int, int]
    forget_zero: tuple[int, int]
    retain_zero: tuple[int, int]
    share_by_gamma: tuple[tuple[float, float], ...]

    @property
    def num_in_scope(self) -> int:
        """Number of weights in scope."""
        return sum(map(sum, self.counts)) + self.other[1] + self.forget_zero[1] + self.retain_zero[1]

    @property
    def num_selected(self) -> int:
        """Number of selected weights."""
        return sum(map(sum, self.selected_counts)) + self.other[0] + self.forget_zero[0] + self.retain_zero[0]


def fisher_plane(forget: FisherDiagonal, retain: FisherDiagonal, selection: WeightSelection) -> FisherPlane:
    """
    Counts the weights in scope, and the selected weights, in bins of the two Fishers.

    All processes must call this if the model is sharded, and all get the same counts.

    Args:
        forget ([`FisherDiagonal`]):
            The Fisher `F_f` of the forget set.
        retain ([`FisherDiagonal`]):
            The Fisher `F_r` of the retain set.
        selection ([`WeightSelection`]):
            The selection that [`select_weights`] made from the two.

    Returns:
        [`FisherPlane`]
    """
    num_fine = _NUM_FINE_BINS**2
    every, chosen, above = _count(FisherRatios(forget, retain), selection)
    fine, fine_chosen = (part[:num_fine].view(_NUM_FINE_BINS, _NUM_FINE_BINS) for part in (every, chosen))
    rows, columns, width = _bins(fine)
    counts, selected_counts = (
        part.new_zeros(len(rows), len(columns)).index_put_(
            (_bin_of_fine(rows, width)[:, None], _bin_of_fine(columns, width)), part, accumulate=True
        )
        for part in (fine, fine_chosen)
    )
    few = counts < _MIN_WEIGHTS
    other = int(selected_counts[few].sum()), int(counts[few].sum())
    counts[few] = selected_counts[few] = 0
    return FisherPlane(
        _edges(rows, width),
        _edges(columns, width),
        tuple(map(tuple, counts.tolist())),
        tuple(map(tuple, selected_counts.tolist())),
        other,
        (int(chosen[num_fine]), int(every[num_fine])),
        (int(chosen[num_fine + 1]), int(every[num_fine + 1])),
        tuple((gamma, count / selection.num_in_scope) for gamma, count in zip(_GAMMAS, above.tolist(), strict=True)),
    )


def _count(ratios: FisherRatios, selection: WeightSelection) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Counts weights, selected weights, and weights above every gamma. The first two are counted by fine bin; two further
    entries count the weights with a forget Fisher of 0, and those with only a retain Fisher of 0.
    """
    num_places = _NUM_FINE_BINS**2 + 2
    every, chosen, above = Histogram(num_places), Histogram(num_places), _CountAbove(ratios)
    for name in ratios.names:
        indices = selection.indices.get(name, torch.zeros(0, dtype=torch.int64))
        for start, forget, retain in ratios.sums(name):
            row, no_forget = _fine_bin(forget, ratios.forget)
            column, no_retain = _fine_bin(retain, ratios.retain)
            # Whole numbers, of which a float32 holds the combination.
            place = row.mul_(_NUM_FINE_BINS).add_(column).int()
            for is_zero, number in ((no_retain, num_places - 1), (no_forget, num_places - 2)):
                place = place if is_zero is None else torch.where(is_zero, number, place)
            every.add(place)
            first, end = torch.searchsorted(indices, torch.tensor([start, start + len(place)])).tolist()
            chosen.add(place[(indices[first:end] - start).to(place.device)])
            above.add(name, start, forget, retain)
    total = ratios.processes.total
    return total(every.counts()), total(chosen.counts()), total(above.counts())


def _fine_bin(sums: torch.Tensor, fisher: FisherDiagonal) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the bins of sums, and a mask of those that are 0, if there are any."""
    is_zero = None if sums.min() > 0 else sums == 0
    # Some libraries take ten times as long for the logarithm of 0.
    sums = sums if is_zero is None else sums.where(~is_zero, 1)
    decades = sums.to(torch.promote_types(sums.dtype, torch.float32)).log10()
    decades.sub_(math.log10(fisher.num_examples) + _FIRST_DECADE).mul_(1 / _WIDTHS[0])
    return decades.clamp_(0, _NUM_FINE_BINS - 1).floor_(), is_zero


class _CountAbove:
    """Counts the ratios above every gamma: by cell, and exactly in the cells that a gamma is in."""

    def __init__(self, ratios: FisherRatios) -> None:
        self._ratios = ratios
        self._by_cell, self._by_gamma = Histogram(NUM_CELLS + 1), torch.zeros(len(_GAMMAS) + 1, dtype=torch.int64)
        self._near = [ratios.cells_near(gamma) for gamma in _GAMMAS]
        self._is_near = torch.zeros(NUM_CELLS + 1, dtype=torch.bool)
        self._is_near[[cell + 1 for cells in self._near for cell in cells]] = True

    def add(self, name: str, start: int, forget: torch.Tensor, retain: torch.Tensor) -> None:
        cells = self._ratios.cells(forget, retain).add_(1)
        self._by_cell.add(cells)
        near = positions_of(self._is_near.to(cells.device).index_select(0, cells)) + start
        ratio = self._ratios.at(name, near)[0]
        # The number of gammas below the ratio.
        num_below = torch.searchsorted(torch.tensor(_GAMMAS, dtype=torch.float64, device=ratio.device), ratio)
        self._by_gamma += torch.bincount(num_below, minlength=len(self._by_gamma)).cpu()

    def counts(self) -> torch.Tensor:
        """The number of ratios above every gamma, int64."""
        far = self._by_cell.counts().masked_fill(self._is_near, 0)[1:]
        return torch.stack(
            [far[cells.stop :].sum() + self._by_gamma[number + 1 :].sum() for number, cells in enumerate(self._near)]
        )


def _bins(fine: torch.Tensor) -> tuple[range, range, int]:
    """Returns the bins of both axes, numbered from the first decade, and the number of fine bins in each."""
    ends = [_central_range(fine.sum(1 - axis)) for axis in range(2)]
    for width in (round(width / _WIDTHS[0]) for width in _WIDTHS):
        rows, columns = (range(first // width, last // width + 1) for first, last in ends)
        if max(len(rows), len(columns)) <= _MAX_BINS:
            break
    # If even the widest bins are too many, the smallest Fishers share the first bin.
    return rows[-_MAX_BINS:], columns[-_MAX_BINS:], width


def _central_range(counts: torch.Tensor) -> tuple[int, int]:
    below = counts.cumsum(0)
    total = int(below[-1])
    if total == 0:
        return 0, 0
    tail = int(_TAIL * total)
    first, last = torch.searchsorted(below, torch.tensor([tail, total - 1 - tail]), right=True).tolist()
    return first, last


def _bin_of_fine(bins: range, width: int) -> torch.Tensor:
    return (torch.arange(_NUM_FINE_BINS) // width).clamp(bins[0], bins[-1]) - bins[0]


def _edges(bins: range, width: int) -> tuple[float, ...]:
    return tuple(_FIRST_DECADE + _WIDTHS[0] * width * number for number in [*bins, bins[-1] + 1])
