# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Whole runs that clean an adapter."""

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from hf_deepclean import FisherUnlearner, UnlearningReport
from hf_deepclean.models.adapters.loading import load_adapted_model
from hf_deepclean.models.adapters.parameters import adapter_parameters
from hf_deepclean.repair import plan
from hf_deepclean.selection.search import ResetTrial, SelectionSearch
from tests import tiny
from tests.models.adapters.examples import (
    BASES,
    FILES,
    FORGET,
    RETAIN,
    UNSEEN,
    adapted,
    base_model,
    bits,
    changed,
    dataset,
    files_of,
    on_disk,
    splits,
    trained,
    unlearner_for,
)


def test_a_penalty_on_an_adapter_is_whole_before_the_repair_ends_and_one_on_a_language_model_weighs_less(
    tmp_path, monkeypatch
):
    # Small requests have a penalty of their own.
    monkeypatch.setattr(plan, "is_small_request", lambda dataset: False)
    models = {"adapter": adapted("bert"), "full": base_model("bert")}
    trial = ResetTrial(1, 1.0, 0.5, 0.5)
    search = SelectionSearch("unseen", "accuracy", 0.1, 0.5, trial, (trial,), 0, {}, (1.0, 2.0))

    def penalty(scope, search):
        unlearner = unlearner_for(tmp_path / scope, models[scope], reset_scope=scope, reset_fraction=None)
        return unlearner._phases.plan_repair(search).make_penalty()

    penalties = {scope: penalty(scope, search) for scope in models}
    less = penalty("full", dataclasses.replace(search, measure="1 / (1 + loss)"))
    # Without a class per example the penalty weighs less, and never reaches its full targets.
    assert less.weight < penalties["full"].weight and less.rise > penalties["full"].rise == 1.0
    at = penalties["adapter"].rise
    assert at < 1
    assert list(penalties["adapter"].targets([0.0], [9.0], at)) == [1.5]


@pytest.mark.parametrize("kind", BASES)
def test_only_selected_adapter_weights_change_and_the_adapter_loads_into_the_untouched_base(tmp_path, kind):
    path = on_disk(tmp_path, kind)
    files = files_of(tmp_path)
    unlearner = unlearner_for(tmp_path / "clean", path, kind, weight_decay=0.1)
    before = bits(unlearner.model)
    report = unlearner.unlearn()
    after = bits(unlearner.model)

    assert 0 < report.integrity.num_selected_changed <= report.selection.num_selected
    for name in changed(before, after):
        elsewhere = torch.ones(before[name].numel(), dtype=torch.bool)
        elsewhere[unlearner.selection.indices[name]] = False
        assert torch.equal(before[name].flatten()[elsewhere], after[name].flatten()[elsewhere])
    base = type(base_model(kind)).from_pretrained(tmp_path / "base")
    assert report.integrity.num_base_weights == sum(parameter.numel() for parameter in base.parameters())
    assert f"Of the base 0 of {report.integrity.num_base_weights:,} weights changed" in str(report)
    assert report.settings["reset_scope"] == "adapter"
    assert report.model_class == type(base).__name__
    assert "peft" in report.versions

    assert sorted(item.name for item in (tmp_path / "clean").iterdir()) == FILES
    assert {name: files_of(tmp_path)[name] for name in files} == files
    assert UnlearningReport.load(tmp_path / "clean" / "report.json") == report
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (path, tmp_path / "clean"))
    assert {name: (t.shape, t.dtype) for name, t in old.items()} == {n: (t.shape, t.dtype) for n, t in new.items()}
    loaded = PeftModel.from_pretrained(base, tmp_path / "clean")
    assert changed(after, bits(loaded)) == set()


