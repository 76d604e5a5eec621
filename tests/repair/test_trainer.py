# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os

import datasets
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_deepclean.repair.plan import RepairPlan
from hf_deepclean.reset.weights import read_weights
from hf_deepclean.runtime.clock import PhaseClock
from hf_deepclean.runtime.files import STATE_FOLDER
from tests import heads, tiny
from tests.models.test_module_state import held, rotary
from tests.repair.repairs import reset_some, resnet, trainer_for
from tests.reset.models import outside


CHECKPOINT = {
    "selected_weights.safetensors",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
}


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1, "gradient_accumulation_steps": 2, "bf16": True}])
def test_a_repair_by_plain_training_arguments_moves_the_selected_weights_alone(tmp_path, options):
    model = resnet()
    reset = reset_some(model)
    frozen = outside(model, reset.selection)
    output = trainer_for(tmp_path / "a", reset, **options).train()
    assert output.global_step == 4 / options.get("gradient_accumulation_steps", 1)
    after = outside(model, reset.selection)
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    assert sum(int((value != 0).sum()) for value in read_weights(model, reset.selection).values()) > 0


def test_a_training_without_a_reset_is_refused(tmp_path):
    trainer = trainer_for(tmp_path / "a", model=resnet())
    with pytest.raises(RuntimeError, match="repairs the weights that were reset, and none were"):
        trainer.train()


