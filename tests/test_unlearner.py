# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from itertools import islice

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithFlattening,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)

from hf_deepclean import (
    FisherDiagonal,
    FisherUnlearner,
    FisherUnlearningConfig,
    UnlearningReport,
    accumulate_fisher_diagonal,
    quantized,
    select_random_weights,
)
from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.evaluation.recovery import RelearningMeasurement, evaluate_rounded
from hf_deepclean.repair.hard_examples import HardExampleSampler
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from hf_deepclean.selection.search import MIN_KNOWLEDGE_LEFT
from hf_deepclean.selection.selector import WeightSelector
from hf_deepclean.selection.sweep import GammaTrial, try_gamma
from tests import heads, tiny
from tests.reset.test_values import outside


FORGET, RETAIN, UNSEEN = range(24), range(24, 120), range(120, 160)


def splits(**others):
    digits = tiny.digits()
    parts = {"forget_dataset": digits.select(FORGET), "retain_dataset": digits.select(RETAIN)}
    return parts | {"unseen_dataset": digits.select(UNSEEN)} | others


def config(directory, **kwargs):
    defaults = {
        "reset_fraction": 0.2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 16,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return FisherUnlearningConfig(str(directory), **(defaults | kwargs))


def vit(**kwargs):
    torch.manual_seed(0)
    return tiny.randomized(tiny.vit(num_labels=10, **kwargs), torch.float32)


def resnet():
    torch.manual_seed(0)
    return tiny.randomized(tiny.resnet(num_labels=10), torch.float32)


def unlearner_for(directory, model=None, data=None, **kwargs):
    return FisherUnlearner(model or vit(), config(directory, **kwargs), **(data or splits()))


def fishers(unlearner):
    return [unlearner.compute_fisher(data) for data in (unlearner.forget_dataset, unlearner.retain_dataset)]


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

    class Interrupt(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    interrupted = unlearner_for(tmp_path / "parts", resnet(), **arguments)
    interrupted.add_callback(Interrupt)
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
    with pytest.raises((RuntimeError, ValueError), match="not what was asked for|another selection"):
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
    tried = unlearner._phases.resetter().tried

    def noisy():
        torch.rand(3)
        seen.append(tiny.parameters_and_buffers(model))
        return unlearner.evaluate_unlearning()

    trial = try_gamma(1.0, forget, retain, noisy, tried)
    num_changed = sum(int((seen[0][name] != value).sum()) for name, value in tensors.items())
    assert 0 < num_changed <= trial.num_selected
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert unlearner.selection is None

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        try_gamma(1.0, forget, retain, interrupted, tried)
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
    trial = try_gamma(1.0, *fisher_pair, unlearner.evaluate_unlearning, unlearner._phases.resetter().tried)
    assert trial == GammaTrial(1.0, sum(parameter.numel() for parameter in model.classifier.parameters()), None)
    assert "The weights with a ratio above 1 were not tried: The pretrained model" in caplog.text
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())


NUM_TRIALS = 3
# The digits that the trained model knows, by whether they are threes.
THREES, OTHERS = (
    [row for row, label in enumerate(tiny.digits()["labels"][: tiny.NUM_TRAINED].tolist()) if (label == 3) is wanted]
    for wanted in (True, False)
)


def auto_unlearner_for(directory, data=None, model=None, **kwargs):
    arguments = {"reset_fraction": None, "num_selection_trials": NUM_TRIALS, "num_train_epochs": 1}
    data = data or splits()
    data["unseen_dataset"] = tiny.digits().select(range(tiny.NUM_TRAINED, 200))
    return unlearner_for(directory, model or tiny.trained(), data, **(arguments | kwargs))


def class_request():
    digits = tiny.digits()
    return {"forget_dataset": digits.select(THREES), "retain_dataset": digits.select(OTHERS)}


def same_selection(first, second):
    """Of two unlearners, to the last index and trial."""
    one, other = first.selection, second.selection
    return (
        one.indices.keys() == other.indices.keys()
        and all(torch.equal(indices, other.indices[name]) for name, indices in one.indices.items())
        and first.search == second.search
    )


@pytest.mark.parametrize("reset_value", ["zero", "init"])
def test_a_selection_by_trials_leaves_weights_buffers_flags_and_random_states_as_they_were(
    tmp_path, monkeypatch, reset_value
):
    unlearner = auto_unlearner_for(tmp_path / "a", reset_value=reset_value)
    model = unlearner.model.train()
    model.resnet.embedder.eval()
    pair, tensors, state = fishers(unlearner), tiny.parameters_and_buffers(model), torch.get_rng_state()
    modes, tried, predict = [module.training for module in model.modules()], [], Evaluator.predict

    def noted(*arguments):
        now = tiny.parameters_and_buffers(model)
        tried.append(sum(int((now[name] != value).sum()) for name, value in tensors.items()))
        if len(tried) > 3:
            torch.rand(3)
        return predict(*arguments)

    monkeypatch.setattr(Evaluator, "predict", noted)
    selection = unlearner.select_weights(*pair)
    assert selection is unlearner.selection and selection.rule == "auto"
    numbers = [trial.num_selected for trial in unlearner.search.trials]
    # Three data sets with the weights as they are, then two with every selection; an initial value may be the trained
    # one.
    assert tried[0] == tried[1] == tried[2] == 0 and len(tried) == 3 + 2 * NUM_TRIALS
    assert all(0.9 * number <= changed <= number for number, changed in zip(numbers, tried[3::2], strict=True))
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "a").exists()

    def interrupted(*arguments):
        if len(tried) > 3 + 2 * NUM_TRIALS + 4:
            raise KeyboardInterrupt
        return noted(*arguments)

    monkeypatch.setattr(Evaluator, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unlearner.select_weights(*pair)
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(model).items())


