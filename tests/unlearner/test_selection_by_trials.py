# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherUnlearner, UnlearningReport, accumulate_fisher_diagonal
from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from hf_deepclean.selection.search import MIN_KNOWLEDGE_LEFT
from hf_deepclean.selection.selector import WeightSelector
from tests import tiny
from tests.unlearner.runs import (
    NUM_TRIALS,
    OTHERS,
    RETAIN,
    THREES,
    as_set,
    auto_unlearner_for,
    class_request,
    fishers,
    resnet,
    splits,
    unlearner_for,
)


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
    monkeypatch.setattr("hf_deepclean.run_plan.MAX_FISHER_EXAMPLES", 30)
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


def test_what_a_repair_did_not_bring_back_is_warned_of_and_in_the_report(tmp_path, caplog, monkeypatch):
    # The reset of a small request is shallow.
    monkeypatch.setattr("hf_deepclean.selection.search.SMALL_REQUEST", 0)
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

    second = tiny.interrupt_after(auto_unlearner_for(tmp_path / "parts"), step=1)
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
    for name in ("MIN_KNOWLEDGE_LEFT", "MIN_KNOWLEDGE_LEFT_OF_SMALL"):
        monkeypatch.setattr(f"hf_deepclean.selection.search.{name}", 1.5)
    unlearner = auto_unlearner_for(tmp_path / "a")
    before = tiny.parameters_and_buffers(unlearner.model)
    with pytest.raises(ValueError, match="Every reset that was tried, down to .* and nothing was changed:\nreset"):
        unlearner.unlearn()
    assert all(torch.equal(v, before[name]) for name, v in tiny.parameters_and_buffers(unlearner.model).items())
    assert not list((tmp_path / "a").glob("*.safetensors"))
