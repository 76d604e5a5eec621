# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import math

import pytest
import torch

from hf_deepclean import (
    FreezeGuard,
    RandomMask,
    WeightSelection,
    parameters_in_scope,
    reset_weights,
    select_random_weights,
)
from hf_deepclean.baselines.training import shuffled_batches
from tests import heads, tiny
from tests.baselines.plain_training import assert_close, images, taken, texts, train_plainly


def drawn(model, share, seed):
    """A random selection of a share of the weights in scope, by the public function."""
    sizes = {name: parameter.numel() for name, parameter in parameters_in_scope(model).items()}
    places = torch.arange(int(share * sum(sizes.values())))
    return select_random_weights(WeightSelection({"any": places}, sizes, "gamma"), seed)


@pytest.mark.parametrize("reset_value", [None, "init"])
def test_it_resets_random_weights_and_repairs_them_by_masked_adamw_with_cosine_decay(reset_value):
    model, data = tiny.randomized(tiny.vit()), images()
    method = RandomMask(per_device_train_batch_size=4, reset_value=reset_value)
    reference, selection = copy.deepcopy(model), drawn(model, 0.1, 5)
    method.unlearn(model, data, seed=5)
    reset_weights(reference, selection, reset_value or "zero", seed=5)
    masks = {name: torch.zeros_like(parameter) for name, parameter in reference.named_parameters()}
    for name, indices in selection.indices.items():
        masks[name].view(-1)[indices] = 1
    for name, parameter in reference.named_parameters():
        parameter.register_hook(lambda gradient, mask=masks[name]: gradient * mask)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3)
    rates = [1e-3 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    batches = taken(shuffled_batches(data, "retain", method, 5), 6)
    losses = [lambda model, batch=batch: model(**batch).loss for batch in batches]
    train_plainly(reference, optimizer, losses, rates, max_grad_norm=1.0)
    assert_close(model, reference)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_every_other_bit_stays_whatever_decay_and_momentum(make_model, optimizer):
    model, data = tiny.randomized(make_model(), torch.float32), images(dtype=torch.float32)
    guard = FreezeGuard(model, drawn(model, 0.1, 0))
    RandomMask(0.05, 3, 4, optimizer, weight_decay=1.0).unlearn(model, data)
    guard.verify(model)


def test_without_training_it_is_the_reset_alone():
    model, data = tiny.randomized(tiny.vit(), torch.float32), images(dtype=torch.float32)
    reference = copy.deepcopy(model)
    RandomMask(num_train_epochs=0, reset_fraction=0.3).unlearn(model, data, seed=2)
    reset_weights(reference, drawn(reference, 0.3, 2), "zero")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), reference.parameters(), strict=True))


def test_weights_of_a_language_model_get_initial_values_and_no_zeros():
    torch.manual_seed(0)
    model = tiny.randomized(heads.gpt2(), torch.float32)
    RandomMask(num_train_epochs=0, reset_fraction=0.3).unlearn(model, texts())
    assert (model.transformer.wte.weight != 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reset_fraction": 0.0}, "`reset_fraction` is 0.0 but"),
        ({"reset_fraction": 1.5}, "`reset_fraction` is 1.5 but"),
        ({"reset_value": "pretrained"}, "`reset_value` is 'pretrained' but must be one of 'zero', 'init'"),
        ({"reset_value": "natural"}, "`reset_value` is 'natural' but must be one of 'zero', 'init'"),
    ],
)
def test_shares_and_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        RandomMask(**values)