def test_a_selection_by_trials_sees_nothing_but_samples_of_forget_retain_and_unseen_data(tmp_path):
    digits, arguments = tiny.digits(), {"num_selection_examples": 20}
    plain = auto_unlearner_for(tmp_path / "a", **arguments)
    pair = fishers(plain)
    assert plain.select_weights(*pair).num_selected > 0
    # The losses of all unseen data are what the forget data are held to.
    assert plain.search.num_examples == {"forget": 20, "retain": 20, "unseen": 40}
    known = set.union(
        *(as_set(rows[:]) for rows in (plain.forget_dataset, plain.retain_dataset, plain.unseen_dataset))
    )
    for further in (
        {"reference_model": resnet(), "eval_dataset": digits.select(range(200, 230))},
        {"reference_model": tiny.trained(), "eval_dataset": {"far": digits.select(range(300, 310))}},
    ):
        unlearner, seen = auto_unlearner_for(tmp_path / "b", splits(**further), **arguments), []
        unlearner.evaluate_unlearning(unlearner.reference_model)
        unlearner.evaluate_unlearning()
        predict = Evaluator.predict

        def noted(evaluator, model, dataset, description, predict=predict, seen=seen):
            seen.append((model, {tuple(row["pixel_values"].flatten().tolist()) for row in dataset}))
            return predict(evaluator, model, dataset, description)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Evaluator, "predict", noted)
            unlearner.select_weights(*pair)
        assert same_selection(unlearner, plain)
        assert len(seen) == 3 + 2 * NUM_TRIALS
        assert all(model is unlearner.model and rows <= known for model, rows in seen)
        assert [len(rows) for _, rows in seen] == [20, 20, 40, *[20] * (2 * NUM_TRIALS)]
    again = auto_unlearner_for(tmp_path / "c", seed=7, **arguments)
    again.select_weights(*pair)
    assert again.search != plain.search


def test_a_whole_class_is_to_be_gone_and_other_data_are_to_look_unseen_unless_said_otherwise(tmp_path):
    pair = fishers(auto_unlearner_for(tmp_path / "a"))
    for make_data, asked, target in (
        (splits, None, "unseen"),
        (splits, "chance", "chance"),
        (class_request, None, "chance"),
        (class_request, "unseen", "unseen"),
    ):
        unlearner = auto_unlearner_for(tmp_path / "a", make_data(), num_selection_trials=1, target=asked)
        unlearner.select_weights(*pair)
        assert unlearner.search.target == target


def test_in_a_run_the_target_follows_from_all_examples_and_not_from_a_sample(tmp_path):
    data = {"forget_dataset": tiny.digits().select([*THREES[:8], OTHERS[0]])}
    data["retain_dataset"] = tiny.digits().select(OTHERS[1:])
    arguments = {"num_selection_examples": 2, "num_selection_trials": 1, "num_train_epochs": 0, "seed": 1}
    unlearner = auto_unlearner_for(tmp_path / "a", data, **arguments)
    samples = [unlearner.batch_source.sample(dataset, 2)[:]["labels"].tolist() for dataset in data.values()]
    assert not set(samples[0]) & set(samples[1]) and len(set(samples[1])) == 2
    assert unlearner.unlearn().search.target == "unseen"


