# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest
import torch

from hf_deepclean.repair.penalty import MAX_STEPS_PER_PENALTY, MIN_STEPS_PER_PENALTY, ForgetPenalty, penalty_period


QUANTILES = np.linspace(0.0, 4.0, 101).tolist()


def penalty(num_forget=30, num_unseen=40, losses=QUANTILES, **kwargs):
    defaults = {"weight": 1.0, "batch_size": 8, "period": 4, "rise": 1.0, "seed": 3}

    def collate(rows):
        return {"rows": rows, "draw": torch.rand(()).item()}

    rows = list(range(num_forget)), list(range(100, 100 + num_unseen))
    return ForgetPenalty(*rows, collate, losses, **(defaults | kwargs))


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_examples_that_are_known_by_heart_are_held_to_the_losses_of_unseen_ones_rank_by_rank(size):
    losses = np.random.default_rng(size).uniform(0, 1e-3, size)
    targets = penalty().targets(losses, np.full(size, 4.0), 1.0)
    assert (np.argsort(targets) == np.argsort(losses)).all()
    assert np.sort(targets) == pytest.approx(np.quantile(QUANTILES, (np.arange(size) + 0.5) / size))


def test_targets_rise_from_one_half_of_the_losses_to_the_whole():
    losses = np.linspace(0, 0.01, 9)
    end = penalty().targets(losses, [4.0], 1.0)
    for progress in (0.0, 0.3, 0.8):
        assert penalty().targets(losses, [4.0], progress) == pytest.approx((1 + progress) / 2 * end)
    for progress in (0.0, 0.2, 0.4, 0.5, 0.9):
        reached = (1 + min(1, 2 * progress)) / 2 * end
        assert penalty(rise=0.5).targets(losses, [4.0], progress) == pytest.approx(reached)
    # Losses of densities may be negative. A target for a part of the repair is still below the whole.
    below = penalty(losses=[-2.0, -1.0, 1.0])
    assert (below.targets([-5.0, -5.0, -5.0], [1.0], 0.0) < below.targets([-5.0, -5.0, -5.0], [1.0], 1.0)).all()


@pytest.mark.parametrize(
    ("forget", "unseen", "progress", "acts"),
    [
        (1.99, 3.0, 1.0, True),
        (2.01, 3.0, 1.0, False),
        (1.01, 3.0, 0.0, False),
        (0.99, 3.0, 0.0, True),
        (1.5, 1.4, 1.0, False),
        (1.5, 1.6, 1.0, True),
    ],
)
def test_nothing_is_made_less_known_than_unseen_data_were_or_are(forget, unseen, progress, acts):
    losses = forget + np.linspace(-0.5, 0.5, 8)
    assert (penalty().targets(losses, np.full(8, unseen), progress) is not None) is acts


def test_examples_without_a_score_ask_for_nothing():
    assert penalty().targets([], [1.0], 1.0) is None
    assert penalty().targets([0.1, 0.2], [], 1.0) is not None


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 30])
def test_every_row_comes_as_often_as_any_other_and_processes_share_the_rows_of_one(num_rows, num_processes):
    one = penalty(num_rows, batch_size=4 * num_processes)
    several = penalty(num_rows, batch_size=4)
    seen = Counter()
    for step in range(0, 4 * 60, 4):
        alone, counts = one.batch(one.forget_rows, step)
        assert counts
        parts = [several.batch(several.forget_rows, step, index, num_processes) for index in range(num_processes)]
        assert sorted(alone["rows"]) == sorted(row for batch, own in parts if own for row in batch["rows"])
        # A process without a share gets a batch that does not count, to stay in step.
        assert all(len(batch["rows"]) >= 1 for batch, _ in parts)
        assert sum(own for _, own in parts) == min(num_processes, num_rows)
        seen.update(alone["rows"])
    assert max(seen.values()) - min(seen.get(row, 0) for row in range(num_rows)) <= 1


def test_a_batch_follows_the_step_alone_and_leaves_random_states_as_they_were():
    state = torch.get_rng_state()
    one = penalty()
    batches = [one.batch(one.forget_rows, step)[0] for step in (0, 4, 8, 4)]
    assert batches[1] == batches[3] and batches[1] != batches[2]
    assert batches[1]["draw"] != batches[2]["draw"]
    assert torch.equal(torch.get_rng_state(), state)
    assert penalty(seed=4).batch(one.forget_rows, 4)[0]["rows"] != batches[1]["rows"]


def test_forget_data_are_read_as_often_as_retained_ones_within_bounds():
    assert penalty_period(60, 10) == 6
    assert penalty_period(60, 60) == penalty_period(0, 3) == MIN_STEPS_PER_PENALTY
    assert penalty_period(10_000, 1) == MAX_STEPS_PER_PENALTY


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_few_examples_are_held_to_what_unseen_ones_are_now_also_if_they_are_known_less(size):
    unseen = np.linspace(1.0, 2.0, 41)
    for losses in (np.linspace(0.0, 0.1, size), np.linspace(8.0, 9.0, size)):
        targets = penalty(few=True).targets(losses, unseen, 0.0)
        assert targets == pytest.approx(np.quantile(unseen, (np.arange(size) + 0.5) / size))


@pytest.mark.parametrize("on_odds", [False, True])
def test_a_few_examples_are_moved_towards_their_targets_from_both_sides_and_not_beyond(on_odds):
    logits = torch.tensor([[9.0, 0.0], [2.0, 0.0], [0.5, 0.0], [-1.0, 0.0], [-9.0, 0.0]], requires_grad=True)
    losses = torch.nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long), reduction="none")
    target = losses[2].detach()
    one = penalty(few=True, on_odds=on_odds)
    one.excess(losses, target.expand(5)).backward()
    direction = logits.grad[:, 0]
    assert (direction[:2] > 0).all() and direction[2].abs() < 1e-6 and (direction[3:] < 0).all()
    # The example that is known by heart is moved as fast as any other on the scale of odds alone.
    assert direction[0] > 0.99 if on_odds else direction[0] < 1e-3
    assert penalty().excess(losses.detach(), target.expand(5)) == (target - losses.detach()).clamp_min(0).sum()


def test_losses_of_zero_and_of_densities_have_finite_gradients():
    for on_odds, values in ((True, [0.0, 1e-9, 200.0]), (False, [-3.0, 0.0, 2.0])):
        losses = torch.tensor(values, requires_grad=True)
        penalty(few=True, on_odds=on_odds).excess(losses, torch.tensor([0.5, 0.0, 1.0])).backward()
        assert losses.grad.isfinite().all()


def test_a_few_examples_are_compared_with_twice_as_many_unseen_ones():
    one = penalty(num_forget=5, few=True)
    assert [len(one.batch(rows, 0)[0]["rows"]) for rows in (one.forget_rows, one.unseen_rows)] == [5, 16]
    parts = [one.batch(one.unseen_rows, 0, index, 2)[0]["rows"] for index in range(2)]
    assert len({*parts[0], *parts[1]}) == 32
