# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_deepclean import quantized
from tests import heads, tiny


def row_by_row(rows, num_bits, group_size):
    """The same rounding of a matrix of outputs by inputs, one group at a time."""
    largest, result = 2 ** (num_bits - 1) - 1, rows.clone()
    for row in result:
        for start in range(0, len(row), group_size or len(row)):
            group = row[start : start + (group_size or len(row))]
            scale = group.abs().max().item() / largest
            if scale:
                group.copy_(group.new_tensor([round(value / scale) * scale for value in group.tolist()]))
    return result


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("group_size", [3, 128, None])
def test_every_kind_of_layer_is_rounded_in_groups_of_the_inputs_of_an_output(num_bits, group_size):
    torch.manual_seed(0)
    layers = {
        nn.Linear(7, 5): lambda weight: weight,
        Conv1D(5, 7): lambda weight: weight.t(),
        nn.Conv2d(4, 6, 3, groups=2): lambda weight: weight.flatten(1),
        nn.Conv1d(4, 6, 3): lambda weight: weight.flatten(1),
        nn.ConvTranspose1d(4, 6, 3): lambda weight: weight.transpose(0, 1).flatten(1),
        # The first two inputs lead to the first three outputs, the others to the others.
        nn.ConvTranspose2d(4, 6, 3, groups=2): lambda weight: torch.cat(
            [half.transpose(0, 1).flatten(1) for half in weight.split(2)]
        ),
    }
    for layer, by_output in layers.items():
        layer.double()
        expected = row_by_row(by_output(layer.weight.detach()), num_bits, group_size)
        with quantized(layer, num_bits, group_size) as names:
            assert torch.allclose(by_output(layer.weight), expected, rtol=0, atol=1e-12), layer
        assert names == ["weight"]


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet, tiny.albert, tiny.gpt2, heads.gpt2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_matrices_of_linear_and_convolutional_layers_change_and_all_come_back_bit_for_bit(make_model, dtype):
    model = tiny.randomized(make_model(), dtype)
    before, places = tiny.parameters_and_buffers(model), {n: p.data_ptr() for n, p in model.named_parameters()}
    with quantized(model, 4, 8) as names:
        inside = tiny.parameters_and_buffers(model)
        assert {name for name in before if not torch.equal(inside[name], before[name])} == set(names)
    for name in names:
        assert inside[name].dtype == dtype
        assert before[name].ndim >= 2
        assert "embeddings.word" not in name
        assert "wte" not in name
    after = tiny.parameters_and_buffers(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert places == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def test_a_group_takes_on_at_most_15_values_of_4_bits_and_255_of_8_and_errors_are_at_most_half_a_step():
    weight = nn.Linear(2000, 3)
    original = weight.weight.detach().clone()
    for num_bits, levels in ((4, 15), (8, 255)):
        with quantized(weight, num_bits, None):
            for row, exact in zip(weight.weight.detach(), original, strict=True):
                assert levels // 2 < len(row.unique()) <= levels
                assert (row - exact).abs().max() <= 1.0001 * exact.abs().max() / (levels - 1)


def test_rounding_twice_is_rounding_once_and_undoes_changes_of_less_than_half_a_step():
    layer = nn.Linear(64, 8).double()
    with quantized(layer, 4, None):
        once = layer.weight.detach().clone()
        with quantized(layer, 4, None):
            assert torch.allclose(layer.weight, once, rtol=0, atol=1e-15)
        assert torch.equal(layer.weight, once)
    largest = once.abs().amax(dim=1, keepdim=True)
    hidden = once + torch.where(once.abs() < largest, 0.45 * largest / 7, 0.0)
    with torch.no_grad():
        layer.weight.copy_(hidden)
    with quantized(layer, 4, None):
        assert torch.allclose(layer.weight, once, rtol=0, atol=1e-15)
    with quantized(layer, 8, None):
        assert torch.allclose(layer.weight, hidden, rtol=0, atol=0.5 * largest.max().item() / 127)
    assert torch.equal(layer.weight, hidden)


def test_an_error_inside_leaves_the_model_as_it_was():
    model = tiny.randomized(tiny.vit(), torch.float32)
    before = tiny.parameters_and_buffers(model)
    with pytest.raises(KeyError), quantized(model, 8):
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())


def test_a_tied_output_layer_stays_as_the_embedding_and_dead_rows_stay_zero():
    model = heads.gpt2()
    assert model.lm_head.weight is model.transformer.wte.weight
    with quantized(model, 4) as names:
        assert not any("lm_head" in name or "wte" in name for name in names)
    layer = nn.Linear(4, 2)
    nn.init.zeros_(layer.weight)
    with quantized(layer, 4):
        assert layer.weight.tolist() == [[0] * 4] * 2


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(2, 2), {"num_bits": 2}, "4 or 8 bits"),
        (nn.Linear(2, 2), {"num_bits": 4, "group_size": 0}, "at least one input"),
        (nn.LayerNorm(3), {"num_bits": 4}, "no linear or convolutional layer"),
    ],
)
def test_what_cannot_be_rounded_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message), quantized(model, **options):
        pass


def test_a_model_that_is_quantised_already_is_refused():
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="quantised already"), quantized(model, 4):
        pass