def test_where_trials_follow_a_sample_enters_the_fisher_unless_all_rows_must(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_deepclean.phases.MAX_FISHER_EXAMPLES", 30)
    digits = tiny.digits()
    auto = auto_unlearner_for(tmp_path / "a")
    assert [fisher.num_examples for fisher in fishers(auto)] == [24, 30]
    more = auto_unlearner_for(tmp_path / "a", fisher_max_examples=40)
    assert [fisher.num_examples for fisher in fishers(more)] == [24, 40]
    assert fishers(unlearner_for(tmp_path / "a"))[1].num_examples == len(RETAIN)
    streamed = splits(retain_dataset=digits.select(RETAIN).to_iterable_dataset())
    assert fishers(auto_unlearner_for(tmp_path / "a", streamed, max_steps=1))[1].num_examples == len(RETAIN)
    rows = digits[: RETAIN.stop]
    batch = {key: rows[key] for key in ("pixel_values", "labels")}
    accumulate_fisher_diagonal(auto.model, [batch]).save_pretrained(tmp_path / "kept", auto.model)
    beside = FisherUnlearner(auto.model, auto.args, kept_fisher=tmp_path / "kept", **splits())
    assert fishers(beside)[1].num_examples == len(RETAIN)


def test_a_run_by_trials_reports_how_it_chose_and_its_sweep_beside(tmp_path):
    unlearner = auto_unlearner_for(tmp_path / "a", class_request(), gamma_sweep=[1.0])
    report = unlearner.unlearn()
    assert UnlearningReport.load(tmp_path / "a" / "report.json") == report
    search = report.search
    chosen = search.trials[search.chosen]
    assert (chosen.num_selected, chosen.gamma) == (report.selection.num_selected, report.selection.gamma)
    assert search.num_examples == {"forget": len(THREES), "retain": 64}
    # Where the sample is all there is, a trial is what the reset then does.
    assert search.before.forget == report.stages["before"].splits["forget"].accuracy
    assert chosen.forget == report.stages["after_reset"].splits["forget"].accuracy
    assert chosen.retain >= search.chance + MIN_KNOWLEDGE_LEFT * (search.before.retain - search.chance)
    assert report.gamma_trials[0].num_selected > 0
    text = str(report)
    assert f"found by {NUM_TRIALS} trials on {len(THREES)} forget, 64 retain examples" in text
    assert "the target was 'chance'." in text and text.count("(chosen)") == 1


def penalised(directory, **kwargs):
    """A run whose repair would bring all forget data back."""
    arguments = {"num_train_epochs": 10, "learning_rate": 2e-2, "per_device_train_batch_size": 16}
    unlearner = auto_unlearner_for(directory, **(arguments | kwargs))
    return unlearner, unlearner.unlearn()


def test_a_penalty_keeps_the_repair_from_bringing_the_forget_data_back(tmp_path):
    (free, without), (held, report) = (
        penalised(tmp_path / name, forget_penalty=weight) for name, weight in (("a", 0.0), ("b", None))
    )
    assert same_selection(free, held)
    losses = [one.stages["after_repair"].splits["forget"].mean_loss for one in (without, report)]
    before = report.stages["before"].splits["unseen"].mean_loss
    assert losses[0] < 0.5 * before and losses[1] > 2 * losses[0]
    assert report.stages["after_repair"].splits["retain"].accuracy > 0.9
    # The penalty moves the selected weights alone.
    frozen = outside(tiny.trained(), held.selection)
    assert all(torch.equal(value, frozen[name]) for name, value in outside(held.model, held.selection).items())
    note = "In some of its steps the repair held the forget data to the losses of the unseen ones (weight 1.5)"
    assert note in str(report) and note not in str(without)


def test_the_penalty_is_left_out_where_nothing_says_how_much_is_known_of_unseen_data(tmp_path):
    for data, kwargs in (
        (splits(), {"reset_fraction": 0.2}),
        (splits(), {"forget_penalty": 0.0}),
        (class_request(), {}),
    ):
        unlearner = auto_unlearner_for(tmp_path / "a", data, **kwargs)
        unlearner.select_weights(*fishers(unlearner))
        assert unlearner._phases.repair_plan(unlearner.search).penalty is None
    data = {name: dataset for name, dataset in splits().items() if name != "unseen_dataset"}
    unlearner = unlearner_for(tmp_path / "a", tiny.trained(), data, reset_fraction=None, num_selection_trials=1)
    unlearner.select_weights(*fishers(unlearner))
    assert unlearner._phases.repair_plan(unlearner.search).penalty is None


def rows_of_the_epochs(unlearner):
    """The rows that every epoch of a repair reads, each with its loss."""
    epochs, record = {}, HardExampleSampler.record

    def noted(order, rows, losses):
        epochs.setdefault(order.epoch, []).extend(zip(rows, losses, strict=True))
        record(order, rows, losses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HardExampleSampler, "record", noted)
        unlearner.unlearn()
    return epochs


def test_after_its_first_epoch_a_repair_reads_the_rows_with_the_largest_losses(tmp_path):
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "hard_example_share": 0.5}
    unlearner = auto_unlearner_for(tmp_path / "a", **arguments)
    epochs = rows_of_the_epochs(unlearner)
    assert sorted(row for row, _ in epochs[0]) == list(range(len(RETAIN)))
    hardest = sorted(epochs[0], key=lambda pair: pair[1])[len(RETAIN) // 2 :]
    assert sorted(row for row, _ in epochs[1]) == sorted(2 * [row for row, _ in hardest])


@pytest.mark.parametrize(
    ("kwargs", "share"),
    [
        ({}, 0.5),
        ({"hard_example_share": 1.0}, 1.0),
        ({"hard_example_share": 0.25}, 0.25),
        ({"reset_fraction": 0.2}, 1.0),
        ({"reset_fraction": 0.2, "hard_example_share": 0.25}, 0.25),
        ({"train_sampling_strategy": "sequential"}, 1.0),
    ],
)
def test_rows_are_ordered_by_their_losses_where_all_were_known_or_where_that_is_asked_for(tmp_path, kwargs, share):
    unlearner = auto_unlearner_for(tmp_path / "a")
    predictions = unlearner._phases.evaluator().predict(unlearner.model, tiny.digits(), "try")
    answers = predictions.log_probabilities.argmax(axis=1)
    known = [row for row in RETAIN if answers[row] == tiny.digits()[row]["labels"]]
    data = splits(retain_dataset=tiny.digits().select(known))
    report = auto_unlearner_for(tmp_path / "a", data, num_train_epochs=2, **kwargs).unlearn()
    assert report.settings["hard_example_share"] == share


def test_rows_that_a_model_never_knew_are_not_what_its_repair_is_about(tmp_path):
    report = auto_unlearner_for(tmp_path / "a").unlearn()
    assert report.search.before.retain < 0.95
    assert report.settings["hard_example_share"] == 1.0


def test_rows_of_a_stream_cannot_be_ordered_by_their_losses(tmp_path):
    data = splits(retain_dataset=tiny.digits().select(RETAIN).to_iterable_dataset())
    assert auto_unlearner_for(tmp_path / "a", data, max_steps=3).unlearn().settings["hard_example_share"] == 1.0
    with pytest.raises(ValueError, match="`retain_dataset` is a stream"):
        auto_unlearner_for(tmp_path / "b", data, max_steps=3, hard_example_share=0.5)


def test_streams_are_held_to_unseen_data_too(tmp_path):
    digits = tiny.digits()
    data = {"forget_dataset": digits.select(FORGET).to_iterable_dataset()}
    data["retain_dataset"] = digits.select(RETAIN).to_iterable_dataset()
    report = auto_unlearner_for(tmp_path / "a", data, max_steps=3).unlearn()
    assert "In some of its steps the repair held the forget data" in str(report)


@pytest.mark.parametrize("step", [5, 7, 10, 17])
def test_a_penalised_run_that_is_interrupted_in_any_epoch_ends_in_the_same_bits(tmp_path, step):
    whole, _ = penalised(tmp_path / "a", num_train_epochs=3, hard_example_share=0.5)

    class Interrupts(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

    arguments = {"num_train_epochs": 3, "learning_rate": 2e-2, "save_strategy": "steps", "save_steps": 2}
    arguments["hard_example_share"] = 0.5
    unlearner = auto_unlearner_for(tmp_path / "b", **arguments)
    unlearner.add_callback(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        unlearner.unlearn()
    resumed = auto_unlearner_for(tmp_path / "b", **arguments)
    resumed.unlearn(resume_from_checkpoint=True)
    assert resumed.search == whole.search
    values = tiny.parameters_and_buffers(resumed.model)
    for name, value in tiny.parameters_and_buffers(whole.model).items():
        assert torch.equal(value, values[name]), name


def test_what_a_repair_did_not_bring_back_is_warned_of_and_in_the_report(tmp_path, caplog):
    report = auto_unlearner_for(tmp_path / "a", num_train_epochs=0).unlearn()
    before, after = (report.stages[stage].splits["retain"].accuracy for stage in ("before", "after_repair"))
    assert before - after > MAX_RETAIN_DROP
    shortfall = report.shortfalls()[0]
    assert f"accuracy {100 * before:.1f} % before, {100 * after:.1f} % now" in shortfall
    assert shortfall in [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert shortfall in str(report)


def test_a_run_by_trials_that_is_interrupted_ends_in_the_same_bits(tmp_path, monkeypatch):
    whole = auto_unlearner_for(tmp_path / "whole")
    report = whole.unlearn()
    first = auto_unlearner_for(tmp_path / "parts")
    before, predict, tried = tiny.parameters_and_buffers(first.model), Evaluator.predict, []

    def stop_in_the_second_trial(evaluator, model, dataset, description):
        tried.append(description) if description == "try on forget" else None
        if len(tried) == 3:
            raise KeyboardInterrupt
        return predict(evaluator, model, dataset, description)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "predict", stop_in_the_second_trial)
        with pytest.raises(KeyboardInterrupt):
            first.unlearn()
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(first.model).items())

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    second = auto_unlearner_for(tmp_path / "parts")
    second.add_callback(Interrupt)
    with pytest.raises(KeyboardInterrupt):
        second.unlearn(resume_from_checkpoint=True)
    assert second.search == report.search

    last = auto_unlearner_for(tmp_path / "parts")
    monkeypatch.setattr(WeightSelector, "select", None)
    resumed = last.unlearn(resume_from_checkpoint=True)
    assert resumed.to_dict() | {"seconds": {}} == report.to_dict() | {"seconds": {}}
    tensors = tiny.parameters_and_buffers(whole.model)
    assert all(torch.equal(value, tensors[name]) for name, value in tiny.parameters_and_buffers(last.model).items())


def test_a_model_that_no_reset_spares_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_deepclean.selection.search.MIN_KNOWLEDGE_LEFT", 1.5)
    unlearner = auto_unlearner_for(tmp_path / "a")
    before = tiny.parameters_and_buffers(unlearner.model)
    with pytest.raises(ValueError, match="Every reset that was tried, down to .* and nothing was changed:\nreset"):
        unlearner.unlearn()
    assert all(torch.equal(v, before[name]) for name, v in tiny.parameters_and_buffers(unlearner.model).items())
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_relearning_is_measured_on_copies_and_changes_nothing_else(tmp_path):
    plain, model = vit(hidden_dropout_prob=0.1), vit(hidden_dropout_prob=0.1)
    data = splits(reference_model=vit())
    expected = unlearner_for(tmp_path / "a", plain, data).unlearn()
    unlearner = unlearner_for(tmp_path / "b", model, data, relearning_steps=96, relearning_learning_rate=1e-2)
    reference = tiny.parameters_and_buffers(unlearner.reference_model)
    report = unlearner.unlearn()
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(reference[n], v) for n, v in tiny.parameters_and_buffers(data["reference_model"]).items())
    assert report.stages == expected.stages
    relearning = report.relearning
    assert relearning.steps == (0, 1, 2, 4, 8, 16, 32, 64, 96)
    assert (relearning.learning_rate, relearning.measure) == (1e-2, "accuracy")
    assert list(relearning.curves) == list(relearning.intervals) == ["after_repair", "reference"]
    for stage, curve in relearning.curves.items():
        assert curve[0] == report.stages[stage].splits["forget"].accuracy < curve[-1]
        assert relearning.intervals[stage][0] == report.stages[stage].splits["forget"].accuracy_interval
        assert len(curve) == len(relearning.intervals[stage]) == 9
    assert set(report.seconds) - set(expected.seconds) == {"relearning"}
    assert UnlearningReport.load(tmp_path / "b" / "report.json") == report


def test_relearning_that_is_interrupted_ends_in_the_same_figures(tmp_path, monkeypatch):
    arguments = {"relearning_steps": 3, "num_train_epochs": 1}
    whole = unlearner_for(tmp_path / "whole", **arguments).unlearn()
    # All weights move, and not only the selected ones.
    assert whole.relearning.learning_rate == whole.settings["learning_rate"] / 10
    model = vit()
    before, interrupted = tiny.parameters_and_buffers(model), unlearner_for(tmp_path / "parts", model, **arguments)
    predict = Evaluator.predict

    def stop(evaluator, model, dataset, description):
        if description == "evaluate relearning" and model is not interrupted.model:
            raise KeyboardInterrupt
        return predict(evaluator, model, dataset, description)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            interrupted.unlearn()
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())
    report = unlearner_for(tmp_path / "parts", **arguments).unlearn(resume_from_checkpoint=True)
    first, second = (one.to_dict() | {"seconds": {}} for one in (whole, report))
    assert first == second


