# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_deepclean import WeightSelection, reset_weights
from hf_deepclean.models.adapters.parameters import adapter_parameters
from hf_deepclean.reset.values import default_reset_value
from hf_deepclean.reset.weights import read_weights
from tests.models.adapters.examples import (
    ADAPTERS,
    adapted,
    base_model,
    batch_for,
    bits,
    changed,
    everything,
    kind_of_adapter,
    logits,
    trained,
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_reset_of_the_whole_adapter_to_its_initial_values_gives_the_answers_of_the_base(name):
    kind, model = kind_of_adapter(name)
    base = logits(base_model(kind, torch.float64), kind)
    assert not torch.allclose(logits(model, kind), base, atol=1e-4)
    before, state, selection = bits(model), torch.get_rng_state(), everything(model)
    objects = dict(model.named_parameters())
    reset_weights(model, selection, "init", seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter is objects[key] for key, parameter in model.named_parameters())
    assert torch.allclose(logits(model, kind), base, atol=1e-6)
    assert changed(before, bits(model)) <= selection.indices.keys()

    first = read_weights(model, selection)
    reset_weights(model, selection, "init", seed=7)
    assert all(torch.equal(value, first[key]) for key, value in read_weights(model, selection).items())
    reset_weights(model, selection, "init", seed=8)
    drawn = [key for key in first if ".lora_A." in key or ".lora_embedding_B." in key]
    assert all(not torch.equal(read_weights(model, selection)[key], first[key]) for key in drawn)


def test_initial_values_are_drawn_like_those_of_a_new_adapter():
    for init, deviation in ((True, 16**-0.5 / 3**0.5), ("gaussian", 1 / 8)):
        model = adapted("llama", r=8, init_lora_weights=init)
        selection = everything(model)
        reset_weights(model, selection, "init")
        values = read_weights(model, selection)
        assert all(value.count_nonzero() == 0 for key, value in values.items() if ".lora_B." in key)
        drawn = torch.cat([value for key, value in values.items() if ".q_proj.lora_A." in key])
        assert drawn.std().item() == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize("reset_value", ["zero", "init"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_no_rank_is_dead_after_a_reset_of_the_whole_adapter(name, reset_value, caplog):
    kind, model = kind_of_adapter(name)
    for module in model.modules():
        if isinstance(module, peft.utils.other.ModulesToSaveWrapper):
            module.modules_to_save["default"].requires_grad_(False)
    selection = everything(model)
    selection = WeightSelection(
        {key: value for key, value in selection.indices.items() if "modules_to_save" not in key},
        selection.num_weights,
        "gamma",
    )
    with caplog.at_level(logging.WARNING):
        reset_weights(model, selection, reset_value)
    assert ("would never have a gradient again" in caplog.text) == (reset_value == "zero")
    assert len(caplog.records) <= 1
    model.zero_grad()
    model(**batch_for(kind)).loss.backward()
    gradients = {key: p.grad for key, p in adapter_parameters(model).items() if p.grad is not None}
    for key, gradient in gradients.items():
        if key.endswith(("lora_B.default.weight", "lora_embedding_A.default")):
            by_rank = gradient if ".lora_embedding_A." in key else gradient.transpose(0, 1)
            assert by_rank.flatten(1).any(dim=1).all(), key


def test_zero_is_zero_where_the_rank_stays_alive_and_for_magnitudes_the_norm_of_the_base():
    model = adapted("llama", torch.float64, use_dora=True)
    selection = everything(model)
    half = {key: indices[::2] for key, indices in selection.indices.items()}
    before = bits(model)
    reset_weights(model, WeightSelection(half, selection.num_weights, "gamma"), "zero")
    for key, parameter in adapter_parameters(model).items():
        if ".lora_magnitude_vector." in key:
            base = model.get_submodule(key.split(".lora_magnitude_vector.")[0]).base_layer.weight
            assert torch.allclose(parameter[::2], base.norm(dim=1)[::2])
        else:
            assert parameter.flatten()[::2].count_nonzero() == 0
        assert torch.equal(parameter.flatten()[1::2], before[key].flatten()[1::2])


def test_a_grouped_convolution_has_no_dead_rank_either():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(4, 6, 3, groups=2)

        def forward(self, pixel_values):
            return self.convolution(pixel_values)

    torch.manual_seed(0)
    model = trained(get_peft_model(Net(), LoraConfig(r=4, target_modules=["convolution"])))
    first, second = adapter_parameters(model).values()
    assert (first.shape, second.shape) == ((4, 4, 3, 3), (6, 2, 1, 1))
    # Rank 3 is the second one of the second group: its outputs are the last three.
    row = torch.arange(first.numel()).view(first.shape)[3].flatten()
    column = torch.arange(second.numel()).view(second.shape)[3:, 1].flatten()
    names = list(adapter_parameters(model))
    indices = {names[0]: row, names[1]: column}
    reset_weights(model, WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma"))
    assert first[3].count_nonzero() == first[3].numel()
    assert second[3:, 1].count_nonzero() == 0
    indices = {names[0]: row, names[1]: column[:-1]}
    reset_weights(model, WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma"))
    assert first[3].count_nonzero() == first[3].numel() or second[3:, 1].any()


def test_weights_that_are_not_the_active_adapters_are_not_reset():
    model = adapted()
    name = "base_model.model.bert.pooler.dense.weight"
    with pytest.raises(ValueError, match=r"1 of 1 parameters.*pooler"):
        reset_weights(model, WeightSelection({name: torch.tensor([1])}, {name: 256}, "gamma"))


def test_the_default_value_is_what_the_adapter_had_before_training():
    assert default_reset_value(adapted("bert")) == default_reset_value(adapted("llama")) == "init"
