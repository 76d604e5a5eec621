# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
from itertools import islice

import pytest
import torch

from hf_deepclean import UnlearningReport, quantized
from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.evaluation.recovery import RelearningMeasurement, evaluate_rounded
from tests import tiny
from tests.unlearner.runs import FORGET, RETAIN, as_set, resnet, splits, unlearner_for, vit


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


def test_relearning_sees_of_the_forget_data_what_its_kind_says(tmp_path):
    unlearner = unlearner_for(
        tmp_path / "a", relearning_steps=9, relearning_num_examples=5, per_device_train_batch_size=4
    )
    forget, retain = (as_set(tiny.digits().select(rows)[:]) for rows in (FORGET, RETAIN))
    phases = unlearner._phases
    relearning = phases.make_recovery(phases.make_evaluator()).make_relearning()
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

        monkeypatch.setattr("hf_deepclean.recovery_phase.evaluate_rounded", evaluate)

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
        # Too few unseen rows.
        assert figures.keys() - intervals.keys() == {"membership TPR at 1 % FPR"} == set(result.too_few_rows())
        assert all(low <= figures[name] <= high for name, (low, high) in intervals.items())
    gap = report.gaps_to_reference("after_repair")["forget mean loss"]
    losses = [report.stages[stage].splits["forget"].mean_loss for stage in ("after_repair", "reference")]
    assert gap == losses[0] - losses[1] != 0


def test_a_share_of_the_evaluation_data_serves_as_unseen_data_if_asked_for(tmp_path):
    digits = tiny.digits()
    data = splits(unseen_dataset=None, eval_dataset=digits.select(range(200, 240)))
    without = unlearner_for(tmp_path / "a", vit(), data, num_train_epochs=0)
    assert "Membership would not be measured" in str(without.preview())
    report = without.unlearn()
    assert report.stages["before"].membership is None
    hint = "set `unseen_share_of_eval`, such as 0.5, to take them from the evaluation data"
    assert hint in str(report)
    unlearner = unlearner_for(tmp_path / "b", vit(), data, num_train_epochs=0, unseen_share_of_eval=0.5)
    assert "unseen examples are taken from the evaluation data" in str(unlearner.preview())
    taken, report = len(unlearner.unseen_dataset), unlearner.unlearn()
    before = report.stages["before"]
    assert 15 <= taken <= 20 and before.membership.num_unseen == taken
    assert before.splits["eval"].num_examples == len(unlearner.eval_dataset) == 40 - taken
    assert as_set(unlearner.unseen_dataset[:]) | as_set(unlearner.eval_dataset[:]) == as_set(data["eval_dataset"][:])
    assert f"The {taken} unseen examples were taken from the evaluation data" in str(report)
    assert hint not in str(report)