def test_relearning_from_other_data_starts_from_the_same_models_and_leaves_them_as_they_are(tmp_path):
    plain, model = vit(), vit()
    data = splits(reference_model=vit())
    expected = unlearner_for(tmp_path / "a", plain, data).unlearn()
    arguments = {"relearning_steps": 3, "relearning_learning_rate": 1e-2, "relearning_num_examples": 5}
    kinds = ["retain", "few_forget"]
    unlearner = unlearner_for(tmp_path / "b", model, data, relearning_data=kinds, **arguments)
    report = unlearner.unlearn()
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in model.state_dict().items())
    assert report.stages == expected.stages
    assert report.relearning is None
    assert list(report.further_relearning) == kinds
    assert [report.further_relearning[kind].num_forget_examples for kind in kinds] == [None, 5]
    for found in report.further_relearning.values():
        assert found.steps == (0, 1, 2, 3)
        assert found.excess() >= 0
        for stage, curve in found.curves.items():
            assert curve[0] == report.stages[stage].splits["forget"].accuracy
    assert UnlearningReport.load(tmp_path / "b" / "report.json") == report


def as_set(batch):
    return {tuple(row.flatten().tolist()) for row in batch["pixel_values"]}


def test_relearning_sees_of_the_forget_data_what_its_kind_says(tmp_path):
    unlearner = unlearner_for(
        tmp_path / "a", relearning_steps=9, relearning_num_examples=5, per_device_train_batch_size=4
    )
    forget, retain = (as_set(tiny.digits().select(rows)[:]) for rows in (FORGET, RETAIN))
    phases = unlearner._phases
    relearning = phases.relearning(phases.evaluator())
    batches = {
        kind: [as_set(batch) for batch in islice(relearning.batches(kind), 60)]
        for kind in ("forget", "retain", "few_forget")
    }
    assert set().union(*batches["forget"]) == forget
    # No more than the steps need, in no order that the data set may have.
    seen = set().union(*batches["retain"])
    assert len(seen) == 36 and seen < retain
    assert seen != as_set(tiny.digits().select(RETAIN[:36])[:])
    few, others = (set().union(*batches["few_forget"][start::2]) for start in (0, 1))
    assert len(few) == 5 and few < forget
    assert others == seen


