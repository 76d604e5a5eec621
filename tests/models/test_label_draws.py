# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from hf_deepclean.models.label_draws import draw_targets, uniform_numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_outcomes", [2, 3, 50, 129, 150])
def test_draws_follow_the_probabilities(num_outcomes, dtype):
    probabilities = torch.rand(num_outcomes, generator=torch.Generator().manual_seed(1), dtype=dtype).square()
    probabilities[num_outcomes // 2] = 0
    probabilities /= probabilities.sum()
    num_draws = 40_000
    drawn = draw_targets(
        probabilities.expand(20, num_draws // 20, -1), torch.zeros(20, num_draws // 20, dtype=torch.long), range(20), 7
    )
    counts = drawn.flatten().bincount(minlength=num_outcomes)
    possible = probabilities > 0
    assert (counts[~possible] == 0).all()
    expected = num_draws * probabilities[possible]
    statistic = ((counts[possible] - expected).square() / expected).sum().item()
    freedom = int(possible.sum()) - 1
    # Mean and five standard deviations of the chi-square distribution.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 1e-6


@pytest.mark.parametrize("num_outcomes", [11, 300])
def test_the_largest_number_does_not_draw_what_is_impossible(monkeypatch, num_outcomes):
    monkeypatch.setattr(
        "hf_deepclean.models.label_draws.uniform_numbers",
        lambda seed, positions, indices: np.full(len(indices), 1 - 2**-53),
    )
    probabilities = torch.zeros(1, 3, num_outcomes)
    probabilities[0, 0, 4], probabilities[0, 1, :9], probabilities[0, 2, [0, 10]] = 1, 1 / 9, 0.5
    assert draw_targets(probabilities, torch.zeros(1, 3, dtype=torch.long), [0], 0).tolist() == [[4, 8, 10]]


def test_a_draw_belongs_to_its_example_and_its_place_among_the_scored_ones():
    probabilities = torch.rand(1, 1, 1000).expand(5, 8, 1000) / 1000
    everywhere = draw_targets(probabilities, torch.zeros(5, 8, dtype=torch.long), range(3, 8), seed=1)
    targets = torch.zeros(5, 8, dtype=torch.long)
    targets[:, ::2] = -100
    some = draw_targets(probabilities, targets, range(3, 8), seed=1)
    assert (some[:, ::2] == -100).all()
    assert torch.equal(some[:, 1::2], everywhere[:, :4])
    assert torch.equal(draw_targets(probabilities[2:], targets[2:], range(5, 8), seed=1), some[2:])
    assert len(everywhere.unique()) > 30
    assert not torch.equal(draw_targets(probabilities, targets, range(3, 8), seed=2), some)


def test_numbers_are_uniform_and_uncorrelated_between_neighbours_and_seeds():
    positions, indices = np.meshgrid(np.arange(500), np.arange(400), indexing="ij")
    numbers, other = (uniform_numbers(seed, positions, indices) for seed in (0, 1))
    assert numbers.min() >= 0 and numbers.max() < 1 and len(np.unique(numbers)) == numbers.size
    counts = np.bincount((numbers * 100).astype(int).ravel(), minlength=100)
    # Mean and five standard deviations of the chi-square distribution with 99 degrees of freedom.
    assert ((counts - 2000) ** 2 / 2000).sum() < 99 + 5 * (2 * 99) ** 0.5
    for left, right in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1]), (numbers, other)):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 5 / left.size**0.5


def test_numbers_are_those_of_splitmix64():
    state = np.random.SeedSequence(0).generate_state(1, np.uint64)
    expected = []
    for place in (1, 2):
        z = (int(state[0]) + place * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append(((z ^ (z >> 31)) >> 11) / 2**53)
    assert uniform_numbers(0, np.zeros(2, int), np.arange(2)).tolist() == expected


def test_nothing_to_draw_leaves_nothing_drawn():
    targets = torch.full((2, 3), -100)
    assert torch.equal(draw_targets(torch.rand(2, 3, 4), targets, range(2), 0), targets)
