# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import torch

from hf_deepclean import FineTuning, UnlearningData
from hf_deepclean.baselines.training import shuffled_batches
from tests import heads, tiny
from tests.baselines.plain_training import assert_close, images, taken, texts, train_plainly


def test_it_is_plain_sgd_on_the_retain_data():
    model, data = tiny.randomized(tiny.vit()), images()
    method = FineTuning(num_train_epochs=3, per_device_train_batch_size=4)
    batches = taken(shuffled_batches(data, "retain", method, 7), 9)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    train_plainly(reference, optimizer, [lambda model, batch=batch: model(**batch).loss for batch in batches])
    method.unlearn(model, data, seed=7)
    assert_close(model, reference)


def test_the_forget_data_are_not_read():
    model, data = tiny.randomized(tiny.vit()), images()
    method, other = FineTuning(num_train_epochs=1), copy.deepcopy(model)
    method.unlearn(model, data)
    method.unlearn(other, UnlearningData(None, data.retain_dataset, data.data_collator))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_language_model_learns_the_retained_texts():
    torch.manual_seed(0)
    model, data = heads.gpt2().eval(), texts()
    batch = next(data.batches("retain", 4))
    before = model(**batch).loss.item()
    FineTuning(0.1, 20).unlearn(model, data)
    assert model(**batch).loss.item() < 0.9 * before