def test_relearning_reads_streams(tmp_path):
    data = splits(retain_dataset=tiny.digits().select(RETAIN).to_iterable_dataset())
    arguments = {"relearning_steps": 2, "relearning_data": ["retain", "few_forget"], "max_steps": 2}
    report = unlearner_for(tmp_path / "a", data=data, **arguments).unlearn()
    assert [len(found.curves["after_repair"]) for found in report.further_relearning.values()] == [3, 3]


def test_rounded_models_are_evaluated_and_all_weights_are_as_they_were(tmp_path):
    plain, model = vit(), vit()
    data = splits(reference_model=vit(initializer_range=0.5))
    expected = unlearner_for(tmp_path / "a", plain, data).unlearn()
    unlearner = unlearner_for(tmp_path / "b", model, data, quantization_bits=[4, 8])
    reference = tiny.parameters_and_buffers(unlearner.reference_model)
    report = unlearner.unlearn()
    rounded = [f"{stage}_{bits}_bits" for bits in (4, 8) for stage in ("after_repair", "reference")]
    assert list(report.stages) == [*expected.stages, *rounded]
    assert {name: report.stages[name] for name in expected.stages} == expected.stages
    assert set(report.seconds) - set(expected.seconds) == {"quantization"}
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(reference[n], v) for n, v in tiny.parameters_and_buffers(unlearner.reference_model).items())
    for stage, one in (("after_repair", model), ("reference", unlearner.reference_model)):
        for bits in (4, 8):
            with quantized(one, bits):
                forget = unlearner.evaluate_unlearning(one).splits["forget"]
            assert report.stages[f"{stage}_{bits}_bits"].splits["forget"] == forget
    # All are compared with the reference as it is.
    of_reference = [report.stages[f"reference_{bits}_bits"].divergence_to_reference for bits in (4, 8)]
    assert of_reference[0] > of_reference[1] > 0
    assert UnlearningReport.load(tmp_path / "b" / "report.json") == report


def test_what_is_measured_in_the_end_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    arguments = {"quantization_bits": [4, 8], "num_train_epochs": 1}
    arguments |= {"relearning_steps": 1, "relearning_data": ["forget", "retain"]}
    whole = unlearner_for(tmp_path / "whole", **arguments).unlearn()
    model = vit()
    before, interrupted = tiny.parameters_and_buffers(model), unlearner_for(tmp_path / "parts", model, **arguments)
    done, measure = [], RelearningMeasurement.measure

    def stop(*args):
        raise KeyboardInterrupt

    def rounded_to(allowed):
        """Evaluates models that are rounded to the allowed numbers of bits, and is interrupted amid others."""

        def evaluate(evaluator, model, num_bits):
            if num_bits in allowed:
                done.append(num_bits)
                return evaluate_rounded(evaluator, model, num_bits)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Evaluator, "predict", stop)
                return evaluate_rounded(evaluator, model, num_bits)

        monkeypatch.setattr("hf_deepclean.phases.evaluate_rounded", evaluate)

    def trained_on(allowed):
        def measured(relearning, models, data):
            if data not in allowed:
                raise KeyboardInterrupt
            done.append(data)
            return measure(relearning, models, data)

        monkeypatch.setattr(RelearningMeasurement, "measure", measured)

    rounded_to([4])
    with pytest.raises(KeyboardInterrupt):
        interrupted.unlearn()
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())

    rounded_to([8])
    trained_on(["forget"])
    with pytest.raises(KeyboardInterrupt):
        unlearner_for(tmp_path / "parts", **arguments).unlearn(resume_from_checkpoint=True)
    assert done == [4, 8, "forget"]

    rounded_to([])
    trained_on(["retain"])
    report = unlearner_for(tmp_path / "parts", **arguments).unlearn(resume_from_checkpoint=True)
    assert done == [4, 8, "forget", "retain"]
    first, second = (one.to_dict() | {"seconds": {}} for one in (whole, report))
    assert first == second


