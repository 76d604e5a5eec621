# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The batches of the processes of a sharded model, with the answers of a second process written down."""

import torch
from torch import nn

from hf_deepclean.fisher.groups import GroupedBatch, group_examples
from hf_deepclean.fisher.lockstep import Lockstep
from hf_deepclean.runtime.shards import Processes


# A model whose inputs have one entry per row.
MODEL = nn.Module()


class TwoProcesses:
    """Stands for this process and another one, which gives the answers in `others`."""

    are_several = True

    def __init__(self, *others):
        self.others = list(others)

    def gather(self, value):
        return [value, self.others.pop(0)]


def rows(*labels):
    return {"x": torch.tensor(labels) / 10, "labels": torch.tensor(labels)}


def test_examples_are_sorted_by_group_and_keep_their_positions():
    grouped = group_examples(MODEL, rows(3, 4, 5, 6), [2, 0, 2, 0], start=10)
    assert grouped.batch["labels"].tolist() == [4, 6, 3, 5]
    assert (grouped.positions, grouped.groups) == ([11, 13, 10, 12], {0: range(0, 2), 2: range(2, 4)})
    assert group_examples(MODEL, rows(3, 4), None, start=10).groups == {0: range(2)}


def test_one_process_runs_its_own_batches():
    assert list(Lockstep(MODEL, Processes()).batches([1, 2])) == [1, 2]


def test_a_process_without_batches_goes_on_until_the_other_has_none():
    assert list(Lockstep(MODEL, TwoProcesses(False, False, True)).batches(["one"])) == ["one", None]


def test_a_smaller_batch_is_filled_up_with_examples_of_no_group():
    lockstep = Lockstep(MODEL, TwoProcesses((5, [0, 1], False)))
    aligned = lockstep.align(GroupedBatch(rows(3, 4), [7, 8], {0: range(2)}, [range(2)]), torch.device("cpu"))
    assert aligned.batch["labels"].tolist() == [3, 4, 3, 3, 3]
    assert (aligned.positions, aligned.groups) == ([7, 8, 0, 0, 0], {0: range(2), 1: range(0)})


def test_a_process_that_never_had_an_example_borrows_one():
    lockstep = Lockstep(MODEL, TwoProcesses((2, [1], False), rows(9)))
    aligned = lockstep.align(None, torch.device("cpu"))
    assert aligned.batch["labels"].tolist() == [9, 9] and aligned.groups == {1: range(0)}


def test_examples_of_a_kind_stand_together_within_their_group():
    grouped = group_examples(MODEL, rows(3, 4, 5, 6, 7), [1, 0, 1, 0, 0], start=10, kinds="abaab")
    assert grouped.batch["labels"].tolist() == [6, 4, 7, 3, 5]
    assert (grouped.positions, grouped.groups) == ([13, 11, 14, 10, 12], {0: range(0, 3), 1: range(3, 5)})
    assert grouped.runs == [range(0, 1), range(1, 3), range(3, 5)]
    assert group_examples(MODEL, rows(3, 4), None, start=10, kinds="aa").runs == [range(2)]