def test_a_repair_without_steps_trains_nothing_and_still_verifies_what_is_frozen(tmp_path):
    model = resnet()
    reset = reset_some(model)
    after_reset = tiny.parameters_and_buffers(model)
    trainer = trainer_for(tmp_path / "a", reset, num_train_epochs=0)
    assert trainer.train() is None
    assert all(torch.equal(after_reset[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())
    next(model.buffers()).add_(1)
    with pytest.raises(RuntimeError, match="1 parameters or buffers changed"):
        trainer.train()


def test_a_callback_that_moves_a_frozen_weight_is_noticed(tmp_path):
    class Moving(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():
                model.get_parameter(name).flatten()[index] += 1

    model = resnet()
    reset = reset_some(model)
    name, chosen = next(iter(reset.selection.indices.items()))
    index = next(index for index in range(len(chosen) + 1) if index not in chosen)
    with pytest.raises(RuntimeError, match=f"changed: {name}"):
        trainer_for(tmp_path / "a", reset, callbacks=[Moving()]).train()


def test_a_trainer_keeps_the_cache_setting_of_the_model_and_makes_no_folder(tmp_path):
    model = tiny.randomized(heads.gpt2(), torch.float32)
    assert model.config.use_cache
    trainer = trainer_for(tmp_path / "a" / "b", model=model)
    assert model.config.use_cache and not (tmp_path / "a").exists()
    model = resnet()
    had_cache = hasattr(model.config, "use_cache")
    trainer = trainer_for(tmp_path / "a" / "b", reset_some(model))
    trainer.train()
    assert hasattr(model.config, "use_cache") == had_cache and not (tmp_path / "a").exists()


def test_training_leaves_gradient_flags_and_arguments_as_they_were(tmp_path):
    model = resnet()
    model.classifier[1].weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    trainer = trainer_for(tmp_path / "a", reset_some(model), max_grad_norm=0.5)
    arguments = trainer.args.to_dict()
    trainer.train()
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert trainer.args.to_dict() == arguments and trainer.args.max_grad_norm == 0.5


def test_a_checkpoint_appears_whole_by_one_rename(tmp_path, monkeypatch):
    seen, rename = [], os.replace

    def replace(source, target):
        seen.append(({path.name for path in source.iterdir()}, target.exists()))
        rename(source, target)

    monkeypatch.setattr("hf_deepclean.repair.checkpoints.os.replace", replace)
    trainer_for(tmp_path / "a", reset_some(resnet()), save_strategy="steps", save_steps=2).train()
    assert len(seen) == 2
    assert all(files >= CHECKPOINT and not was_there for files, was_there in seen)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert not (tmp_path / "a" / STATE_FOLDER).exists()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_repair_resumed_from_a_checkpoint_ends_in_the_same_bits(tmp_path, share):
    options = {"save_strategy": "steps", "save_steps": 3, "plan": RepairPlan(hard_example_share=share)}
    whole, resumed = resnet(), resnet()
    trainer_for(tmp_path / "a", reset_some(whole), **options).train()
    trainer_for(tmp_path / "b", reset_some(resumed), **options).train(str(tmp_path / "a" / "checkpoint-3"))
    after = tiny.parameters_and_buffers(resumed)
    assert all(torch.equal(tensor, after[name]) for name, tensor in tiny.parameters_and_buffers(whole).items())


def test_a_repair_resumed_from_its_last_checkpoint_within_an_epoch_trains_no_further(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "lr_scheduler_type": "constant"}
    whole, resumed = resnet(), resnet()
    trainer_for(tmp_path / "a", reset_some(whole), **options).train()
    trainer = trainer_for(tmp_path / "b", reset_some(resumed), **options)
    trainer.train(str(tmp_path / "a" / "checkpoint-1"))
    after = tiny.parameters_and_buffers(resumed)
    assert trainer.state.global_step == 1
    assert all(torch.equal(tensor, after[name]) for name, tensor in tiny.parameters_and_buffers(whole).items())


def test_a_checkpoint_of_another_selection_is_refused(tmp_path):
    trainer_for(tmp_path / "a", reset_some(resnet()), save_strategy="steps", save_steps=2).train()
    with pytest.raises(ValueError, match="belongs to another model or another selection"):
        trainer_for(tmp_path / "b", reset_some(resnet(), seed=1)).train(str(tmp_path / "a" / "checkpoint-2"))


def test_a_sibling_has_the_same_training_and_none_of_the_outputs(tmp_path):
    callback = TrainerCallback()
    plan = RepairPlan(hard_example_share=0.5)
    trainer = trainer_for(tmp_path / "a", reset_some(resnet()), save_strategy="epoch", callbacks=[callback], plan=plan)
    other = trainer.sibling(trainer.reset)
    assert (other.model, other.train_dataset, other.plan) == (trainer.model, trainer.train_dataset, plan)
    assert other.compute_loss_func.__self__ is other and other.batch_source.trainer is other
    assert other.clock is trainer.clock and other.interruption is trainer.interruption
    assert callback in trainer.callback_handler.callbacks and callback not in other.callback_handler.callbacks
    assert (trainer.args.save_strategy, other.args.save_strategy) == ("epoch", "no")
    assert other.args.learning_rate == trainer.args.learning_rate
    other.train()
    assert not (tmp_path / "a").exists()


def test_only_the_repair_is_timed_and_by_the_clock_that_is_handed_in(tmp_path):
    clock = PhaseClock({"repair": 100.0})
    trainer = trainer_for(tmp_path / "a", reset_some(resnet()), max_steps=1, clock=clock)
    trainer.train()
    assert trainer.seconds is clock.seconds and clock.seconds.keys() == {"repair"}
    assert clock.seconds["repair"] > 100


@pytest.mark.parametrize("kind", ["bert tokens", "gpt2 causal", "t5 generation"])
def test_label_smoothing_of_tokens_is_that_of_transformers(tmp_path, kind):
    make_model, make_batch, _ = heads.HEADS[kind]
    model, batch = make_model().eval(), make_batch()
    if kind == "t5 generation":
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    scored = batch["labels"][:, 1:] if kind == "gpt2 causal" else batch["labels"]
    options = {"label_smoothing_factor": 0.3, "report_to": "none", "use_cpu": True}
    ours = trainer_for(tmp_path / "a", model=model, **options)
    theirs = Trainer(model, TrainingArguments(str(tmp_path / "b"), **options))
    losses = [one.compute_loss(model, dict(batch), num_items_in_batch=scored.ne(-100).sum()) for one in (ours, theirs)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_label_smoothing_of_a_head_without_classes_or_tokens_is_refused(tmp_path):
    for kind in ("bert span", "wav2vec2 ctc"):
        make_model, make_batch, name = heads.HEADS[kind]
        trainer = trainer_for(tmp_path / name, model=make_model().double(), label_smoothing_factor=0.3)
        with pytest.raises(ValueError, match=f"is of the kind '{name}'.*Set it to 0"):
            trainer.compute_loss(trainer.model, make_batch())


@pytest.mark.parametrize("rows", [[14, 6, 6, 14], [6, 14, 14, 6]], ids=["short row last", "long row last"])
def test_a_repair_puts_back_rotary_embeddings_that_depend_on_the_length_of_the_rows(tmp_path, rows):
    model = rotary("longrope").train()
    reset = reset_some(model)
    before = held(model)
    data = [{"input_ids": torch.arange(3, 3 + n), "labels": torch.arange(3, 3 + n)} for n in rows]
    options = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    trainer = trainer_for(tmp_path / "a", reset, **options)
    trainer.train_dataset = datasets.Dataset.from_list(data)
    assert trainer.train().global_step == 4
    assert before[1].keys() == dict(model.named_buffers()).keys()
    assert all(torch.equal(buffer, before[2][name]) for name, buffer in model.named_buffers())
