# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from hf_deepclean import reset_weights
from hf_deepclean.reset.values import default_reset_value
from hf_deepclean.reset.weights import read_weights
from tests import heads, tiny
from tests.reset.models import outside, selection_of


@pytest.mark.parametrize("reset_value", ["zero", "init", "pretrained"])
def test_only_selected_weights_change(reset_value):
    model = tiny.randomized(tiny.resnet(), torch.float32)
    base = tiny.randomized(tiny.resnet(), torch.float32) if reset_value == "pretrained" else None
    selection = selection_of(model)
    before = outside(model, selection)
    reset_weights(model, selection, reset_value, pretrained_model=base)
    after = outside(model, selection)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_zero_resets_to_zero():
    model = tiny.randomized(tiny.vit(), torch.float32)
    selection = selection_of(model)
    reset_weights(model, selection)
    assert all(values.count_nonzero() == 0 for values in read_weights(model, selection).values())


def test_a_fresh_initialisation_seeds_no_accelerator(monkeypatch):
    def refuse(seed):
        raise AssertionError("The generators of accelerators were seeded.")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    model = tiny.randomized(tiny.vit(), torch.float32)
    reset_weights(model, selection_of(model), "init", seed=7)


def test_init_draws_what_a_fresh_model_has_also_for_a_loaded_model(tmp_path):
    tiny.randomized(tiny.vit(), torch.float32).save_pretrained(tmp_path)
    model = type(tiny.vit()).from_pretrained(tmp_path)
    selection, state = selection_of(model), torch.get_rng_state()
    reset_weights(model, selection, "init", seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    fresh = read_weights(tiny.vit(), selection)
    values = read_weights(model, selection)
    assert all(torch.equal(values[name], fresh[name]) for name in fresh)
    assert values["vit.layernorm.weight"].eq(1).all()
    assert values["classifier.weight"].std() < 0.03


@pytest.mark.parametrize(
    ("reset_value", "pretrained", "message"),
    [
        ("none", None, "must be one of 'zero', 'init', 'pretrained'"),
        ("pretrained", None, "'natural' need `pretrained_model`"),
        ("zero", "some/model", "the other values take none"),
    ],
)
def test_bad_reset_values_are_refused(reset_value, pretrained, message):
    model = tiny.vit()
    with pytest.raises(ValueError, match=message):
        reset_weights(model, selection_of(model), reset_value, pretrained_model=pretrained)


def test_the_default_value_leaves_no_visible_zeros_in_token_embeddings():
    for model in (tiny.vit(), tiny.resnet(), tiny.convnext()):
        assert default_reset_value(model) == "zero"
    for model in (tiny.bert(), tiny.gpt2(), heads.gpt2(), heads.HEADS["t5 generation"][0]()):
        assert default_reset_value(model) == "init"
