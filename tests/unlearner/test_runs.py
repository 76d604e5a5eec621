# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json

import datasets
import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForImageClassification,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)

from hf_deepclean import FisherUnlearner, UnlearningReport
from tests import heads, tiny
from tests.reset.models import outside
from tests.unlearner.runs import config, fishers, resnet, splits, unlearner_for, vit


def test_unlearn_runs_all_phases_and_leaves_a_loadable_model_and_its_report(tmp_path):
    model = vit()
    config_before = model.config.to_dict()
    unlearner = unlearner_for(tmp_path / "clean", model, splits(eval_dataset=tiny.digits().select(range(160, 200))))
    report = unlearner.unlearn()
    assert list(report.stages) == ["before", "after_reset", "after_repair"]
    assert list(report.stages["before"].splits) == ["forget", "retain", "eval", "unseen"]
    assert report.stages["before"].splits["forget"].num_examples == 24
    assert (
        report.stages["after_repair"].splits["retain"].mean_loss < report.stages["before"].splits["retain"].mean_loss
    )
    assert report.num_fisher_examples == {"forget": 24, "retain": 96}
    assert report.selection.num_selected == int(0.2 * report.selection.num_in_scope)
    assert report.integrity.num_selected_changed == report.selection.num_selected
    plane = report.selection.plane
    assert (plane.num_in_scope, plane.num_selected) == (report.selection.num_in_scope, report.selection.num_selected)
    assert set(report.seconds) >= {"forget Fisher", "retain Fisher", "selection", "reset", "repair", "evaluation"}

    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == [
        "config.json",
        "forget_commitment.json",
        "model.safetensors",
        "report.json",
    ]
    assert UnlearningReport.load(tmp_path / "clean" / "report.json") == report
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "clean")
    tensors = tiny.parameters_and_buffers(loaded)
    assert all(torch.equal(tensors[n], value) for n, value in tiny.parameters_and_buffers(model).items())
    # Nothing that training leaves behind, such as `use_cache`.
    assert model.config.to_dict() == config_before
    assert "use_cache" not in json.loads((tmp_path / "clean" / "config.json").read_text())


@pytest.mark.parametrize("make_model", [vit, resnet])
def test_nothing_outside_the_selection_changes(tmp_path, make_model):
    model = make_model()
    unlearner = unlearner_for(
        tmp_path / "clean",
        model,
        weight_decay=0.1,
        adam_beta1=0.95,
        max_grad_norm=0.5,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=8,
    )
    forget, retain = fishers(unlearner)
    selection = unlearner.select_weights(forget, retain)
    before = outside(model, selection)
    unlearner.reset_weights()
    unlearner.train()
    after = outside(model, selection)
    assert sum((before[name] != after[name]).sum().item() for name in before) == 0
    assert any(parameter.grad_fn is None and parameter.requires_grad for parameter in model.parameters())
    state = unlearner.optimizer.state_dict()["state"].values()
    floats = sum(value.numel() for entry in state for name, value in entry.items() if name != "step")
    assert floats == 2 * selection.num_selected


def test_resumed_from_a_checkpoint_it_ends_in_the_same_bits_with_nothing_else_changed(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 4, "weight_decay": 0.1, "num_train_epochs": 2}
    whole = unlearner_for(tmp_path / "whole", resnet(), **arguments)
    whole_report = whole.unlearn()

    interrupted = tiny.interrupt_after(unlearner_for(tmp_path / "parts", resnet(), **arguments), step=4)
    with pytest.raises(KeyboardInterrupt):
        interrupted.unlearn()
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"checkpoint-4", "_unlearning_state"}

    model = resnet()
    before = model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    resumed = unlearner_for(tmp_path / "parts", model, **arguments)
    with pytest.raises(FileExistsError, match="already holds .*Continue that run with"):
        resumed.unlearn()
    report = resumed.unlearn(resume_from_checkpoint=True)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.model.state_dict().items())
    assert report.integrity == whole_report.integrity
    for name, tensor in model.state_dict().items():
        changed = set((tensor != before[name]).flatten().nonzero().flatten().tolist())
        assert changed <= set(resumed.selection.indices.get(name, torch.tensor([])).tolist())


