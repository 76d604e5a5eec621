# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch

from hf_deepclean import select_random_weights, select_weights
from hf_deepclean.selection.weight_selection import selection_at
from tests.selection.diagonals import diagonals, selected_mask


def test_counts_per_module_add_up():
    selection = select_weights(*diagonals(), gamma=1)
    counts = selection.counts_per_module()
    assert list(counts) == ["a", "b"]
    assert sum(selected for selected, _ in counts.values()) == selection.num_selected
    assert counts["a"][1] == 1230


def test_the_random_control_has_the_same_size_scope_and_other_weights():
    selection = select_weights(*diagonals(), gamma=8)
    control = select_random_weights(selection, seed=1)
    assert control.num_selected == selection.num_selected
    assert control.num_weights == selection.num_weights
    assert all(0 <= i.min() and i.max() < control.num_weights[name] for name, i in control.indices.items())
    assert torch.equal(selected_mask(control), selected_mask(select_random_weights(selection, seed=1)))
    assert not torch.equal(selected_mask(control), selected_mask(selection))
    assert not torch.equal(selected_mask(control), selected_mask(select_random_weights(selection, seed=2)))


def test_a_place_in_all_parameters_is_one_in_its_own():
    sizes = {"first": 3, "second": 2, "third": 4, "last": 5}
    selection = selection_at(sizes, torch.tensor([13, 5, 2]), "random")
    assert {name: i.tolist() for name, i in selection.indices.items()} == {"first": [2], "third": [0], "last": [4]}
    assert (selection.num_selected, selection.num_in_scope, selection.rule) == (3, 14, "random")
