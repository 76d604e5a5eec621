# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares every rule with the one-example reference, in modules that use the op in ways that broke other engines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_deepclean import accumulate_fisher_diagonal
from tests import tiny
from tests.fisher.test_accumulate import reference, worst_relative_difference


class Model(nn.Module):
    """Applies an op under test to the inputs, followed by a nonlinear function."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return (self.function(self, x).flatten(1).sin(),)


def likelihood(outputs, labels):
    return (outputs[0] * torch.linspace(-1, 2, outputs[0].shape[1], dtype=outputs[0].dtype)).sum(dim=1) * labels


def parameter(*shape):
    return nn.Parameter(torch.randn(shape))


def inputs(*shape):
    return torch.randn(shape, dtype=torch.float64)


def positions(module, x):
    return module.position(torch.arange(x.shape[1])[None]) + module.linear(x)


def tied(module, x):
    return F.linear(module.embedding(x).tanh(), module.embedding.weight)


def inside_out(module, x):
    return F.linear(input=x.relu(), weight=module.linear.weight, bias=module.linear.bias)


def in_time_order(module, x):
    """Tokens first, as in XLNet and fairseq models, and flattened so that the examples alternate."""
    y = module.a(x.transpose(0, 1))
    z = module.b(y.flatten(0, 1)).unflatten(0, y.shape[:2])
    return (z + module.c[:, None]).transpose(0, 1)


def windows(module, x):
    """Windows of an image on the example axis, with a bias from a table, as in Swin."""
    rows = x.unflatten(1, (3, 2)).flatten(0, 1)
    scores = module.a(rows) @ rows.transpose(1, 2)
    bias = module.table[torch.tensor([[0, 1], [2, 0]]).flatten()].view(2, 2)
    return (scores + bias.unsqueeze(0)).unflatten(0, (len(x), 3))


def routed(module, x):
    """A mixture of experts as transformers writes it: every expert sees the rows that chose it."""
    rows = x.flatten(0, 1)
    weights, chosen = module.router(rows).softmax(dim=-1).topk(2)
    mixed = torch.zeros_like(rows)
    mask = F.one_hot(chosen, 3).permute(2, 1, 0)
    for expert in (mask.sum(dim=(-1, -2)) > 0).nonzero():
        position, token = torch.where(mask[expert[0]])
        hidden = F.linear(rows[token], module.up[expert[0]]) + module.bias[expert[0]]
        hidden = F.silu(module.norm(hidden)) @ module.down[expert[0]] * weights[token, position, None]
        mixed.index_add_(0, token, hidden)
    return mixed.unflatten(0, x.shape[:2])


def sorted_by_expert(module, x):
    """Rows sorted by expert and split by the number of rows per expert."""
    rows = x.flatten(0, 1)
    chosen = module.router(rows).argmax(dim=-1)
    order = chosen.argsort(stable=True)
    parts = rows[order].split(chosen.bincount(minlength=3).tolist())
    mixed = torch.cat([F.linear(part, module.up[expert]) for expert, part in enumerate(parts)])
    return torch.zeros_like(mixed).index_add(0, order, mixed).unflatten(0, x.shape[:2])


def written_rows(module, x):
    x = x.clone()
    x[x[..., 0] > 0] = module.a
    return x


def learned_queries(module, x):
    queries = module.norm(module.b(module.a)).repeat(len(x), 1, 1)
    return F.scaled_dot_product_attention(queries, x, x)


def relative_bias(module, x):
    """A table of [T, T] biases that several layers add, one layer with a mask, as in T5."""
    bias = module.table(torch.arange(x.shape[1])[:, None].sub(torch.arange(x.shape[1])).abs()).permute(2, 0, 1)[None]
    heads = x.unflatten(2, (2, 2)).transpose(1, 2)
    masked = torch.where((x[:, None, None, :, 0] < 1.5), bias, -1e9)
    heads = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=masked)
    return F.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias.contiguous())


def state_space(module, x):
    """Parameters used outside their own modules, and through functions of themselves, as in Mamba."""
    x = F.conv1d(x.mT, module.conv.weight.squeeze(1)[:, None], groups=4, padding=1).mT
    decay = torch.exp(-module.a.double().exp()[None, None] * F.softplus(x)[..., None])
    return (decay.cumsum(1) * x[..., None]).sum(-1) + (module.step.weight @ x.mT).mT * (1 + module.d)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3)

    def forward(self, x):
        return F.relu(self.convolution(x), inplace=True)


IMAGE = (7, 4, 9, 8)
CASES = {
    "linear_without_tokens": (lambda m, x: m.a(x), {"a": nn.Linear(4, 3)}, inputs(7, 4)),
    "linear_with_tokens": (lambda m, x: m.a(x), {"a": nn.Linear(4, 3)}, inputs(7, 5, 4)),
    "linear_with_two_token_axes": (lambda m, x: m.a(x), {"a": nn.Linear(4, 3)}, inputs(7, 2, 3, 4)),
    "linear_used_twice": (lambda m, x: m.a(m.a(x).tanh()), {"a": nn.Linear(4, 4)}, inputs(7, 5, 4)),
    "linear_by_keyword": (inside_out, {"linear": nn.Linear(4, 3)}, inputs(7, 5, 4)),
    "linear_with_an_unused_output": (lambda m, x: (m.a(x), m.b(x))[0], {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)},
                                     inputs(7, 4)),
    "linear_after_the_batch_is_flattened": (lambda m, x: m.a(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
                                            {"a": nn.Linear(4, 3)}, inputs(7, 5, 4)),
    "convolution": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 6, 3, stride=2, padding=1)}, inputs(*IMAGE)),
    "grouped_dilated_convolution": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 6, (3, 2), dilation=2, groups=2)},
                                    inputs(*IMAGE)),
    "depthwise_convolution": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 4, 3, padding=1, groups=4)}, inputs(*IMAGE)),
    "same_padding": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 3, 3, padding="same")}, inputs(*IMAGE)),
    "convolution_1d": (lambda m, x: m.a(x), {"a": nn.Conv1d(4, 3, 3)}, inputs(7, 4, 9)),
    "convolution_3d": (lambda m, x: m.a(x), {"a": nn.Conv3d(2, 3, 2)}, inputs(7, 2, 4, 4, 4)),
    "transposed_convolution": (lambda m, x: m.a(x), {"a": nn.ConvTranspose2d(4, 3, 2)}, inputs(*IMAGE)),
    "convolution_used_twice": (lambda m, x: m.a(m.a(x).tanh()), {"a": nn.Conv2d(4, 4, 3)}, inputs(*IMAGE)),
    "in_place_activation": (lambda m, x: m.a(x), {"a": InPlace()}, inputs(7, 2, 6, 6)),
    "embedding_with_repeated_tokens": (lambda m, x: m.a(x), {"a": nn.Embedding(5, 3)}, torch.randint(0, 5, (7, 9))),
    "embedding_with_padding": (lambda m, x: m.a(x), {"a": nn.Embedding(5, 3, padding_idx=1)},
                               torch.randint(0, 5, (7, 9))),
    "embedding_used_twice": (lambda m, x: m.a(x) * m.a(x.flip(1)), {"a": nn.Embedding(5, 3)},
                             torch.randint(0, 5, (7, 9))),
    "embedding_of_positions": (positions, {"position": nn.Embedding(9, 4), "linear": nn.Linear(4, 4)},
                               inputs(7, 7, 4)),
    "embedding_tied_to_the_head": (tied, {"embedding": nn.Embedding(5, 3)}, torch.randint(0, 5, (7, 9))),
    "embedding_scaled_by_frequency": (lambda m, x: m.a(x), {"a": nn.Embedding(5, 3, scale_grad_by_freq=True)},
                                      torch.randint(0, 5, (1, 9))),
    "layer_norm": (lambda m, x: m.a(x), {"a": nn.LayerNorm(4)}, inputs(7, 5, 4)),
    "layer_norm_over_two_axes": (lambda m, x: m.a(x), {"a": nn.LayerNorm((5, 4))}, inputs(7, 5, 4)),
    "rms_norm": (lambda m, x: m.a(x), {"a": nn.RMSNorm(4)}, inputs(7, 5, 4)),
    "group_norm": (lambda m, x: m.a(x), {"a": nn.GroupNorm(2, 4)}, inputs(*IMAGE)),
    "batch_norm": (lambda m, x: m.a(x), {"a": nn.BatchNorm2d(4)}, inputs(*IMAGE)),
    "scale_vector": (lambda m, x: m.a * x, {"a": parameter(4)}, inputs(7, 5, 4)),
    "scale_on_the_right": (lambda m, x: x * m.a, {"a": parameter(1, 5, 4)}, inputs(7, 5, 4)),
    "scalar": (lambda m, x: x * m.a, {"a": parameter()}, inputs(7, 5, 4)),
    "quotient_and_difference": (lambda m, x: (m.b - x / m.a), {"a": parameter(4), "b": parameter(4)}, inputs(7, 4)),
    "scale_of_the_example_axis_length": (lambda m, x: m.a * x, {"a": parameter(7)}, inputs(7, 5, 7)),
    "class_token": (lambda m, x: torch.cat([m.a.expand(len(x), -1, -1), x], 1).cumsum(1), {"a": parameter(1, 1, 4)},
                    inputs(7, 5, 4)),
    "class_token_over_positions": (lambda m, x: m.a.expand(len(x), 5, 4) * x, {"a": parameter(1, 1, 4)},
                                   inputs(7, 5, 4)),
    "learned_offsets": (lambda m, x: m.b(m.a) + x, {"a": parameter(5, 4), "b": nn.Linear(4, 4)}, inputs(7, 5, 4)),
    "learned_queries": (learned_queries, {"a": parameter(3, 4), "b": nn.Linear(4, 4), "norm": nn.LayerNorm(4)},
                        inputs(7, 5, 4)),
    "linear_in_time_order": (in_time_order, {"a": nn.Linear(4, 4), "b": nn.Linear(4, 3), "c": parameter(6, 3)},
                             inputs(7, 6, 4)),
    "linear_of_windows": (windows, {"a": nn.Linear(4, 4), "table": parameter(3)}, inputs(7, 6, 4)),
    "linear_of_patches": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 3, (3, 2), stride=(3, 2))}, inputs(*IMAGE)),
    "linear_of_pixels": (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 3, 1, stride=2)}, inputs(*IMAGE)),
    "convolution_of_frames": (lambda m, x: m.a(x.flatten(0, 1)).unflatten(0, x.shape[:2]), {"a": nn.Conv2d(2, 3, 2)},
                              inputs(7, 3, 2, 4, 4)),
    "normalised_weight": (lambda m, x: m.a(x), {"a": nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 3, 3))},
                          inputs(7, 4, 9)),
    "transposed_weight": (lambda m, x: x @ m.a.T + x @ m.a.T.contiguous(), {"a": parameter(3, 4)}, inputs(7, 5, 4)),
    "weight_on_the_left": (lambda m, x: m.a @ x, {"a": parameter(3, 5)}, inputs(7, 5, 4)),
    "biased_product": (lambda m, x: torch.addmm(m.b, x.flatten(0, 1), m.a).unflatten(0, x.shape[:2]),
                       {"a": parameter(4, 3), "b": parameter(3)}, inputs(7, 5, 4)),
    "parts_of_one_weight": (lambda m, x: F.linear(x, m.a[:3]) * F.linear(x, m.a[3:]) + m.b.chunk(2)[1],
                            {"a": parameter(6, 4), "b": parameter(6)}, inputs(7, 5, 4)),
    "overlapping_parts_of_one_weight": (lambda m, x: F.linear(x, m.a[:4]) * F.linear(x, m.a[2:]),
                                        {"a": parameter(6, 4)}, inputs(7, 5, 4)),
    "einsum": (lambda m, x: torch.einsum("btd,dhe->bhte", x, m.a), {"a": parameter(4, 2, 3)}, inputs(7, 5, 4)),
    "slope_per_channel": (lambda m, x: m.a(x), {"a": nn.PReLU(4)}, inputs(*IMAGE)),
    "attention_of_torch": (lambda m, x: m.a(x, x, x)[0], {"a": nn.MultiheadAttention(4, 2, batch_first=True)},
                           inputs(7, 5, 4)),
    "attention_of_torch_in_time_order": (lambda m, x: m.a(x.mT, x.mT, x.mT)[0].mT.cumsum(1),
                                         {"a": nn.MultiheadAttention(5, 1, batch_first=True)}, inputs(7, 5, 4)),
    "mixture_of_experts": (routed, {"router": nn.Linear(4, 3), "up": parameter(3, 6, 4), "bias": parameter(3, 6),
                                    "norm": nn.LayerNorm(6), "down": parameter(3, 6, 4)}, inputs(7, 6, 4)),
    "experts_in_sorted_order": (sorted_by_expert, {"router": nn.Linear(4, 3), "up": parameter(3, 4, 4)},
                                inputs(7, 6, 4)),
    "relative_bias": (relative_bias, {"table": nn.Embedding(6, 2)}, inputs(7, 6, 4)),
    "state_space": (state_space, {"conv": nn.Conv1d(4, 4, 3, groups=4), "a": parameter(4, 3),
                                  "step": nn.Linear(4, 4), "d": parameter(4)}, inputs(7, 6, 4)),
    "recurrent": (lambda m, x: m.a(x)[0], {"a": nn.GRU(4, 3, batch_first=True)}, inputs(7, 5, 4)),
    "written_rows": (written_rows, {"a": parameter(4)}, inputs(7, 5, 4)),
    "parameters_among_themselves": (lambda m, x: x * (-m.a.exp()), {"a": parameter(4)}, inputs(7, 5, 4)),
    "indexed_table": (lambda m, x: x + m.a[torch.arange(5) % 3], {"a": parameter(3, 4)}, inputs(7, 5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name):
    function, modules, x = CASES[name]
    torch.manual_seed(0)
    model = Model(function, **modules).double().eval()
    batch = {"x": x, "labels": torch.rand(len(x), dtype=torch.float64) + 0.5}
    expected = reference(model, batch, log_likelihood_func=likelihood)
    for batch_size in (1, 2, 7):
        fisher = accumulate_fisher_diagonal(
            model, tiny.in_batches(batch, batch_size), log_likelihood_func=likelihood, self_check=False
        )
        assert worst_relative_difference(fisher.sums, expected) <= 1e-9


FALLBACK = {
    "recurrent": ["a.bias_hh_l0", "a.bias_ih_l0", "a.weight_hh_l0", "a.weight_ih_l0"],
    "written_rows": ["a"],
}


@pytest.mark.parametrize("name", CASES)
def test_the_fallback_serves_exactly_what_has_no_rule(name):
    function, modules, x = CASES[name]
    model = Model(function, **modules).double().eval()
    fisher = accumulate_fisher_diagonal(
        model, [{"x": x, "labels": torch.ones(len(x))}], log_likelihood_func=likelihood, self_check=False
    )
    assert sorted(fisher.fallback_parameters) == sorted(FALLBACK.get(name, []))


def test_an_unused_parameter_has_a_fisher_of_zero():
    model = Model(lambda m, x: m.a(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3)).double()
    batch = {"x": inputs(5, 4), "labels": torch.ones(5)}
    fisher = accumulate_fisher_diagonal(model, [batch], log_likelihood_func=likelihood)
    assert fisher.sums["b.weight"].count_nonzero() == 0
    assert fisher.sums["a.weight"].count_nonzero() == 12