def test_models_that_cannot_be_rounded_are_refused_before_any_work(tmp_path):
    wrong = vit()
    wrong.classifier.weight.requires_grad_(False)
    wrong.classifier.weight.data = wrong.classifier.weight.data.to(torch.int8)
    with pytest.raises(ValueError, match=r"cannot be measured of `reference_model`. The weight of classifier is torc"):
        unlearner_for(tmp_path / "a", data=splits(reference_model=wrong), quantization_bits=[4])
    assert not (tmp_path / "a").exists()


def test_a_reference_without_the_parameters_in_scope_cannot_relearn(tmp_path):
    data = splits(reference_model=resnet())
    unlearner_for(tmp_path / "a", data=data)
    with pytest.raises(ValueError, match=r"`reference_model` does not have \d+ of them, .*leave it at 0"):
        unlearner_for(tmp_path / "a", data=data, relearning_steps=1)


def test_a_reference_model_gives_gaps_and_divergence(tmp_path):
    vit().save_pretrained(tmp_path / "reference")
    report = unlearner_for(tmp_path / "a", data=splits(reference_model=str(tmp_path / "reference"))).unlearn()
    # The reference is the original model here, so that before unlearning every gap is 0.
    assert set(report.gaps_to_reference("before").values()) == {0.0}
    assert report.stages["before"].divergence_to_reference == pytest.approx(0, abs=1e-12)
    assert 0 < report.stages["after_repair"].divergence_to_reference <= math.log(2)
    for result in report.stages.values():
        figures, intervals = result.figures(), result.intervals()
        assert intervals.keys() == figures.keys()
        assert all(low <= figures[name] <= high for name, (low, high) in intervals.items())
    gap = report.gaps_to_reference("after_repair")["forget mean loss"]
    losses = [report.stages[stage].splits["forget"].mean_loss for stage in ("after_repair", "reference")]
    assert gap == losses[0] - losses[1] != 0


