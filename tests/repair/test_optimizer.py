# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch import nn

from hf_deepclean import SparseAdamW
from tests import tiny
from tests.reset.models import outside, selection_of


def loss_of(model, batch):
    return -torch.log_softmax(model(batch["pixel_values"]).logits, -1).gather(1, batch["labels"][:, None]).mean()


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        batch = tiny.image_batch(16, torch.float64)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(step))[:8]
        loss_of(model, {key: value[order] for key, value in batch.items()}).backward()
        optimizer.step()


def test_equals_dense_adamw_with_masked_gradients_on_the_chosen_entries():
    model = tiny.randomized(tiny.vit())
    dense, selection = copy.deepcopy(model), selection_of(model)
    sparse = SparseAdamW(model.named_parameters(), selection.indices, lr=1e-2, weight_decay=0.1, betas=(0.8, 0.95))
    reference = torch.optim.AdamW(dense.parameters(), lr=1e-2, weight_decay=0.1, betas=(0.8, 0.95))
    start = {name: parameter.detach().clone() for name, parameter in dense.named_parameters()}
    masks = {name: torch.zeros(p.numel(), dtype=torch.bool) for name, p in dense.named_parameters()}
    for name, indices in selection.indices.items():
        masks[name][indices] = True
    for step in range(5):
        train(model, sparse, 1, step)
        train(dense, reference, 1, step)
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                parameter.copy_(torch.where(masks[name].view_as(parameter), parameter, start[name]))
    for name, parameter in dense.named_parameters():
        assert torch.allclose(dict(model.named_parameters())[name], parameter, rtol=1e-10, atol=1e-14)


def test_entries_that_were_not_chosen_keep_every_bit():
    model = tiny.randomized(tiny.vit(), torch.float32)
    selection = selection_of(model)
    before = outside(model, selection)
    optimizer = SparseAdamW(model.named_parameters(), selection.indices, lr=1e-2, weight_decay=0.1, max_grad_norm=0.1)
    train(model.double(), optimizer, 1)
    model.float()
    after = outside(model, selection)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_infinite_gradient_of_a_frozen_entry_does_no_harm():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SparseAdamW([("w", weight)], {"w": torch.tensor([1])}, lr=0.1)
    weight.grad = torch.tensor([float("inf"), 1.0, float("nan")])
    optimizer.step()
    assert weight.tolist() == pytest.approx([1.0, 0.9, 1.0])


def test_state_holds_two_floats_per_chosen_entry_and_the_steps():
    model = tiny.randomized(tiny.vit())
    selection = selection_of(model)
    optimizer = SparseAdamW(model.named_parameters(), selection.indices)
    train(model, optimizer, 2)
    state = optimizer.state_dict()["state"].values()
    num_steps = sum(entry["step"].numel() for entry in state)
    assert sum(value.numel() for entry in state for value in entry.values()) == 2 * selection.num_selected + num_steps
    assert num_steps == len(selection.indices)


def test_clipping_sees_the_chosen_entries_alone():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = SparseAdamW([("w", weight)], {"w": torch.tensor([0, 1])}, max_grad_norm=1.0)
    weight.grad = torch.tensor([3.0, 4.0, 1000.0, 1000.0])
    optimizer.step()
    assert optimizer.last_grad_norm == pytest.approx(5.0)
    assert optimizer.state[weight]["exp_avg"].tolist() == pytest.approx([0.06, 0.08], rel=1e-4)


def test_saved_and_loaded_it_continues_with_the_same_bits():
    model = tiny.randomized(tiny.vit())
    selection = selection_of(model)
    optimizer = SparseAdamW(model.named_parameters(), selection.indices, lr=1e-2)
    train(model, optimizer, 2)
    resumed, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, 3, first=2)
    second = SparseAdamW(resumed.named_parameters(), selection.indices, lr=1.0)
    second.load_state_dict(state)
    train(resumed, second, 3, first=2)
    for first, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, other)


def test_a_state_of_another_selection_is_refused():
    model = tiny.randomized(tiny.vit())
    optimizer = SparseAdamW(model.named_parameters(), selection_of(model).indices)
    train(model, optimizer, 1)
    other = SparseAdamW(model.named_parameters(), selection_of(model, 0.1).indices)
    with pytest.raises(ValueError, match="it belongs to another selection"):
        other.load_state_dict(optimizer.state_dict())


def test_half_precision_weights_move_by_steps_too_small_for_them():
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = SparseAdamW([("w", weight)], {"w": torch.tensor([1])}, lr=1e-4)
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    # 200 steps of 1e-4; each alone is lost in bfloat16, whose numbers just below 1 are 0.004 apart.
    assert weight.tolist() == pytest.approx([1.0, 0.98], abs=0.004)
    assert optimizer.state[weight]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize(
    ("params", "indices", "message"),
    [
        ([nn.Parameter(torch.ones(2))], {"w": torch.tensor([0])}, "without names"),
        ([("w", nn.Parameter(torch.ones(2)))], {"w": torch.tensor([2])}, "outside its 2 entries"),
    ],
)
def test_unnamed_parameters_and_foreign_indices_are_refused(params, indices, message):
    with pytest.raises(ValueError, match=message):
        SparseAdamW(params, indices)


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    weight = nn.Parameter(torch.ones(2))
    optimizer = SparseAdamW([("w", weight)], {"w": torch.tensor([0])})
    weight.grad = torch.tensor([float("nan"), 1.0])
    with pytest.raises(ValueError, match=r"gradients is nan.* Lower `learning_rate`"):
        optimizer.step()
    assert weight.tolist() == [1.0, 1.0]