def test_a_checkpoint_of_another_model_is_noticed_and_not_saved(tmp_path):
    first = unlearner_for(tmp_path / "clean", resnet(), save_strategy="steps", save_steps=4, num_train_epochs=1)
    first.unlearn()
    other = tiny.randomized(tiny.randomized(tiny.resnet(num_labels=10)), torch.float32)
    for name in ("config.json", "forget_commitment.json", "model.safetensors", "report.json"):
        (tmp_path / "clean" / name).unlink()
    resumed = unlearner_for(tmp_path / "clean", other, save_strategy="steps", save_steps=4, num_train_epochs=2)
    with pytest.raises(ValueError, match="belongs to another run"):
        resumed.unlearn(resume_from_checkpoint=True)
    assert not (tmp_path / "clean" / "model.safetensors").exists()


def test_a_callback_that_touches_a_frozen_weight_is_caught_and_nothing_is_saved(tmp_path):
    class Meddler(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():
                model.vit.layernorm.weight += 1e-3

    unlearner = unlearner_for(tmp_path / "clean")
    unlearner.add_callback(Meddler)
    with pytest.raises(RuntimeError, match=r"vit\.layernorm\.weight"):
        unlearner.unlearn()
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["_unlearning_state"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    models = []
    for number, seed in enumerate((3, 3, 4)):
        model = vit(hidden_dropout_prob=0.1)
        models.append(model)
        unlearner_for(tmp_path / str(number), model, seed=seed).unlearn()
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("make_model", [vit, resnet])
def test_gradient_accumulation_gives_the_same_repair(tmp_path, make_model):
    models = []
    for number, (batch_size, steps) in enumerate(((16, 1), (4, 4))):
        model = make_model()
        models.append(model)
        unlearner_for(
            tmp_path / str(number),
            model,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            learning_rate=1e-3,
            adam_epsilon=1e-3,
        ).unlearn()
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_class_forgetting_forgets_the_class_and_keeps_the_others(tmp_path):
    digits = tiny.digits().select(range(900))
    of_class = np.asarray(digits["labels"]) == 3
    torch.manual_seed(1)
    model = tiny.vit(num_labels=10, hidden_size=32, intermediate_size=64)
    assert isinstance(model, ViTForImageClassification)
    args = TrainingArguments(
        str(tmp_path / "t"),
        num_train_epochs=25,
        learning_rate=5e-3,
        per_device_train_batch_size=64,
        save_strategy="no",
        disable_tqdm=True,
    )
    Trainer(model, args, train_dataset=digits).train()
    unlearner = FisherUnlearner(
        model,
        config(tmp_path / "a", num_train_epochs=8, learning_rate=5e-3),
        forget_dataset=digits.select(np.flatnonzero(of_class)),
        retain_dataset=digits.select(np.flatnonzero(~of_class)),
    )
    report = unlearner.unlearn()
    before, after = report.stages["before"].splits, report.stages["after_repair"].splits
    assert before["forget"].accuracy > 0.9
    assert after["forget"].accuracy < 0.05
    assert after["retain"].accuracy > before["retain"].accuracy - 0.1


def test_language_models_are_unlearned_the_same_from_padded_and_from_packed_batches(tmp_path):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 9, (20,), generator=generator).tolist()
    rows = [{"input_ids": torch.randint(3, heads.VOCABULARY, (n,), generator=generator).tolist()} for n in lengths]

    def padded(features):
        batch = pad_sequence([torch.tensor(row["input_ids"]) for row in features], batch_first=True)
        mask = (batch > 0).long()
        return {"input_ids": batch, "attention_mask": mask, "labels": batch.masked_fill(mask == 0, -100)}

    reports = []
    for collator in (padded, DataCollatorWithFlattening()):
        torch.manual_seed(0)
        unlearner = FisherUnlearner(
            tiny.randomized(heads.gpt2(), torch.float32),
            config(tmp_path / f"{len(reports)}", per_device_train_batch_size=4),
            collator,
            forget_dataset=datasets.Dataset.from_list(rows[:6]),
            retain_dataset=datasets.Dataset.from_list(rows[6:]),
        )
        reports.append(unlearner.unlearn())
    for stage in ("before", "after_reset", "after_repair"):
        first, second = (report.stages[stage].splits["forget"].mean_loss for report in reports)
        # Packed rows come without their first label, which both trainings count among the tokens but neither scores.
        assert first == pytest.approx(second, rel=1e-3)
    assert reports[0].stages["after_reset"] != reports[0].stages["before"]
