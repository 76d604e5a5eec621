# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Every rule against the one-example reference, in modules that use the op in the ways that broke other engines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_deepclean import accumulate_fisher_diagonal

from .. import tiny
from .test_accumulate import reference, worst_relative_difference


class Model(nn.Module):
    """An op under test between inputs and a nonlinear likelihood."""

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
    "learned_queries": (lambda m, x: m.b(m.a) + x, {"a": parameter(5, 4), "b": nn.Linear(4, 4)}, inputs(7, 5, 4)),
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
    "linear_after_the_batch_is_flattened": ["a.weight", "a.bias"],
    "same_padding": ["a.weight", "a.bias"],
    "transposed_convolution": ["a.weight", "a.bias"],
    "embedding_scaled_by_frequency": ["a.weight"],
    "parameters_among_themselves": ["a"],
    "indexed_table": ["a"],
    "learned_queries": ["a", "b.bias", "b.weight"],
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
