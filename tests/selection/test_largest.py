# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from hf_deepclean import FisherDiagonal, select_weights
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


def sorted_candidates(forget, retain):
    """All candidates in the order of the rule, by a plain sort in Python: `(ratio, position)`, positions over all."""
    entries, first = [], 0
    for name, total in forget.sums.items():
        above, below = (
            part.double().flatten() / fisher.num_examples
            for part, fisher in zip((total, retain.sums[name]), (forget, retain), strict=True)
        )
        ratios = (above / below).tolist()
        for place, (ratio, importance) in enumerate(zip(ratios, total.double().flatten().tolist(), strict=True)):
            if ratio > 0:
                entries.append((-ratio, -importance, first + place))
        first += len(ratios)
    return [(-ratio, place) for ratio, _, place in sorted(entries)]


def few_digits(shape, generator):
    """Ties, and zeros, which make infinite and undefined ratios."""
    return torch.rand(shape, generator=generator).round(decimals=1)


def many_decades(shape, generator):
    """Quotients that a float32 cannot hold, too."""
    return 10 ** (74 * torch.rand(shape, generator=generator) - 44)


def nearly_equal(shape, generator):
    """All ratios within a few units in the last place of one number."""
    return 3 * (1 + 2**-22 * torch.randint(0, 5, shape, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("values", [few_digits, many_decades, nearly_equal])
def test_the_selection_is_that_of_a_plain_sort(values, dtype, monkeypatch):
    monkeypatch.setattr("hf_deepclean.selection.ratios._BLOCK_SIZE", 101)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        shapes = {"a": (20, 15), "b": (), "c": (7,), "d": (3, 50, 2)}
        forget, retain = (
            FisherDiagonal({name: values(shape, generator).to(dtype) for name, shape in shapes.items()}, number)
            for number in (7, 11)
        )
        expected = sorted_candidates(forget, retain)
        largest = LargestRatios(forget, retain)
        assert largest.num_candidates == len(expected)
        for number in (1, 2, 50, 51, 400, len(expected) - 1, len(expected)):
            selection = largest.select(number)
            chosen = selected_mask(selection).nonzero().squeeze(1).tolist()
            assert chosen == sorted(place for _, place in expected[:number])
            assert selection.gamma == expected[number - 1][0]
            assert selection.num_infinite_ratios == sum(math.isinf(ratio) for ratio, _ in expected[:number])
            assert all(torch.equal(indices, indices.sort().values) for indices in selection.indices.values())


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
