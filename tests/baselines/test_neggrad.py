# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch

from hf_deepclean import FineTuning, NegGradPlus
from hf_deepclean.baselines.training import shuffled_batches
from tests import tiny
from tests.baselines.plain_training import assert_close, images, taken, train_plainly


def test_every_step_descends_on_retain_data_and_ascends_on_forget_data_that_come_again():
    model, data = tiny.randomized(tiny.vit()), images()
    method = NegGradPlus(num_train_epochs=2, per_device_train_batch_size=3, alpha=0.7, weight_decay=0.01)
    retain = taken(shuffled_batches(data, "retain", method, 1), 8)
    forget = taken(shuffled_batches(data, "forget", method, 1), 8)
    assert [len(batch["labels"]) for batch in retain] == [3, 3, 3, 2] * 2
    assert [len(batch["labels"]) for batch in forget] == [3, 2] * 4

    def loss(model, kept, forgotten):
        return 0.7 * model(**kept).loss - 0.3 * model(**forgotten).loss

    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    losses = [lambda model, pair=pair: loss(model, *pair) for pair in zip(retain, forget, strict=True)]
    train_plainly(reference, optimizer, losses)
    method.unlearn(model, data, seed=1)
    assert_close(model, reference)


def test_with_all_weight_on_the_retain_data_it_is_fine_tuning():
    model, data = tiny.randomized(tiny.vit()), images()
    other = copy.deepcopy(model)
    NegGradPlus(alpha=1.0, num_train_epochs=1).unlearn(model, data)
    FineTuning(weight_decay=0.0, num_train_epochs=1).unlearn(other, data)
    assert_close(model, other)


def test_with_all_weight_on_the_forget_data_their_loss_rises():
    model, data = tiny.randomized(tiny.vit()), images()
    batch = next(data.batches("forget", 8))
    before = model(**batch).loss.item()
    NegGradPlus(alpha=0.0, num_train_epochs=3).unlearn(model, data)
    assert model(**batch).loss.item() > before + 0.01


def test_a_divergence_is_told():
    model, data = tiny.randomized(tiny.vit(), torch.float32), images(dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="has diverged"):
        NegGradPlus(1e20, 100, 4, alpha=0.0).unlearn(model, data)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match="`alpha` is .* from 0 to 1"):
        NegGradPlus(alpha=alpha)
