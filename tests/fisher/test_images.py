# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Models of images and text, whose tensors have entries for images or patches instead of rows."""

from functools import partial

import pytest
import torch

from hf_deepclean import accumulate_fisher_diagonal, accumulate_fisher_diagonals
from hf_deepclean.evaluation.predictions import predict_examples
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from tests.fisher.test_accumulate import worst_relative_difference
from tests.models import multimodal as mm


SMALL, TALL, LARGE = (1, 2, 2), (1, 4, 2), (1, 4, 4)

CASES = {
    "qwen, different grids": (
        mm.qwen2_vl,
        mm.qwen_rows([SMALL], [TALL], [], [SMALL], [TALL, SMALL], [LARGE], [SMALL]),
        mm.qwen_batch,
    ),
    "qwen, equal grids": (mm.qwen2_vl, mm.qwen_rows(*[[SMALL]] * 5), mm.qwen_batch),
    "qwen, videos": (
        mm.qwen2_vl,
        mm.qwen_rows([(2, 2, 2)], [], [(1, 2, 2), (2, 2, 2)], [(2, 2, 2)], token=mm.VIDEO),
        partial(mm.qwen_batch, token=mm.VIDEO),
    ),
    "llava, none, one or two": (mm.llava, mm.llava_rows(1, 0, 2, 1, 2, 0, 1, 1), mm.llava_batch),
    "llava, side by side": (mm.llava, mm.llava_rows(2, 0, 1, 1, adjacent=True), mm.llava_batch),
    "llava, no images": (mm.llava, mm.llava_rows(0, 0, 0, 0), mm.llava_batch),
}


def alone(model, rows, collate):
    """The sums and the log-likelihoods of rows that are collated one by one."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    scores = []
    for row in rows:
        batch = collate([row])
        add_reference_squares_(sums, model, batch, dict(model.named_parameters()))
        scores.append(torch.from_numpy(predict_examples(model, [batch]).log_likelihood))
    return sums, torch.cat(scores)


def in_batches(rows, collate, size):
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


@pytest.mark.parametrize("name", CASES)
def test_rows_with_any_number_of_images_equal_rows_that_are_collated_alone(name):
    make_model, rows, collate = CASES[name]
    model = make_model()
    sums, scores = alone(model, rows, collate)
    for size in (1, 3, len(rows)):
        batches = in_batches(rows, collate, size)
        fisher = accumulate_fisher_diagonal(model, batches)
        assert fisher.num_examples == len(rows) and fisher.fallback_parameters == {}
        assert worst_relative_difference(fisher.sums, sums) <= 1e-9
        assert torch.allclose(torch.from_numpy(predict_examples(model, batches).log_likelihood), scores, rtol=1e-9)


def test_groups_of_rows_with_different_images_have_sums_of_their_own():
    rows = mm.llava_rows(1, 0, 2, 1, 1, 2)
    model, group = mm.llava(), torch.tensor([1, 0, 0, 1, 0, 1])
    fishers = accumulate_fisher_diagonals(model, [mm.llava_batch(rows) | {"group": group}], group_column="group")
    for number, fisher in fishers.items():
        sums, _ = alone(model, [row for row, own in zip(rows, group, strict=True) if own == number], mm.llava_batch)
        assert fisher.num_examples == 3
        assert worst_relative_difference(fisher.sums, sums) <= 1e-9


def test_images_with_as_many_patches_in_all_as_if_each_row_had_one_are_not_mixed():
    """Four rows with four images of one size among them, after a batch whose rows have one each."""
    rows = mm.llava_rows(1, 1, 1, 1, 2, 0, 1, 1)
    model = mm.llava()
    fisher = accumulate_fisher_diagonal(model, in_batches(rows, mm.llava_batch, 4), self_check=False)
    assert worst_relative_difference(fisher.sums, alone(model, rows, mm.llava_batch)[0]) <= 1e-9
