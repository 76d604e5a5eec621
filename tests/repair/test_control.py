# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.repair.control import run_control
from hf_deepclean.reset.resetter import Resetter
from hf_deepclean.reset.weights import read_weights
from tests import tiny
from tests.repair.repairs import reset_some, resnet, trainer_for


@pytest.fixture
def cleaned(tmp_path):
    """The trainer of a repair that is done."""
    trainer = trainer_for(tmp_path / "a", reset_some(resnet()), max_steps=2)
    trainer.train()
    return trainer


def control_of(trainer, evaluate):
    run_control(trainer, Resetter(trainer.model, "zero"), trainer.reset, evaluate)


def test_after_the_control_the_trainer_and_the_cleaned_model_are_those_of_before(cleaned):
    names = ("optimizer", "lr_scheduler", "state", "control", "reset", "plan", "args", "model", "model_wrapped")
    before = {name: getattr(cleaned, name) for name in names}
    callbacks = list(cleaned.callback_handler.callbacks)
    model = tiny.parameters_and_buffers(cleaned.model)
    control_of(cleaned, lambda stage: None)
    assert all(getattr(cleaned, name) is value for name, value in before.items())
    assert len(callbacks) == len(cleaned.callback_handler.callbacks)
    assert all(one is other for one, other in zip(callbacks, cleaned.callback_handler.callbacks, strict=True))
    after = tiny.parameters_and_buffers(cleaned.model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in model.items())


def test_the_control_resets_and_repairs_as_many_random_weights_of_the_model_before(cleaned):
    selection, original, stages = cleaned.reset.selection, dict(resnet().named_parameters()), {}
    control_of(cleaned, lambda stage: stages.setdefault(stage, tiny.parameters_and_buffers(cleaned.model)))
    assert list(stages) == ["control_after_reset", "control_after_repair"]
    reset, repaired = (
        {(name, index) for name, value in original.items() for index in moved_entries(value, tensors[name])}
        for tensors in stages.values()
    )
    chosen = {(name, index) for name, indices in selection.indices.items() for index in indices.tolist()}
    assert len(reset) == selection.num_selected and reset != chosen
    assert repaired <= reset
    assert any(
        not torch.equal(tensor, stages["control_after_repair"][name])
        for name, tensor in stages["control_after_reset"].items()
    )


def moved_entries(before, after):
    return (before != after).flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("stage", ["control_after_reset", "control_after_repair"])
def test_a_control_that_fails_leaves_the_cleaned_model(cleaned, stage):
    values = read_weights(cleaned.model, cleaned.reset.selection)

    def fail(name):
        if name == stage:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        control_of(cleaned, fail)
    after = read_weights(cleaned.model, cleaned.reset.selection)
    assert all(torch.equal(value, after[name]) for name, value in values.items())
    cleaned.reset.guard.verify(cleaned.model)