def test_of_several_adapters_the_active_one_is_cleaned_and_saved_and_the_others_keep_their_bits(tmp_path):
    model = adapted(task_type="SEQ_CLS")
    model.add_adapter("second", LoraConfig(r=3, task_type="SEQ_CLS", target_modules=["query", "key"]))
    model.set_adapter("second")
    trained(model)
    before = bits(model)
    unlearner_for(tmp_path / "clean", model).unlearn()
    different = changed(before, bits(model))
    assert different and all(".second." in name for name in different)
    assert sorted(item.name for item in (tmp_path / "clean").iterdir()) == FILES
    loaded = PeftModel.from_pretrained(base_model("bert"), tmp_path / "clean")
    ours, theirs = (
        {name.replace(f".{adapter}.", "."): p for name, p in adapter_parameters(m).items()}
        for adapter, m in (("second", model), ("default", loaded))
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_trials_count_what_the_base_of_an_adapter_knows_as_given(tmp_path):
    model = adapted("llama")
    rows = dataset("llama").remove_columns("labels").with_format("torch")

    def answers():
        with torch.no_grad():
            return model(**rows[:]).logits[:, :-1].argmax(dim=-1)

    # The labels are the adapter's own answers, so that it knows all of them.
    learned = answers()
    with model.disable_adapter():
        known = (answers() == learned)[RETAIN].double().mean().item()
    labels = torch.cat([torch.full((len(rows), 1), -100), learned], dim=1)
    rows = rows.add_column("labels", labels.tolist())
    parts = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    unlearner = unlearner_for(tmp_path / "clean", model, data=parts, reset_fraction=None)
    unlearner.select_weights(*(unlearner.compute_fisher(part) for part in parts.values()))
    assert learned[RETAIN].flatten().bincount().max() / learned[RETAIN].numel() < known < 1
    assert unlearner.search.chance == pytest.approx(known)


@pytest.mark.parametrize("name", ["default", "second"])
def test_resumed_from_a_checkpoint_it_ends_in_the_same_bits(tmp_path, name):
    def model():
        model = adapted()
        if name != "default":
            model.add_adapter(name, LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"]))
            model.set_adapter(name)
        return trained(model)

    arguments = {"save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1, "num_train_epochs": 2}
    whole = unlearner_for(tmp_path / "whole", model(), **arguments)
    whole_report = whole.unlearn()
    interrupted = tiny.interrupt_after(unlearner_for(tmp_path / "parts", model(), **arguments), step=2)
    with pytest.raises(KeyboardInterrupt):
        interrupted.unlearn()
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    assert not list(checkpoint.rglob("model*.safetensors"))
    assert len(list(checkpoint.rglob("adapter_model.safetensors"))) == 1
    resumed = unlearner_for(tmp_path / "parts", model(), **arguments)
    report = resumed.unlearn(resume_from_checkpoint=True)
    assert changed(bits(whole.model), bits(resumed.model)) == set()
    assert report.integrity == whole_report.integrity


def test_the_best_checkpoint_of_an_adapter_of_any_name_is_found(tmp_path):
    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"]))
    model.set_adapter("second")
    data = splits(eval_dataset=dataset("bert").select(UNSEEN))
    arguments = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    strategies = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    unlearner = unlearner_for(tmp_path / "clean", trained(model), data=data, **arguments, **strategies)
    unlearner.unlearn()
    best = load_file(f"{unlearner.state.best_model_checkpoint}/adapter_model.safetensors")
    assert set(unlearner.state.best_model_checkpoint.split("-")[-1:]) <= {"1", "2"}
    final = load_file(tmp_path / "clean" / "adapter_model.safetensors")
    assert changed(best, final) == set()


def test_gradient_checkpointing_gives_the_same_adapter(tmp_path):
    models = []
    for checkpointed in (False, True):
        models.append(adapted("gpt2"))
        arguments = {"gradient_checkpointing": checkpointed, "learning_rate": 1e-3, "adam_epsilon": 1e-3}
        unlearner_for(tmp_path / str(checkpointed), models[-1], "gpt2", **arguments).unlearn()
    first, second = (bits(model) for model in models)
    assert changed(bits(adapted("gpt2")), first)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_control_reference_and_further_measurements_are_those_of_adapters(tmp_path):
    path = on_disk(tmp_path)
    plain = unlearner_for(tmp_path / "plain", path)
    plain.unlearn()
    for name, reference in (("path", path), ("model", load_adapted_model(path))):
        data = splits(reference_model=reference)
        measured = {"random_mask_control": True, "gamma_sweep": [1.0], "relearning_steps": 4}
        unlearner = unlearner_for(tmp_path / name, path, data=data, **(measured if name == "model" else {}))
        report = unlearner.unlearn()
        assert changed(bits(plain.model), bits(unlearner.model)) == set()
        # The reference model is the adapter before unlearning.
        assert set(report.gaps_to_reference("before").values()) == {0.0}
    assert report.stages["control_after_repair"] != report.stages["after_repair"]
    (trial,) = report.gamma_trials
    assert trial.num_selected > 0 and trial.result != report.stages["before"]
    for stage, curve in report.relearning.curves.items():
        assert curve[0] == report.stages[stage].splits["forget"].accuracy and len(curve) == 4
    with pytest.raises(ValueError, match="`reference_model` does not have"):
        unlearner_for(tmp_path / "base alone", path, data=splits(reference_model=base_model("bert")), **measured)
    with pytest.raises(ValueError, match=r"`model` has an adapter, .* a merged copy of the result"):
        unlearner_for(tmp_path / "rounded", path, quantization_bits=[4])
    sharing = get_peft_model(unlearner.model.get_base_model(), LoraConfig(r=2, target_modules=["key"]))
    with pytest.raises(ValueError, match="two adapters need a base each"):
        unlearner_for(tmp_path / "shared", unlearner.model, data=splits(reference_model=sharing))


def test_from_trainer_takes_over_the_adapter(tmp_path):
    rows = dataset("bert")
    args = TrainingArguments(str(tmp_path / "run"), num_train_epochs=1, learning_rate=1e-2, disable_tqdm=True)
    trainer = Trainer(adapted(), args, train_dataset=rows.select(RETAIN))
    trainer.train()
    data = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    with pytest.raises(ValueError, match="`reset_scope='adapter'`"):
        FisherUnlearner.from_trainer(trainer, **data, gamma=1.0)
    unlearner = FisherUnlearner.from_trainer(trainer, **data, gamma=1.0, reset_scope="adapter", reset_value="init")
    assert unlearner.model is trainer.model
    unlearner.unlearn()
    assert set(FILES) <= {path.name for path in (tmp_path / "run-unlearned").iterdir()}


def test_configurations_stay_as_they_were(tmp_path):
    model = adapted("gpt2")
    settings = copy.deepcopy(model.peft_config["default"].to_dict())
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    base_config = model.get_base_model().config.to_dict()
    unlearner_for(tmp_path / "clean", model, "gpt2").unlearn()
    assert model.peft_config["default"].to_dict() == settings
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == gradients
    assert model.get_base_model().config.to_dict() == base_config


def test_without_peft_everything_else_works(tmp_path):
    code = f"""
import sys
sys.modules["peft"] = None
from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from tests import tiny
digits = tiny.digits()
data = dict(forget_dataset=digits.select(range(8)), retain_dataset=digits.select(range(8, 32)))
settings = dict(reset_fraction=0.2, num_train_epochs=0, disable_tqdm=True, report_to="none")
args = FisherUnlearningConfig({str(tmp_path / "clean")!r}, **settings)
FisherUnlearner(tiny.vit(num_labels=10), args, **data).unlearn()
sys.exit(sys.modules["peft"] is not None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / "clean" / "model.safetensors").exists()
