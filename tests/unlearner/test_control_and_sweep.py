# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherDiagonal, FisherUnlearner, UnlearningReport, select_random_weights
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.selection.sweep import GammaTrial, try_gamma
from tests import tiny
from tests.unlearner.runs import config, fishers, resnet, splits, unlearner_for, vit


def test_the_control_resets_as_many_weights_and_leaves_the_cleaned_model_in_place(tmp_path):
    plain, with_control = vit(), vit()
    unlearner_for(tmp_path / "a", plain).unlearn()
    unlearner = unlearner_for(tmp_path / "b", with_control, random_mask_control=True)
    report = unlearner.unlearn()
    assert list(report.stages)[-2:] == ["control_after_reset", "control_after_repair"]
    assert report.stages["control_after_repair"] != report.stages["after_repair"]
    assert all(torch.equal(plain.state_dict()[n], value) for n, value in with_control.state_dict().items())
    assert unlearner.selection.rule == "reset_fraction"
    assert "control" in report.seconds


def test_a_control_that_fails_leaves_the_model_as_it_was_and_the_repair_on_disk(tmp_path, monkeypatch):
    plain, model = vit(), vit()
    before = tiny.parameters_and_buffers(model)
    unlearner_for(tmp_path / "a", plain).unlearn()
    unlearner = unlearner_for(tmp_path / "b", model, random_mask_control=True)
    train, rules = RepairTrainer.train, []

    def interrupted(trainer, *args, **kwargs):
        output = train(trainer, *args, **kwargs)
        if trainer.reset.selection.rule == "random":
            raise KeyboardInterrupt
        return output

    monkeypatch.setattr(RepairTrainer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unlearner.unlearn()
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())

    def noted(trainer, *args):
        rules.append(trainer.reset.selection.rule)
        return train(trainer, *args)

    monkeypatch.setattr(RepairTrainer, "train", noted)
    unlearner.unlearn(resume_from_checkpoint=True)
    assert rules == ["random"]
    assert all(torch.equal(plain.state_dict()[n], value) for n, value in model.state_dict().items())


def test_the_control_equals_a_run_with_a_random_selection(tmp_path):
    report = unlearner_for(tmp_path / "a", random_mask_control=True).unlearn()
    model = vit()
    unlearner = unlearner_for(tmp_path / "b", model)
    forget, retain = fishers(unlearner)
    unlearner.reset_weights(select_random_weights(unlearner.select_weights(forget, retain), unlearner.args.seed))
    unlearner.train()
    assert unlearner.evaluate_unlearning() == report.stages["control_after_repair"]


def test_a_sweep_tells_what_other_thresholds_do_and_changes_nothing_else(tmp_path):
    data = splits(reference_model=vit())
    plain, model, rule = vit(), vit(), {"gamma": 1.5, "reset_fraction": None}
    expected = unlearner_for(tmp_path / "a", plain, data, **rule).unlearn()
    report = unlearner_for(tmp_path / "b", model, data, gamma_sweep=[0.5, 1.5, 1e30], **rule).unlearn()
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in model.state_dict().items())
    assert report.stages == expected.stages
    first, second, third = report.gamma_trials
    assert first.num_selected > second.num_selected == report.selection.num_selected
    assert second == GammaTrial(1.5, report.selection.num_selected, report.stages["after_reset"])
    assert first.result != second.result
    assert first.result.divergence_to_reference is not None
    assert third == GammaTrial(1e30, 0, None)
    assert set(report.seconds) - set(expected.seconds) == {"gamma sweep"}
    assert UnlearningReport.load(tmp_path / "b" / "report.json") == report


@pytest.mark.parametrize("make_model", [vit, resnet])
def test_a_trial_leaves_weights_buffers_flags_and_random_states_as_they_were(tmp_path, make_model):
    model = make_model().train()
    unlearner = unlearner_for(tmp_path / "a", model, reset_value="init")
    forget, retain = fishers(unlearner)
    tensors, state, seen = tiny.parameters_and_buffers(model), torch.get_rng_state(), []
    try_reset = unlearner._phases.make_resetter().try_reset

    def noisy():
        torch.rand(3)
        seen.append(tiny.parameters_and_buffers(model))
        return unlearner.evaluate_unlearning()

    trial = try_gamma(1.0, forget, retain, noisy, try_reset)
    num_changed = sum(int((seen[0][name] != value).sum()) for name, value in tensors.items())
    assert 0 < num_changed <= trial.num_selected
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert unlearner.selection is None

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        try_gamma(1.0, forget, retain, interrupted, try_reset)
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())


