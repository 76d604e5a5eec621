# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_deepclean import FisherDiagonal, select_weights
from hf_deepclean.report.json_record import from_json_types, to_json_types
from hf_deepclean.selection.fisher_plane import FisherPlane, fisher_plane


def diagonals(decades=2.0, num_weights=20_000):
    """Log-normal Fishers over this many decades. Every twentieth weight has a Fisher of 0 on one of the two sides."""
    generator = torch.Generator().manual_seed(0)
    sums = []
    for place in range(2):
        values = 10 ** (decades / 4 * torch.randn(num_weights, generator=generator))
        values[place::20] = 0
        values[7::20] = 0
        sums.append({"a.weight": values[:12_000].view(120, 100), "b": values[12_000:]})
    return FisherDiagonal(sums[0], 10), FisherDiagonal(sums[1], 400)


def decades(fisher):
    sums = torch.cat([total.double().flatten() for total in fisher.sums.values()]) / fisher.num_examples
    return np.log10(sums.numpy(), where=sums.numpy() > 0, out=np.full(len(sums), -np.inf))


def is_selected(selection):
    mask = torch.zeros(selection.num_in_scope, dtype=torch.bool)
    first = 0
    for name, size in selection.num_weights.items():
        mask[first + selection.indices.get(name, torch.zeros(0, dtype=torch.int64))] = True
        first += size
    return mask.numpy()


@pytest.mark.parametrize(("spread", "width"), [(0.5, 0.25), (3.0, 0.5), (5.0, 0.5), (9.0, 1.0), (18.0, 2.0)])
def test_counts_equal_those_of_numpy_in_the_same_bins(spread, width):
    forget, retain = diagonals(spread)
    selection = select_weights(forget, retain, reset_fraction=0.1)
    plane = fisher_plane(forget, retain, selection)
    rows, columns = decades(forget), decades(retain)
    shown = np.isfinite(rows) & np.isfinite(columns)
    edges = [np.array(plane.forget_edges), np.array(plane.retain_edges)]
    for ends, values in zip(edges, (rows, columns), strict=True):
        assert np.diff(ends).tolist() == [width] * (len(ends) - 1) and len(ends) <= 17
        # The central 99 % of the weights lie in the bins, and every bin is needed for them.
        low, high = np.quantile(values[shown], [0.005, 0.995])
        assert ends[0] <= low < ends[1] and ends[-2] <= high < ends[-1]
    values = [np.clip(v, ends[0], ends[-1]) for v, ends in zip((rows[shown], columns[shown]), edges, strict=True)]
    every, *_ = np.histogram2d(*values, bins=edges)
    chosen, *_ = np.histogram2d(*values, bins=edges, weights=is_selected(selection)[shown])
    few = every < 10
    assert np.array_equal(plane.counts, np.where(few, 0, every))
    assert np.array_equal(plane.selected_counts, np.where(few, 0, chosen))
    assert plane.other == (chosen[few].sum(), every[few].sum())


def test_totals_add_up_to_the_weights_in_scope_and_the_selected_ones():
    forget, retain = diagonals()
    for arguments in ({"gamma": 0.5}, {"reset_fraction": 0.3}, {"reset_fraction": 0.0001}):
        selection = select_weights(forget, retain, **arguments)
        plane = fisher_plane(forget, retain, selection)
        assert plane.num_in_scope == selection.num_in_scope == 20_000
        assert plane.num_selected == selection.num_selected
        assert plane.forget_zero == (0, 2000)
        assert plane.retain_zero == (selection.num_infinite_ratios, 1000)
        assert plane.other[1] > 0
        assert all(count == 0 or count >= 10 for row in plane.counts for count in row)


def test_the_share_above_a_gamma_is_what_that_gamma_selects():
    forget, retain = diagonals()
    plane = fisher_plane(forget, retain, select_weights(forget, retain, gamma=1.0))
    gammas = [gamma for gamma, _ in plane.share_by_gamma]
    assert gammas == pytest.approx(np.logspace(-2, 2, 25).tolist()) and gammas[12] == 1
    for gamma, share in plane.share_by_gamma:
        assert share == select_weights(forget, retain, gamma=gamma).num_selected / 20_000
    # A ratio that equals a gamma is not above it.
    ones = FisherDiagonal({"w": torch.ones(4)}, 1)
    halves = FisherDiagonal({"w": torch.tensor([1.0, 1.0, 2.0, 0.5])}, 1)
    shares = dict(fisher_plane(halves, ones, select_weights(halves, ones, gamma=1.0)).share_by_gamma)
    assert shares[1.0] == 0.25


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    forget, retain = diagonals()
    selection = select_weights(forget, retain, reset_fraction=0.1)
    expected = fisher_plane(forget, retain, selection)
    monkeypatch.setattr("hf_deepclean.selection.ratios._BLOCK_SIZE", 999)
    assert fisher_plane(forget, retain, selection) == expected


def test_fishers_of_more_decades_than_there_are_bins_for_share_the_first_ones():
    generator = torch.Generator().manual_seed(0)
    sums = (10 ** (76 * torch.rand(2, 50_000, generator=generator).double() - 38)).float()
    forget, retain = (FisherDiagonal({"w": part}, 1) for part in sums)
    plane = fisher_plane(forget, retain, select_weights(forget, retain, gamma=1.0))
    assert (len(plane.counts), len(plane.counts[0])) == (16, 16)
    assert plane.forget_edges[-1] == plane.retain_edges[-1] == 38
    assert sum(plane.counts[0]) > 10 * sum(plane.counts[1])
    assert plane.num_in_scope == 50_000


def test_without_a_weight_that_matters_to_both_the_plane_is_empty():
    forget = FisherDiagonal({"w": torch.tensor([0.0, 1.0, 2.0, 0.0])}, 1)
    retain = FisherDiagonal({"w": torch.tensor([1.0, 0.0, 0.0, 0.0])}, 1)
    plane = fisher_plane(forget, retain, select_weights(forget, retain, reset_fraction=0.25))
    assert (plane.forget_zero, plane.retain_zero, plane.other) == ((0, 2), (1, 2), (0, 0))
    assert plane.counts == plane.selected_counts == ((0,),)


def test_the_plane_survives_json():
    forget, retain = diagonals()
    plane = fisher_plane(forget, retain, select_weights(forget, retain, gamma=1.0))
    assert from_json_types(FisherPlane, to_json_types(plane)) == plane
    assert replace(plane, other=(0, 0)).num_in_scope == plane.num_in_scope - plane.other[1]