def test_what_a_trainer_user_relies_on_keeps_working(tmp_path):
    steps = []

    class Counter(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    def accuracy(outcome):
        return {"accuracy_again": (outcome.predictions.argmax(-1) == outcome.label_ids).mean()}

    data = splits(
        eval_dataset={"one": tiny.digits().select(range(160, 190)), "two": tiny.digits().select(range(190, 220))}
    )
    unlearner = FisherUnlearner(
        vit(),
        config(
            tmp_path / "a",
            logging_steps=1,
            lr_scheduler_type="linear",
            eval_strategy="epoch",
            label_smoothing_factor=0.1,
            bf16=True,
            use_cpu=True,
            max_grad_norm=0.1,
        ),
        callbacks=[Counter()],
        compute_metrics=accuracy,
        **data,
    )
    report = unlearner.unlearn()
    history = unlearner.state.log_history
    assert steps == list(range(1, 13))
    assert [entry["learning_rate"] for entry in history if "loss" in entry] == pytest.approx(
        # By default a tenth of the steps, rounded down, is a warm-up.
        [1e-2 * min(step / 1, (12 - step) / 11) for step in range(12)]
    )
    assert all(entry["grad_norm"] > 0 for entry in history if "loss" in entry)
    assert sum("eval_one_accuracy_again" in entry for entry in history) == 2
    split = report.stages["after_repair"].splits["eval_two"]
    assert split.metrics["accuracy_again"] == pytest.approx(split.accuracy)
    assert unlearner.args.max_grad_norm == 0.1
    assert "eval_loss" in unlearner.evaluate(tiny.digits().select(range(20)))


def test_mixed_precision_is_for_training_alone(tmp_path, monkeypatch):
    model, dtypes, phases = vit(), set(), []
    arguments = TrainingArguments(str(tmp_path / "t"), max_steps=1, bf16=True, use_cpu=True, report_to="none")
    trainer = Trainer(model, arguments, train_dataset=tiny.digits().select(range(8)))
    trainer.train()
    linear = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    linear.register_forward_hook(lambda module, _, output: dtypes.add(output.dtype))
    unlearner = FisherUnlearner(
        model, config(tmp_path / "a", bf16=True, use_cpu=True, random_mask_control=True), **splits()
    )
    train = RepairTrainer.train

    def train_apart(trainer, *args, **kwargs):
        phases.append(set(dtypes))
        dtypes.clear()
        train(trainer, *args, **kwargs)
        phases.append(set(dtypes))
        dtypes.clear()

    with monkeypatch.context() as patch:
        patch.setattr(RepairTrainer, "train", train_apart)
        unlearner.unlearn()
    phases.append(set(dtypes))
    assert phases == [{torch.float32}, {torch.bfloat16}] * 2 + [{torch.float32}]
    images = torch.stack([row["pixel_values"] for row in splits()["unseen_dataset"]])
    loaded = ViTForImageClassification.from_pretrained(tmp_path / "a").eval()
    assert torch.equal(model.eval()(images).logits, loaded(images).logits)
    dtypes.clear()
    trainer.train()
    assert dtypes == {torch.bfloat16}


def test_the_logged_gradient_norm_is_that_of_the_selected_weights(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", logging_steps=1, max_steps=1, reset_fraction=0.001)
    unlearner.unlearn()
    norm = next(entry["grad_norm"] for entry in unlearner.state.log_history if "grad_norm" in entry)
    moments = [state["exp_avg"] for state in unlearner.optimizer.state_dict()["state"].values()]
    clip = min(1.0, 1.0 / (norm + 1e-6))
    assert torch.cat(moments).norm().item() / 0.1 == pytest.approx(norm * clip, rel=1e-4)


def test_label_smoothing_is_that_of_the_trainer(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", label_smoothing_factor=0.3)
    rows = [tiny.digits()[index] for index in RETAIN]
    batch = {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.stack([row["labels"] for row in rows]),
    }
    outputs = unlearner.model(pixel_values=batch["pixel_values"])
    ours = unlearner.compute_loss(unlearner.model, dict(batch))
    assert ours.item() == pytest.approx(unlearner.label_smoother(outputs, batch["labels"]).item(), rel=1e-5)
    with pytest.raises(ValueError, match="Leave one of the two out"):
        FisherUnlearner(
            vit(),
            config(tmp_path / "b", label_smoothing_factor=0.3),
            log_likelihood_func=lambda outputs, labels: outputs.logits[:, 0],
            **splits(),
        )


def test_from_trainer_takes_over_model_data_and_arguments(tmp_path):
    class Mine(TrainerCallback):
        pass

    data = splits()
    args = TrainingArguments(
        str(tmp_path / "model"),
        learning_rate=5e-3,
        num_train_epochs=1,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        optim="sgd",
        disable_tqdm=True,
    )
    trainer = Trainer(vit(), args, train_dataset=data["retain_dataset"], eval_dataset=tiny.digits().select(UNSEEN))
    trainer.add_callback(Mine)
    unlearner = FisherUnlearner.from_trainer(
        trainer, forget_dataset=data["forget_dataset"], retain_dataset=data["retain_dataset"], gamma=1.0
    )
    assert unlearner.model is trainer.model
    assert unlearner.args.learning_rate == 5 * 5e-3
    assert unlearner.args.selection == "gamma"
    assert unlearner.args.output_dir == str(tmp_path / "model-unlearned")
    kinds = [type(callback) for callback in unlearner.callback_handler.callbacks]
    assert Mine in kinds
    assert len(kinds) == len(set(kinds))
    assert list(unlearner.unlearn().stages["before"].splits) == ["forget", "retain", "eval"]

    trainer.compute_loss_func = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match="`compute_loss_func`"):
        FisherUnlearner.from_trainer(
            trainer, forget_dataset=data["forget_dataset"], retain_dataset=data["retain_dataset"]
        )


def test_accepts_a_path_plain_arguments_other_data_sets_and_a_collator(tmp_path):
    tiny.trained().save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def rows(positions):
        digits = [tiny.digits()[position] for position in positions]
        return tiny.Rows([{"image": row["pixel_values"], "digit": row["labels"]} for row in digits])

    def collate(rows):
        return {
            "pixel_values": torch.stack([row["image"] for row in rows]),
            "labels": torch.stack([row["digit"] for row in rows]),
        }

    args = TrainingArguments(
        str(tmp_path / "a"), num_train_epochs=1, disable_tqdm=True, remove_unused_columns=False, learning_rate=1e-3
    )
    unlearner = FisherUnlearner(
        str(tmp_path / "model"), args, collate, forget_dataset=rows(FORGET), retain_dataset=rows(RETAIN)
    )
    report = unlearner.unlearn()
    assert report.selection.rule == report.settings["selection"] == "auto"
    assert report.stages["after_repair"].membership is None
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == files


def test_a_text_classifier_with_its_tokenizer_and_sentences_of_any_length(tmp_path):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *"abcdefghij"])}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    generator = np.random.default_rng(0)
    sentences = [" ".join(generator.choice([*"abcdefghij"], size=generator.integers(2, 12))) for _ in range(90)]
    rows = {"text": sentences, "label": [sentence.count("a") % 2 for sentence in sentences]}
    dataset = datasets.Dataset.from_dict(rows).map(lambda row: tokenizer(row["text"]), keep_in_memory=True)
    torch.manual_seed(0)
    unlearner = FisherUnlearner(
        tiny.randomized(tiny.bert(num_labels=2), torch.float32),
        config(tmp_path / "a"),
        forget_dataset=dataset.select(range(10)),
        retain_dataset=dataset.select(range(10, 70)),
        unseen_dataset=dataset.select(range(70, 90)),
        processing_class=tokenizer,
    )
    report = unlearner.unlearn()
    assert report.fisher_fallback == {}
    assert "bert.embeddings.word_embeddings" in report.selection.per_module
    assert report.settings["reset_value"] == "init"
    assert report.stages["after_repair"].membership.num_unseen == 20
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "a").config.problem_type is None


def test_without_epochs_there_is_a_reset_and_no_repair(tmp_path):
    report = unlearner_for(tmp_path / "a", num_train_epochs=0).unlearn()
    assert report.stages["after_repair"] == report.stages["after_reset"]


