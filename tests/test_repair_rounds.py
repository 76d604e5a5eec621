# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import signal

import pytest
import torch
from transformers import EarlyStoppingCallback

from hf_deepclean import FisherUnlearner, UnlearningReport
from hf_deepclean.repair import trainer as trainer_module
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.runtime.files import STATE_FOLDER
from hf_deepclean.state.run_state import RunState
from tests import tiny
from tests.unlearner.runs import config, splits, unlearner_for


# One epoch at this rate does not bring back what these weights of a trained model knew.
SHORT = {"num_train_epochs": 1, "learning_rate": 3e-3, "reset_fraction": 0.05, "per_device_eval_batch_size": 64}


def run(folder, model=None, resume=None, **kwargs):
    model = tiny.trained() if model is None else model
    unlearner = unlearner_for(folder, model, splits(), **(SHORT | kwargs))
    return unlearner, unlearner.unlearn(resume)


def weights(unlearner):
    return tiny.parameters_and_buffers(unlearner.model)


def is_same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three rounds, and its report."""
    unlearner, report = run(tmp_path_factory.mktemp("whole") / "run")
    assert len(report.retained_by_round) == 3
    return unlearner, report


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A run of one round, because no more are allowed, and its report."""
    return run(tmp_path_factory.mktemp("once") / "run", max_repair_rounds=1)


def test_a_repair_that_fell_short_is_repeated_while_it_brings_back_more(once, whole):
    (once, first), (again, report) = once, whole
    assert len(first.retained_by_round) == 1
    assert report.retained_by_round[0] == first.retained_by_round[0]
    assert list(report.retained_by_round) == sorted(set(report.retained_by_round))
    accuracy = report.stages["after_repair"].splits["retain"].accuracy
    assert accuracy == report.retained_by_round[-1] > first.stages["after_repair"].splits["retain"].accuracy
    assert not is_same(weights(once), weights(again))
    assert first.shortfalls() and "The repair was repeated" not in str(first)
    assert "The repair was repeated, because the retained data were not back: accuracy" in str(report)
    assert UnlearningReport.load(f"{again.args.output_dir}/report.json") == report


def test_a_repair_that_suffices_has_one_round(tmp_path):
    arguments = {"num_train_epochs": 6, "learning_rate": 2e-2}
    once, first = run(tmp_path / "once", max_repair_rounds=1, **arguments)
    again, report = run(tmp_path / "again", **arguments)
    assert len(first.retained_by_round) == len(report.retained_by_round) == 1
    assert is_same(weights(once), weights(again))
    assert first.stages == report.stages


@pytest.mark.parametrize("loads_best", [True, False])
def test_a_repair_whose_end_evaluations_choose_has_one_round(tmp_path, loads_best):
    kwargs = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "eval_loss"}
    callbacks = [] if loads_best else [EarlyStoppingCallback(2)]
    args = config(tmp_path / "a", load_best_model_at_end=loads_best, **(SHORT | kwargs))
    data = splits(eval_dataset=tiny.digits().select(range(200, 232)))
    report = FisherUnlearner(tiny.trained(), args, callbacks=callbacks, **data).unlearn()
    assert report.shortfalls() and len(report.retained_by_round) == 1


def test_a_repair_whose_steps_are_fixed_has_one_round(tmp_path, once):
    # As many steps as one epoch has.
    unlearner, report = run(tmp_path / "a", max_steps=6)
    assert len(report.retained_by_round) == 1
    assert is_same(weights(once[0]), weights(unlearner))
    assert once[1].stages == report.stages


def test_rounds_that_bring_back_nothing_more_end(tmp_path):
    _, report = run(tmp_path / "a", learning_rate=1e-12, reset_fraction=0.2, max_repair_rounds=9)
    assert len(report.retained_by_round) == 2


@pytest.mark.parametrize("place", ["train", "save", "evaluate"])
def test_an_interrupted_round_ends_in_the_same_bits(tmp_path, whole, monkeypatch, place):
    count = 0

    def stop_in_second(function, when):
        def stopped(*args, **kwargs):
            nonlocal count
            if when(*args, **kwargs):
                count += 1
                if count == 2:
                    raise KeyboardInterrupt
            return function(*args, **kwargs)

        return stopped

    owner, name, when = {
        "train": (RepairTrainer, "_train", lambda *args: True),
        "save": (RunState, "save_repaired", lambda *args: True),
        "evaluate": (RunState, "evaluate_stage", lambda state, name, evaluate: name == "after_repair"),
    }[place]
    model = tiny.trained()
    before = tiny.parameters_and_buffers(model)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop_in_second(getattr(owner, name), when))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", model)
    assert (tmp_path / "parts" / STATE_FOLDER / "repaired.safetensors").exists()
    assert is_same(before, tiny.parameters_and_buffers(model))
    resumed, report = run(tmp_path / "parts", resume=True)
    assert is_same(weights(whole[0]), weights(resumed))
    assert report.to_dict() | {"seconds": {}} == whole[1].to_dict() | {"seconds": {}}


def test_a_stop_within_a_further_round_leaves_no_checkpoint_and_ends_in_the_same_bits(tmp_path, whole, monkeypatch):
    step, calls = RepairTrainer.training_step, 0

    def interrupted(trainer, *args, **kwargs):
        nonlocal calls
        calls += 1
        # Six steps a round.
        if calls == 9:
            trainer.interruption.signal = signal.SIGTERM
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RepairTrainer, "training_step", interrupted)
        with pytest.raises(SystemExit):
            run(tmp_path / "parts", save_strategy="steps", save_steps=2)
    assert not list((tmp_path / "parts" / STATE_FOLDER).glob("checkpoint-*"))
    resumed, report = run(tmp_path / "parts", resume=True, save_strategy="steps", save_steps=2)
    assert is_same(weights(whole[0]), weights(resumed))
    assert report.retained_by_round == whole[1].retained_by_round


def test_the_control_is_repaired_in_as_many_rounds(tmp_path, monkeypatch):
    trained, train = [], RepairTrainer._train
    monkeypatch.setattr(
        trainer_module.RepairTrainer, "_train", lambda self, *args: trained.append(self.reset) or train(self, *args)
    )
    _, report = run(tmp_path / "a", random_mask_control=True, max_repair_rounds=2)
    assert len(report.retained_by_round) == 2
    numbers = [id(reset) for reset in trained]
    assert [numbers.count(number) for number in dict.fromkeys(numbers)] == [2, 2]
