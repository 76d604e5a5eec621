# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherDiagonal, select_weights
from hf_deepclean.selection import largest
from hf_deepclean.selection.largest import LargestRatios
from tests.selection.diagonals import diagonals, selected_mask


@pytest.mark.parametrize("number", [1, 17, 900, 1730])
def test_as_many_weights_are_those_of_the_fraction_that_is_as_many(number, caplog):
    forget, retain = diagonals()
    retain.sums["a.bias"] /= 1e9
    largest = LargestRatios(forget, retain)
    assert largest.num_candidates == 1730
    expected = select_weights(forget, retain, reset_fraction=min(1.0, (number + 0.5) / 1730))
    selection = largest.select(number)
    assert selection.num_selected == number
    assert torch.equal(selected_mask(selection), selected_mask(expected))
    assert (selection.rule, selection.gamma) == ("auto", expected.gamma)
    assert selection.num_infinite_ratios == expected.num_infinite_ratios
    caplog.clear()
    largest.select(1730)
    assert caplog.text == ""


@pytest.mark.parametrize("seed", range(5))
def test_ratios_that_are_sorted_and_ratios_that_are_counted_give_the_same_selections(seed, monkeypatch):
    generator = torch.Generator().manual_seed(seed)

    def sums(size, digits):
        # Few digits make ties, and zeros infinite and undefined ratios.
        return {name: torch.rand(size, generator=generator).round(decimals=digits) for name in ("a", "b", "c")}

    forget, retain = FisherDiagonal(sums(300, 1), 7), FisherDiagonal(sums(300, 1), 11)
    by_sorting = LargestRatios(forget, retain)
    monkeypatch.setattr(largest, "_MAX_SORTED", 0)
    by_counting = LargestRatios(forget, retain)
    assert by_sorting.num_candidates == by_counting.num_candidates
    for number in (1, 2, 50, 51, 400, by_sorting.num_candidates):
        one, other = by_sorting.select(number), by_counting.select(number)
        assert one.num_selected == number
        assert torch.equal(selected_mask(one), selected_mask(other))
        assert one.indices.keys() == other.indices.keys()
        assert (one.gamma, one.num_infinite_ratios) == (other.gamma, other.num_infinite_ratios)
        assert (one.num_weights, one.rule) == (other.num_weights, other.rule)


def test_more_weights_contain_fewer():
    largest = LargestRatios(*diagonals())
    smaller, larger = (selected_mask(largest.select(number)) for number in (50, 51))
    assert (larger & smaller).sum() == 50


def test_a_weight_that_does_not_matter_to_the_forget_set_is_no_candidate():
    forget = FisherDiagonal({"w": torch.tensor([0.0, 0.0, 1e-30, 5.0]), "v": torch.zeros(2)}, 1)
    retain = FisherDiagonal({"w": torch.tensor([0.0, 1.0, 0.0, 1.0]), "v": torch.ones(2)}, 1)
    largest = LargestRatios(forget, retain)
    assert largest.num_candidates == 2
    assert largest.select(2).indices["w"].tolist() == [2, 3]
    with pytest.raises(ValueError, match="the forget Fisher is 0 for every weight"):
        LargestRatios(FisherDiagonal({"v": torch.zeros(2)}, 1), FisherDiagonal({"v": torch.ones(2)}, 1))
    with pytest.raises(ValueError, match="cannot be compared"):
        LargestRatios(forget, FisherDiagonal({"w": retain.sums["w"]}, 1))
