# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_deepclean import (
    FisherCallback,
    FisherDiagonal,
    FisherUnlearner,
    UnlearningReport,
    accumulate_fisher_diagonal,
    answer_requests,
)
from hf_deepclean.fisher.passes import FisherPass
from tests import tiny
from tests.unlearner import runs
from tests.unlearner.runs import vit


TRAIN = range(200)


def config(output, **kwargs):
    """The options of the runs, which evaluate in large batches."""
    return runs.config(output, **({"per_device_eval_batch_size": 100} | kwargs))


def train_dataset():
    return tiny.digits().select(TRAIN)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained model with its Fisher kept beside it."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    args = TrainingArguments(
        str(folder),
        num_train_epochs=12,
        learning_rate=1e-2,
        per_device_train_batch_size=32,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(vit(), args, train_dataset=train_dataset())
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    trainer.save_model()
    return folder


def parts(forget):
    dataset = train_dataset()
    retain = [row for row in TRAIN if row not in set(forget)]
    return {"forget_dataset": dataset.select(forget), "retain_dataset": dataset.select(retain)}


def unlearner_for(output, model, forget=range(20), **kwargs):
    kept = kwargs.pop("kept_fisher", None)
    return FisherUnlearner(str(model), config(output, **kwargs), kept_fisher=kept, **parts(forget))


@pytest.mark.parametrize(
    "rule", [{"reset_fraction": 0.2}, {"gamma": 2.0}, {"selection": "adaptive"}, {"num_selection_trials": 2}]
)
def test_a_kept_fisher_gives_the_selection_of_a_pass_over_the_retain_data_without_one(
    tmp_path, monkeypatch, trained, rule
):
    rule = {"reset_fraction": None, "num_train_epochs": 0} | rule
    full = unlearner_for(tmp_path / "full", trained, **rule)
    kept = unlearner_for(tmp_path / "kept", trained, kept_fisher=trained / "_fisher", **rule)
    passes, compute, expected = [], FisherPass.compute, full.unlearn()

    def noted(fisher_pass, model, parameters, dataset, description, checkpoint=None):
        passes.append(description)
        return compute(fisher_pass, model, parameters, dataset, description, checkpoint)

    monkeypatch.setattr(FisherPass, "compute", noted)
    report = kept.unlearn()
    assert report.selection.rule == full.args.selection
    assert report.selection.num_selected == expected.selection.num_selected
    same = sum(
        len(set(indices.tolist()) & set(kept.selection.indices.get(name, torch.tensor([])).tolist()))
        for name, indices in full.selection.indices.items()
    )
    assert same >= 0.999 * expected.selection.num_selected
    assert report.num_fisher_examples == expected.num_fisher_examples == {"forget": 20, "retain": 180}
    assert report.kept_fisher.num_examples == 200
    assert passes == ["forget Fisher", *(["retain Fisher"] if report.kept_fisher.retain_pass else [])]
    assert report.kept_fisher.retain_pass == report.kept_fisher.cancellation.matters
    assert "one pass over 200 examples" in str(report)
    assert report.search == kept.search and (report.search is None) == (full.args.selection != "auto")
    assert UnlearningReport.load(tmp_path / "kept" / "report.json") == report


def test_where_rounding_matters_the_retain_data_are_passed_over_all_the_same(tmp_path, trained):
    almost_all = range(199)
    full = unlearner_for(tmp_path / "full", trained, almost_all, num_train_epochs=0)
    kept = unlearner_for(tmp_path / "kept", trained, almost_all, num_train_epochs=0, kept_fisher=trained / "_fisher")
    full.unlearn()
    report = kept.unlearn()
    assert report.kept_fisher.retain_pass and "retain Fisher" in report.seconds
    assert all(torch.equal(indices, kept.selection.indices[name]) for name, indices in full.selection.indices.items())


def test_after_the_weights_have_changed_the_kept_fisher_is_stale_and_says_what_a_refresh_costs(tmp_path, trained):
    kept = FisherDiagonal.from_pretrained(trained / "_fisher")
    unlearner = unlearner_for(tmp_path / "clean", trained, kept_fisher=kept, num_train_epochs=1)
    unlearner.unlearn()
    message = r"The kept Fisher is stale.*A refresh costs one pass over 200 examples, which took [\d.]+ seconds"
    unlearner.args.output_dir = str(tmp_path / "again")
    with pytest.raises(ValueError, match=message):
        unlearner.unlearn()
    with pytest.raises(ValueError, match=message):
        unlearner_for(tmp_path / "next", tmp_path / "clean", kept_fisher=kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fisher_type": "expected"}, "'empirical' and the request 'expected'"),
        ({"fisher_max_examples": 5}, "fisher_max_examples=5"),
        ({"target_modules": ["classifier"]}, "on one side only"),
        ({"forget": range(20), "retain": range(20, 150)}, "of 200 examples, and .* have 150 rows together"),
    ],
)
def test_a_kept_fisher_that_does_not_serve_the_request_is_refused_before_any_pass(tmp_path, trained, changes, message):
    data = parts(range(20))
    if "retain" in changes:
        data["retain_dataset"] = train_dataset().select(changes.pop("retain"))
        changes.pop("forget")
    with pytest.raises(ValueError, match=message):
        FisherUnlearner(str(trained), config(tmp_path / "clean", **changes), kept_fisher=trained / "_fisher", **data)
    assert not (tmp_path / "clean").exists()


