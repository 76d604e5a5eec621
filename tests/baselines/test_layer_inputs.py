# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from hf_deepclean.baselines.layer_inputs import input_covariances, multiply_inputs, projectable_layers
from hf_deepclean.baselines.scoring import scored_batches
from tests import heads, tiny
from tests.baselines import forgetting


def covariances_of(model, data, **kwargs):
    layers = projectable_layers(model)
    return layers, input_covariances(model, scored_batches(model, data.batches("all", 5)), layers, **kwargs)


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet, tiny.gpt2])
def test_outputs_are_the_weights_times_inputs_whose_products_are_summed(make_model):
    """`W (sum x x^T) W^T` is the same sum over the outputs without their bias."""
    model = forgetting.seeded(make_model)
    data = forgetting.request(tiny.text_batch(14), 4) if make_model is tiny.gpt2 else forgetting.images()
    layers, covariances = covariances_of(model, data)
    sums, mask = {}, None

    def add(layer, args, output):
        bias = layer.bias if layer.bias is not None else 0
        output = output - (bias[:, None, None] if isinstance(layer, nn.Conv2d) and layer.bias is not None else bias)
        if isinstance(layer, nn.Conv2d):
            output = output.movedim(1, -1)
        if mask is not None and output.ndim == 3:
            output = output[mask.bool()]
        rows = output.detach().flatten(0, -2)
        sums[layer.weight] = sums.get(layer.weight, 0) + rows.T @ rows

    for layer in layers.values():
        layer.register_forward_hook(add)
    for batch in data.batches("all", 1):
        mask = batch.get("attention_mask")
        model(**{key: value for key, value in batch.items() if key != "labels"})
    assert covariances.keys() == sums.keys() == layers.keys()
    for weight, layer in layers.items():
        matrix = weight.detach().T if type(layer).__name__ == "Conv1D" else weight.detach().flatten(1)
        torch.testing.assert_close(matrix @ covariances[weight] @ matrix.T, sums[weight], rtol=1e-9, atol=1e-9)
        times = multiply_inputs(layer, weight.detach(), covariances[weight])
        times = times.T if type(layer).__name__ == "Conv1D" else times.flatten(1)
        torch.testing.assert_close(times, matrix @ covariances[weight])


def test_a_sample_of_inputs_is_limited_drawn_by_the_seed_and_made_of_them():
    model, data = forgetting.seeded(tiny.resnet), forgetting.images(size=20)
    _, whole = covariances_of(model, data)
    _, one = covariances_of(model, data, rows_per_example=3, seed=1)
    _, again = covariances_of(model, data, rows_per_example=3, seed=1)
    _, other = covariances_of(model, data, rows_per_example=3, seed=2)
    _, all_of_them = covariances_of(model, data, rows_per_example=1000)
    kernels = [weight for weight in one if weight.ndim == 4]
    for weight in kernels:
        assert torch.equal(one[weight], again[weight])
        assert torch.linalg.eigvalsh(whole[weight] - one[weight]).min() > -1e-9 * whole[weight].trace()
        torch.testing.assert_close(all_of_them[weight], whole[weight])
    first = kernels[0]
    assert not torch.equal(one[first], other[first])
    assert one[first].trace() < 0.5 * whole[first].trace()


def test_grouped_convolutions_and_frozen_weights_are_no_layers_to_project():
    model = forgetting.seeded(tiny.convnext)
    model.classifier.requires_grad_(False)
    layers = projectable_layers(model)
    assert model.classifier.weight not in layers
    assert all(not isinstance(layer, nn.Conv2d) or layer.groups == 1 for layer in layers.values())
    assert any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    with pytest.raises(ValueError, match="No linear layer or ungrouped convolution"):
        projectable_layers(only_norms(forgetting.seeded(heads.gpt2)))


def only_norms(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("ln_" in name)
    return model
