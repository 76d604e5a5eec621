# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
import torch

from hf_deepclean import WeightSelection, reset_weights
from hf_deepclean.reset import read_weights, write_weights

from . import tiny


def selection_of(model, share=0.3):
    generator = torch.Generator().manual_seed(5)
    indices = {}
    for name, parameter in model.named_parameters():
        chosen = (torch.rand(parameter.numel(), generator=generator) < share).nonzero().squeeze(1)
        if len(chosen):
            indices[name] = chosen
    return WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma", 1.0)


def outside(model, selection):
    tensors = tiny.parameters_and_buffers(model)
    for name, indices in selection.indices.items():
        tensors[name].view(-1)[indices] = 0
    return tensors


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


def test_pretrained_rewinds_to_the_checkpoint_and_leaves_its_files_alone(tmp_path):
    base = tiny.randomized(tiny.vit(), torch.float32)
    base.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = tiny.vit()
    selection = selection_of(model)
    reset_weights(model, selection, "pretrained", pretrained_model=tmp_path)
    assert all(torch.equal(read_weights(model, selection)[n], v) for n, v in read_weights(base, selection).items())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_pretrained_gives_a_new_head_a_fresh_initialisation_and_says_so(tmp_path, caplog):
    tiny.randomized(tiny.vit(num_labels=7), torch.float32).save_pretrained(tmp_path)
    model = tiny.randomized(tiny.vit(), torch.float32)
    selection = selection_of(model)
    with caplog.at_level(logging.WARNING):
        reset_weights(model, selection, "pretrained", pretrained_model=tmp_path, seed=7)
    assert "does not have classifier.weight in the same shape" in caplog.text
    torch.manual_seed(7)
    fresh = read_weights(tiny.vit(), selection)["classifier.weight"]
    assert torch.equal(read_weights(model, selection)["classifier.weight"], fresh)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    tiny.vit(hidden_size=24, intermediate_size=40).save_pretrained(tmp_path)
    model = tiny.vit()
    selection = WeightSelection({"classifier.weight": torch.tensor([1])}, {"classifier.weight": 64}, "gamma")
    with pytest.raises(ValueError, match="none of the 1 parameters .* was not fine-tuned from it"):
        reset_weights(model, selection, "pretrained", pretrained_model=tmp_path)


def test_writing_what_was_read_restores_every_bit_of_a_permuted_tensor():
    model = tiny.randomized(tiny.resnet(), torch.float32).to(memory_format=torch.channels_last)
    selection, before = selection_of(model), tiny.parameters_and_buffers(model)
    values = read_weights(model, selection)
    reset_weights(model, selection)
    write_weights(model, selection, values)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())


@pytest.mark.parametrize(
    ("reset_value", "pretrained", "message"),
    [
        ("none", None, "must be one of 'zero', 'init', 'pretrained'"),
        ("pretrained", None, "needs `pretrained_model`"),
        ("zero", "some/model", "the other values take none"),
    ],
)
def test_bad_reset_values_are_refused(reset_value, pretrained, message):
    model = tiny.vit()
    with pytest.raises(ValueError, match=message):
        reset_weights(model, selection_of(model), reset_value, pretrained_model=pretrained)