def test_fisher_max_examples_draws_that_many_by_the_seed(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", fisher_max_examples=30)
    forget, retain = fishers(unlearner)
    assert (forget.num_examples, retain.num_examples) == (24, 30)
    again = unlearner.compute_fisher(unlearner.retain_dataset)
    assert all(torch.equal(total, again.sums[name]) for name, total in retain.sums.items())


@pytest.mark.parametrize("fisher_type", ["sampled", "expected"])
def test_the_other_fisher_types_run_end_to_end(tmp_path, fisher_type):
    report = unlearner_for(tmp_path / "a", fisher_type=fisher_type, num_train_epochs=1).unlearn()
    assert report.settings["fisher_type"] == fisher_type


def test_the_fisher_batch_size_changes_nothing_but_rounding(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    first = unlearner.compute_fisher(unlearner.retain_dataset).mean()
    unlearner.args.per_device_fisher_batch_size = 7
    second = unlearner.compute_fisher(unlearner.retain_dataset).mean()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=1e-3, atol=1e-6 * value.max().item() + 1e-12)


def test_excluded_modules_are_left_alone(tmp_path):
    model = vit()
    before = model.classifier.weight.detach().clone()
    unlearner_for(tmp_path / "a", model, exclude_modules=["classifier"]).unlearn()
    assert torch.equal(model.classifier.weight, before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda d: {"forget_dataset": d.select([])}, "`forget_dataset` is empty"),
        (lambda d: {"retain_dataset": d.select([])}, "`retain_dataset` is empty"),
        (lambda d: {"retain_dataset": d.select(range(22, 60))}, "2 of 24 rows of `forget_dataset`"),
        (lambda d: {"forget_dataset": d.select(FORGET).remove_columns("labels")}, "`forget_dataset` has no labels"),
        (lambda d: {"unseen_dataset": d.select(UNSEEN).remove_columns("labels")}, "`unseen_dataset` has no labels"),
    ],
)
def test_bad_data_are_refused_before_any_work(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        unlearner_for(tmp_path / "a", data=splits(**data(tiny.digits())))
    assert not (tmp_path / "a" / "report.json").exists()


def test_patterns_and_checkpoints_that_do_not_exist_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="matches no module"):
        unlearner_for(tmp_path / "a", target_modules=["clasifier"])
    with pytest.raises(OSError, match="nowhere"):
        unlearner_for(tmp_path / "a", reset_value="pretrained", pretrained_model=str(tmp_path / "nowhere"))


def test_rewinding_to_a_checkpoint_runs_end_to_end(tmp_path):
    base = vit()
    base.save_pretrained(tmp_path / "base")
    model = vit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    arguments = {"reset_value": "pretrained", "pretrained_model": str(tmp_path / "base"), "num_train_epochs": 0}
    unlearner = unlearner_for(tmp_path / "a", model, **arguments)
    unlearner.unlearn()
    for name, indices in unlearner.selection.indices.items():
        cleaned, before = (dict(m.named_parameters())[name].flatten()[indices] for m in (model, base))
        assert torch.equal(cleaned, before)


def test_labels_outside_the_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="outside the head's range 0 to 3"):
        unlearner_for(tmp_path / "a", tiny.vit(num_labels=4))


def test_an_output_directory_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        unlearner_for(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", num_train_epochs=1)
    unlearner.unlearn()
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        unlearner.unlearn()


def test_a_model_that_is_no_pretrained_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not a `PreTrainedModel`"):
        unlearner_for(tmp_path / "a", torch.nn.Linear(2, 2))


def test_phases_out_of_order_are_refused(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    with pytest.raises(RuntimeError, match="Call `select_weights` first"):
        unlearner.reset_weights()
    with pytest.raises(RuntimeError, match="`train` repairs the weights that were reset"):
        unlearner.train()


def test_a_repair_that_diverges_stops_with_what_to_do(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", learning_rate=1e30)
    with pytest.raises(ValueError, match="Lower `learning_rate`"):
        unlearner.unlearn()
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_a_failure_while_saving_leaves_no_half_written_output(tmp_path, monkeypatch):
    def full_disk(self, path):
        raise OSError("No space left on device")

    monkeypatch.setattr(UnlearningReport, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        unlearner_for(tmp_path / "a", num_train_epochs=0).unlearn()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["_unlearning_state"]


def test_a_launch_whose_processes_do_not_know_of_each_other_is_refused_with_the_fix(tmp_path, monkeypatch):
    args = config(tmp_path / "a")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RuntimeError, match="3 processes were launched, but each of them sees 1.*use_cpu=True"):
        FisherUnlearner(vit(), args, **splits())


@pytest.mark.parametrize(("variable", "name"), [("DEEPSPEED", "DeepSpeed.*ZeRO-3"), ("FSDP", "FSDP by Accelerate")])
def test_engines_that_shard_too_late_are_refused_by_name(tmp_path, monkeypatch, variable, name):
    args = config(tmp_path / "a")
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(ValueError, match=f"{name}.*distributed_config"):
        FisherUnlearner(vit(), args, **splits())


def test_there_is_nothing_to_publish_before_the_run_is_finished(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    for publish in (unlearner.push_to_hub, unlearner.save_pretrained):
        with pytest.raises(FileNotFoundError, match=r"Call `unlearn\(\)` first"):
            publish("me/clean")


def test_nothing_of_the_forget_data_is_in_the_report(tmp_path):
    unlearner_for(tmp_path / "a", num_train_epochs=1).unlearn()
    text = (tmp_path / "a" / "report.json").read_text()
    image = tiny.digits()[0]["pixel_values"].flatten().tolist()
    assert str(image[:6])[1:-1] not in text
    assert str(tmp_path) not in text


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
