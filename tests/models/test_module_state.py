# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hf_deepclean.models.contexts import (
    evaluation_mode,
    freeze_running_statistics,
    restoring,
    restoring_unsaved_buffers,
)
from hf_deepclean.models.module_state import ModuleState
from tests import heads


class Writing(nn.Module):
    """A layer whose forward pass writes a saved buffer, replaces another, makes a third, and notes a number."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("table", torch.ones(2), persistent=False)
        self.longest = 0

    def forward(self, x):
        self.calls += 1
        self.register_buffer("table", torch.full((len(x),), float("nan")), persistent=False)
        self.register_buffer("mask", torch.ones(1), persistent=False)
        self.longest, self.shape = max(self.longest, len(x)), "made by the forward pass"
        return x * self.weight


def rotary(kind):
    """A causal model whose rotary embeddings depend on the lengths that it saw."""
    scaling = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
    if kind == "longrope":
        scaling |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(**heads.LLAMA | {"max_position_embeddings": 8}, rope_parameters=scaling)
    ).eval()


def held(model):
    """Everything that the modules hold, by name: the tensors themselves, and their values."""
    attributes = {
        (prefix, name): value
        for prefix, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, (nn.Module, dict))
    }
    return attributes, dict(model.named_buffers()), copy.deepcopy(dict(model.named_buffers()))


def assert_as_before(model, before):
    attributes, buffers, values = before
    now = held(model)
    assert now[0].keys() == attributes.keys() and now[1].keys() == buffers.keys()
    assert all(now[0][name] is value for name, value in attributes.items())
    assert all(now[1][name] is buffer for name, buffer in buffers.items())
    assert all(torch.equal(now[1][name], value) for name, value in values.items())


def test_every_buffer_that_a_forward_pass_writes_is_named_with_whether_it_is_saved():
    model = nn.Sequential(Writing(), nn.BatchNorm1d(1))
    state = ModuleState(model, whole=True)
    assert not list(state.changed_buffers())
    model.eval()(torch.ones(3, 1))
    assert dict(state.changed_buffers()) == {"0.calls": True, "0.table": False, "0.mask": False}
    model.train()(torch.ones(3, 1))
    statistics = {f"1.{name}": True for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert dict(state.changed_buffers()) == {"0.calls": True, "0.table": False, "0.mask": False} | statistics


def test_the_whole_state_is_put_back_with_tensors_flags_and_what_modules_note():
    model = nn.Sequential(Writing(), nn.BatchNorm1d(1))
    before = held(model)
    with restoring(model):
        model.train()(torch.ones(3, 1))
    assert_as_before(model, before)
    assert "mask" not in model[0]._non_persistent_buffers_set


@pytest.mark.parametrize("mode", [evaluation_mode, restoring_unsaved_buffers])
def test_buffers_that_are_not_saved_are_put_back_after_a_phase_and_saved_ones_stay(mode):
    model = Writing()
    table, longest = model.table, model.longest
    with mode(model):
        model(torch.ones(3))
    assert model.table is table and torch.equal(table, torch.ones(2)) and model.longest == longest
    assert not hasattr(model, "mask") and model.calls == 1


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_phase_with_long_rows_leaves_no_trace_in_the_next_phase(kind):
    model = rotary(kind)
    short, long = torch.arange(3, 9)[None], torch.arange(3, 15)[None]
    before = held(model)

    def logits(rows):
        with evaluation_mode(model), torch.no_grad():
            return model(rows).logits

    alone, of_long = logits(short), logits(long)
    assert_as_before(model, before)
    assert torch.equal(logits(short), alone) and torch.equal(logits(long), of_long)


@pytest.mark.parametrize("normalise", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_normalisation_keeps_its_vectors_in_a_training_step(normalise):
    model = nn.Sequential(normalise(nn.Linear(3, 4)), nn.Dropout(0.5)).train()
    state = ModuleState(model, whole=True)
    freeze_running_statistics(model)
    model(torch.ones(2, 3)).sum().backward()
    assert not list(state.changed_buffers()) and model[1].training
    model.train()(torch.ones(2, 3))
    assert list(state.changed_buffers())