def test_a_sweep_that_is_interrupted_goes_on_with_the_next_trial(tmp_path, monkeypatch):
    arguments = {"gamma_sweep": [0.5, 1.0, 2.0], "num_train_epochs": 1}
    whole = unlearner_for(tmp_path / "whole", **arguments).unlearn()
    tried = []

    def stop_at_the_third(gamma, *args, **kwargs):
        if gamma == 2.0:
            raise KeyboardInterrupt
        return try_gamma(gamma, *args, **kwargs)

    def noted(gamma, *args, **kwargs):
        tried.append(gamma)
        return try_gamma(gamma, *args, **kwargs)

    monkeypatch.setattr("hf_deepclean.phases.try_gamma", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        unlearner_for(tmp_path / "parts", **arguments).unlearn()
    monkeypatch.setattr("hf_deepclean.phases.try_gamma", noted)
    report = unlearner_for(tmp_path / "parts", **arguments).unlearn(resume_from_checkpoint=True)
    assert tried == [2.0]
    assert [trial.gamma for trial in report.gamma_trials] == [0.5, 1.0, 2.0]
    first, second = (one.to_dict() | {"seconds": {}} for one in (whole, report))
    assert first == second


def test_a_trial_that_has_nothing_to_be_rewound_to_is_left_out(tmp_path, caplog):
    tiny.vit(num_labels=4).save_pretrained(tmp_path / "base")
    arguments = {"reset_value": "pretrained", "pretrained_model": str(tmp_path / "base")}
    model = vit()
    unlearner = unlearner_for(tmp_path / "a", model, **arguments)
    tensors = tiny.parameters_and_buffers(model)
    retain = {name: torch.ones(parameter.shape) for name, parameter in model.named_parameters()}
    forget = {name: (5.0 if name.startswith("classifier") else 0.5) * value for name, value in retain.items()}
    fisher_pair = FisherDiagonal(forget, 1), FisherDiagonal(retain, 1)
    trial = try_gamma(1.0, *fisher_pair, unlearner.evaluate_unlearning, unlearner._phases.make_resetter().try_reset)
    assert trial == GammaTrial(1.0, sum(parameter.numel() for parameter in model.classifier.parameters()), None)
    assert "The weights with a ratio above 1 were not tried: The pretrained model" in caplog.text
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())


def test_the_control_is_repaired_by_the_methods_of_a_subclass(tmp_path):
    trained = []

    class Counting(FisherUnlearner):
        def compute_loss(self, model, *args, **kwargs):
            trained.append(self)
            return super().compute_loss(model, *args, **kwargs)

    unlearner = Counting(vit(), config(tmp_path / "a", random_mask_control=True, num_train_epochs=1), **splits())
    # The rehearsal trains on the forget and the retain set.
    assert len(trained) == 2
    trained.clear()
    unlearner.preview()
    assert len(trained) == 2
    trained.clear()
    unlearner.unlearn()
    own = [one for one in trained if one is unlearner]
    assert len(own) == len(trained) - len(own) > 0


def test_the_control_starts_at_the_batch_size_that_fitted_the_repair(tmp_path):
    sizes = []

    class Small(FisherUnlearner):
        def training_step(self, model, inputs, *args, **kwargs):
            size = len(inputs["labels"])
            if not sizes and size > 8:
                raise RuntimeError("CUDA out of memory. (simulated)")
            sizes.append(size)
            return super().training_step(model, inputs, *args, **kwargs)

    args = config(tmp_path / "a", random_mask_control=True, num_train_epochs=1, auto_find_batch_size=True)
    Small(vit(), args, **splits()).unlearn()
    assert max(sizes) == 8 < args.per_device_train_batch_size