REQUESTS = {"first": [3, 50, 7], "second": range(100, 110), "third": [199]}


def test_requests_that_are_answered_together_have_a_report_each_on_their_own_rows(tmp_path, trained):
    args = config(tmp_path / "clean", random_mask_control=True)
    unseen = tiny.digits().select(range(300, 340))
    reports = answer_requests(
        str(trained),
        args,
        train_dataset=train_dataset(),
        requests=REQUESTS,
        kept_fisher=trained / "_fisher",
        unseen_dataset=unseen,
    )
    assert list(reports) == list(REQUESTS)
    whole = UnlearningReport.load(tmp_path / "clean" / "report.json")
    assert whole.stages["after_repair"].splits["forget"].num_examples == 14
    for number, (name, report) in enumerate(reports.items()):
        assert UnlearningReport.load(tmp_path / "clean" / f"request-{number:05d}.json") == report
        data = {"forget_dataset": train_dataset().select(REQUESTS[name]), "unseen_dataset": unseen}
        alone = FisherUnlearner(
            str(tmp_path / "clean"),
            config(tmp_path / f"alone-{number}"),
            retain_dataset=train_dataset().select(range(110, 199)),
            **data,
        )
        expected = alone.evaluate_unlearning()
        after = report.stages["after_repair"]
        assert after.splits["forget"].num_examples == len(REQUESTS[name])
        assert after.splits["forget"].mean_loss == pytest.approx(expected.splits["forget"].mean_loss, rel=1e-5)
        assert after.membership.auc == pytest.approx(expected.membership.auc)
        assert report.stages.keys() == whole.stages.keys()
        assert str(report)


def test_requests_that_are_answered_in_turn_each_have_a_run_on_the_result_of_the_one_before(tmp_path, trained):
    kept = trained / "_fisher"
    arguments = {"train_dataset": train_dataset(), "requests": REQUESTS, "mode": "sequential", "kept_fisher": kept}
    args = config(tmp_path / "clean", num_train_epochs=1)
    reports = answer_requests(str(trained), args, **arguments)
    assert args.output_dir == str(tmp_path / "clean")
    written = sorted(path.name for path in (tmp_path / "clean").iterdir())
    assert written == ["00000", "00001", "00002", "_requests.json"]
    assert (tmp_path / "clean" / "_requests.json").stat().st_mode & 0o777 == 0o600
    assert [report.num_fisher_examples["retain"] for report in reports.values()] == [197, 187, 186]
    assert [report.kept_fisher is not None for report in reports.values()] == [True, False, False]
    whole = {path.name: path.read_bytes() for path in (tmp_path / "clean" / "00002").iterdir()}

    # Interrupted between the second and the third.
    for path in (tmp_path / "clean" / "00002").iterdir():
        path.unlink()
    resumed = answer_requests(str(trained), args, resume_from_checkpoint=True, **arguments)
    assert resumed["second"] == reports["second"]
    assert (tmp_path / "clean" / "00002" / "model.safetensors").read_bytes() == whole["model.safetensors"]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({}, "`requests` is empty"),
        ({"a": []}, "at least one; they are 0"),
        ({"a": [1], "b": [200]}, "request 1 must be among the 200"),
        ({"a": [1, 2], "b": [2]}, "Row 2 is in the requests 0 and 1"),
        ({"a": [4, 4]}, "Row 4 is in the requests 0 and 0"),
    ],
)
def test_requests_that_cannot_be_answered_are_refused_before_any_work(tmp_path, requests, message):
    with pytest.raises(ValueError, match=message):
        answer_requests(vit(), config(tmp_path / "clean"), train_dataset=train_dataset(), requests=requests)


def test_an_unknown_mode_is_refused_by_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'batched', 'sequential'"):
        answer_requests(vit(), config(tmp_path), train_dataset=train_dataset(), requests={"a": [1]}, mode="parallel")


def test_what_a_pass_keeps_serves_as_what_the_callback_keeps(trained):
    model = FisherUnlearner(str(trained), config("unused"), **parts([0])).model
    kept = FisherDiagonal.from_pretrained(trained / "_fisher")
    rows = train_dataset()
    fisher = accumulate_fisher_diagonal(model, [{key: rows[key][:] for key in rows.column_names}])
    assert kept.num_examples == fisher.num_examples == 200
    for name, total in fisher.sums.items():
        assert (total - kept.sums[name]).abs().max() <= 1e-5 * total.abs().max()
