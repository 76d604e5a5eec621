# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_deepclean import reset_weights
from hf_deepclean.reset import pretrained
from hf_deepclean.reset.resetter import Resetter
from hf_deepclean.reset.sources import ResetSources
from hf_deepclean.reset.weights import read_weights
from hf_deepclean.runtime.clock import PhaseClock
from hf_deepclean.selection.weight_selection import draw_weights
from tests import tiny


@pytest.fixture
def model():
    return tiny.randomized(tiny.resnet(num_labels=10), torch.float32)


@pytest.fixture
def selection(model):
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return draw_weights(sizes, sum(sizes.values()) // 5, seed=0)


def everything_of(model):
    """Weights, buffers, gradients, training flags and random states."""
    tensors = tiny.parameters_and_buffers(model)
    tensors |= {f"{name}.grad": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return tensors, [module.training for module in model.modules()], states


def assert_equal(before, after):
    assert before[0].keys() == after[0].keys() and before[1:] == after[1:]
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())


@pytest.mark.parametrize("reset_value", ["zero", "init"])
def test_a_reset_that_is_undone_leaves_no_bit_changed(model, selection, reset_value):
    before = tiny.parameters_and_buffers(model)
    reset = Resetter(model, reset_value).reset(selection)
    assert 0 < reset.num_changed() <= selection.num_selected
    reset.guard.verify(model)
    reset.undo()
    assert reset.num_changed() == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())


def test_a_fresh_initialisation_follows_the_seed_alone(model, selection):
    values = []
    for seed in (0, 0, 1):
        reset = Resetter(model, "init", seed=seed).reset(selection)
        values.append(torch.cat(list(read_weights(model, selection).values())))
        reset.undo()
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_a_reset_that_is_tried_is_seen_by_the_evaluation_and_by_nothing_after_it(model, selection):
    model(**tiny.image_batch(dtype=torch.float32)).loss.backward()
    before = everything_of(model)

    def evaluate():
        model.train()
        model(**tiny.image_batch(dtype=torch.float32)).loss.backward()
        torch.rand(1), np.random.rand(), random.random()
        return float(sum(value.abs().sum() for value in read_weights(model, selection).values()))

    assert Resetter(model, "zero").try_reset(selection, evaluate) == 0.0
    assert_equal(before, everything_of(model))


def test_a_reset_that_is_tried_is_undone_after_an_error(model, selection):
    before = everything_of(model)
    with pytest.raises(KeyError, match="evaluation"):
        Resetter(model, "zero").try_reset(selection, lambda: {}["evaluation"])
    assert_equal(before, everything_of(model))


def test_weights_without_such_a_reset_value_are_not_tried(model, selection, caplog):
    before, resetter = everything_of(model), Resetter(model, "pretrained", model)
    assert resetter.try_reset(replace(selection, gamma=2.0), lambda: pytest.fail("evaluated")) is None
    assert "The weights with a ratio above 2 were not tried" in caplog.text
    assert "selected weights have already" in caplog.text
    assert_equal(before, everything_of(model))


def test_a_reset_that_fails_changes_nothing(model, selection):
    before, clock = everything_of(model), PhaseClock()
    with pytest.raises(ValueError, match="selected weights have already"):
        Resetter(model, "pretrained", model, clock=clock).reset(selection)
    assert_equal(before, everything_of(model))
    assert clock.seconds == {}


def test_only_a_reset_is_timed(model, selection):
    clock = PhaseClock()
    resetter = Resetter(model, "zero", clock=clock)
    resetter.try_reset(selection, lambda: None)
    assert clock.seconds == {}
    resetter.reset(selection)
    assert clock.seconds.keys() == {"reset"}


@pytest.mark.parametrize("reset_value", ["init", "pretrained"])
def test_trials_and_resets_build_or_load_what_they_read_once_and_warn_once(
    reset_value, model, selection, tmp_path, monkeypatch, caplog
):
    tiny.randomized(tiny.resnet(num_labels=7), torch.float32).save_pretrained(tmp_path)
    source = tmp_path if reset_value == "pretrained" else None
    expected = copy.deepcopy(model)
    reset_weights(expected, selection, reset_value, pretrained_model=source)
    caplog.clear()
    made = []

    def counted(name):
        make = getattr(pretrained, name)
        monkeypatch.setattr(pretrained, name, lambda *args: made.append(name) or make(*args))

    for name in ("fresh_model", "_load_pretrained"):
        counted(name)
    resetter = Resetter(model, reset_value, source, sources=ResetSources(num_resets=2))
    others = [draw_weights(selection.num_weights, number, number) for number in (500, 900)]
    for chosen in others:
        resetter.try_reset(chosen, lambda: None)
    reset = resetter.reset(selection)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), expected.parameters(), strict=True))
    reset.undo()
    # A resetter of the same run, for the control.
    replace(resetter, clock=PhaseClock()).reset(others[0]).undo()
    once = ["_load_pretrained", "fresh_model"] if reset_value == "pretrained" else ["fresh_model"]
    assert made == once
    assert caplog.text.count("classifier.1.weight") == (reset_value == "pretrained")
    # After the last reset nothing is kept.
    resetter.try_reset(selection, lambda: None)
    assert made == 2 * once
