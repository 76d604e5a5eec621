# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherDiagonal, accumulate_fisher_diagonal

from .. import tiny


def test_disjoint_sets_add_up():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    first, second = tiny.in_batches(batch, 6)
    total = accumulate_fisher_diagonal(model, [first]) + accumulate_fisher_diagonal(model, [second])
    whole = accumulate_fisher_diagonal(model, [batch])
    assert total.num_examples == whole.num_examples == 11
    for name, mean in whole.mean().items():
        assert torch.allclose(total.mean()[name], mean, rtol=1e-10, atol=1e-25)


def test_mean_divides_by_the_number_of_examples():
    assert FisherDiagonal({"w": torch.tensor([6.0])}, 3).mean()["w"].item() == 2


@pytest.mark.parametrize(
    "other", [FisherDiagonal({"v": torch.ones(1)}, 1), FisherDiagonal({"w": torch.ones(1)}, 1, "sampled")]
)
def test_other_parameters_or_another_estimator_do_not_add_up(other):
    with pytest.raises(ValueError, match="same parameters and the same estimator"):
        FisherDiagonal({"w": torch.ones(1)}, 1) + other
