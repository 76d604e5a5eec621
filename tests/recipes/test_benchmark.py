# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import gzip
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def source(benchmark):
    """Two hundred digits, and two epochs of training."""
    return benchmark["task_data"].DataSource(fraction=0.05)


@pytest.fixture(scope="module")
def finished(benchmark, source, tmp_path_factory):
    """A folder in which all jobs of one method and one seed were done in this process, and these jobs."""
    folder = tmp_path_factory.mktemp("benchmark")
    needs = benchmark["jobs"].all_jobs(["digits-random"], [0], ["FineTuning"])
    for job in needs:
        benchmark["jobs"].do(job, folder, source)
    return folder, list(needs)


def write_fashion_mnist(folder, num_images):
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = generator.integers(0, 256, (num_images, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, num_images, dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def test_the_jobs_of_all_tasks_come_after_what_they_need(benchmark):
    tasks, methods = benchmark["tasks"].TASKS, benchmark["methods"].METHODS
    needs = benchmark["jobs"].all_jobs(tasks, [0, 1], methods)
    done = set()
    for job, before in needs.items():
        assert done.issuperset(before), job
        done.add(job)
    assert len(tasks) == 18 and len({job.name for job in needs}) == len(needs)
    runs = {(job.task, job.what) for job in needs if job.kind == "run"}
    assert ("text-random", "SubspaceForgetting") not in runs and ("text-class", "SubspaceForgetting") in runs


def test_every_request_for_the_same_data_shares_one_original(benchmark):
    originals = [
        job.name
        for job in benchmark["jobs"].all_jobs(["digits-random", "digits-class"], [0], ["FisherUnlearner"])
        if job.kind == "train"
    ]
    assert len(originals) == 3 and sum("original" in name for name in originals) == 1


def test_every_baseline_has_as_many_candidates_and_none_trains_for_more_than_its_budget(benchmark):
    methods = benchmark["methods"]
    budget = methods.Budget(
        learning_rate=1e-3,
        batch_size=64,
        num_forget=120,
        num_retain=1080,
        num_examples=6480,
    )
    for name in methods.BASELINES:
        candidates = methods.candidates_of(name, budget)
        assert len(candidates) == methods.NUM_CANDIDATES == len(set(candidates)), name
        for candidate in candidates:
            epochs = getattr(candidate, "num_train_epochs", 0)
            read = 120 if name == "ProjectedGradientUnlearning" else 1080
            assert epochs * read <= 6480


@pytest.mark.parametrize("name", ["digits", "text"])
def test_no_split_shares_a_row_and_a_class_is_forgotten_whole(benchmark, source, name):
    for request in ("random", "class"):
        task = benchmark["tasks"].TASKS[f"{name}-{request}"]
        data = task.data(0, source)
        parts = (data.forget, data.retain, data.unseen, data.eval)
        seen = [str([np.asarray(value).tolist() for value in row.values()]) for part in parts for row in part]
        assert len(set(seen)) == len(seen)
        assert len(data.forget) + len(data.retain) == len(data.original_rows)
        if request == "class":
            gone = task.family.forgotten_class
            assert {row["labels"] for row in data.forget + data.unseen} == {gone}
            assert gone not in {row["labels"] for row in data.retain + data.eval}


@pytest.mark.parametrize("name", ["digits-random", "text-random", "biographies-full"])
def test_membership_is_attacked_by_rows_that_neither_a_model_nor_a_method_saw(benchmark, source, name):
    data = benchmark["tasks"].TASKS[name].data(0, source)

    def rows(*parts):
        return {str([np.asarray(value).tolist() for value in row.values()]) for part in parts for row in part}

    attacked = rows(data.attacked)
    assert attacked.isdisjoint(rows(data.forget, data.retain, data.unseen, data.original_rows, data.reference_rows))
    assert len(attacked) == len(data.attacked) >= len(data.forget)


def test_the_cost_of_ours_is_that_of_all_phases_but_the_evaluations(benchmark, source):
    methods, task = benchmark["methods"], benchmark["tasks"].TASKS["digits-random"]
    data = task.data(0, source)
    recipe = dataclasses.replace(task.family.recipe, original_num_train_epochs=20)
    args = SimpleNamespace(disable_tqdm=True, use_cpu=True, bf16=False, seed=0)
    model = benchmark["train_models"].train(task.new_model(data), data.original_rows, recipe, args, data.data_collator)
    outcome = methods.run_ours(model, task, data, source, 0)
    assert {"evaluation", "forget Fisher", "retain Fisher", "selection", "reset", "repair"} <= outcome.phases.keys()
    expected = sum(seconds for phase, seconds in outcome.phases.items() if phase != "evaluation")
    assert outcome.clock.seconds == pytest.approx(expected, rel=0.05)
    assert 0 < outcome.clock.processor_seconds


def test_fashion_mnist_is_read_from_its_files_and_asked_for_where_there_are_none(benchmark, tmp_path):
    tasks, source_of = benchmark["tasks"], benchmark["task_data"].DataSource
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        tasks.TASKS["fashion-vit-random"].data(0, source_of(str(tmp_path)))
    write_fashion_mnist(tmp_path, 400)
    data = tasks.TASKS["fashion-vit-random"].data(0, source_of(str(tmp_path), fraction=0.05))
    assert (len(data.forget), len(data.retain), len(data.unseen)) == (20, 180, 200)
    assert data.forget[0]["pixel_values"].shape == (1, 28, 28)


def write_results(benchmark, needs, folder, source):
    """Writes placeholder results of all jobs except those that train."""
    for job in needs:
        if job.kind != "train":
            job.result(folder).parent.mkdir(parents=True, exist_ok=True)
            record = dataclasses.asdict(job) | {"source": dataclasses.asdict(source)}
            job.result(folder).write_text(json.dumps(record, indent=2) + "\n")


def test_records_bring_all_results_back_but_those_to_do_again(benchmark, source, tmp_path):
    records, jobs = benchmark["records"], benchmark["jobs"]
    needs = jobs.all_jobs(["digits-random", "digits-class"], [0, 1], ["FisherUnlearner", "FineTuning"])
    write_results(benchmark, needs, tmp_path / "a", source)
    num_records = records.save_records(tmp_path / "a", tmp_path / "records.jsonl")
    restore = functools.partial(records.restore_records, tmp_path / "records.jsonl", tmp_path / "b", source)
    assert restore(redo=["FisherUnlearner"]) == num_records - 4 and restore() == 4 and restore() == 0
    texts = {
        folder: {path.relative_to(tmp_path / folder): path.read_text() for path in tmp_path.glob(f"{folder}/*/*/*")}
        for folder in "ab"
    }
    assert texts["a"] == texts["b"] and len(texts["a"]) == num_records
    with pytest.raises(ValueError, match="--fraction 0.05"):
        records.restore_records(tmp_path / "records.jsonl", tmp_path / "c", benchmark["task_data"].DataSource())


def test_what_only_finished_jobs_need_is_not_done(benchmark, source, tmp_path):
    jobs = benchmark["jobs"]
    needs = jobs.all_jobs(["digits-random"], [0, 1], ["FisherUnlearner", "FineTuning"])
    assert jobs.wanted(needs, tmp_path) == list(needs)
    write_results(benchmark, needs, tmp_path, source)
    assert jobs.wanted(needs, tmp_path) == []
    lost = next(job for job in needs if job.kind == "run" and job.what == "FineTuning" and job.seed == 1)
    lost.result(tmp_path).unlink()
    assert {(job.kind, job.what, job.seed) for job in jobs.wanted(needs, tmp_path)} == {
        ("train", "original", 1),
        ("train", "reference", 1),
        ("run", "FineTuning", 1),
    }


@pytest.mark.slow
def test_a_finished_job_is_not_done_again_and_a_lost_one_comes_out_the_same(benchmark, source, finished, monkeypatch):
    folder, jobs = finished
    contents = {job: job.result(folder).read_bytes() for job in jobs}
    lost = next(job for job in jobs if job.kind == "run" and job.what == "FineTuning")
    lost.result(folder).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(benchmark["train_models"], "train", lambda *args: pytest.fail("trained again"))
        for job in jobs:
            benchmark["jobs"].do(job, folder, source)
    assert all(job.result(folder).read_bytes() == content for job, content in contents.items() if job != lost)
    before, after = json.loads(contents[lost]), json.loads(lost.result(folder).read_text())
    for name in ("figures", "relearning", "four_bits", "settings", "chosen"):
        assert after[name] == before[name]


@pytest.mark.slow
def test_the_command_does_jobs_in_processes_and_reports_what_fails(benchmark, source, finished, tmp_path, capsys):
    folder, jobs = finished
    run = benchmark["run"]
    assert run.run(dict.fromkeys(jobs, []), folder, source, 2) == {}
    missing = benchmark["task_data"].DataSource(str(tmp_path))
    needs = benchmark["jobs"].all_jobs(["fashion-vit-random"], [0], ["FisherUnlearner"])
    failures = run.run(needs, tmp_path, missing, 2)
    assert set(failures) == set(needs) and not (tmp_path / "results").exists()
    original = next(job for job in needs if job.what == "original")
    log = tmp_path / "logs" / "models-fashion-vit-original-0-training.log"
    assert str(log) in failures[original] and "apt-get" in log.read_text()
    assert "FAILED" in capsys.readouterr().out


def test_a_folder_does_not_mix_results_of_different_data(benchmark, source, tmp_path):
    benchmark["run"].check_settings(tmp_path, source)
    benchmark["run"].check_settings(tmp_path, source)
    with pytest.raises(ValueError, match="--fraction 0.05"):
        benchmark["run"].check_settings(tmp_path, benchmark["task_data"].DataSource())


def figures(forget, retain, unseen, auc=0.5):
    return {"accuracy": {"forget": forget, "retain": retain, "unseen": unseen}, "auc": auc}


def test_the_rule_wants_forgotten_data_to_look_unseen_and_classes_to_be_gone(benchmark):
    score = benchmark["choose"].score
    original = figures(1.0, 1.0, 0.8, 0.7)
    assert score("random", figures(0.8, 1.0, 0.8), original) == 0
    assert score("random", original, original) == pytest.approx(40)
    assert score("random", figures(0.8, 0.9, 0.8), original) == pytest.approx(10)
    assert score("random", figures(0.1, 0.1, 0.1), original) == pytest.approx(160)
    assert score("class", figures(0.0, 1.0, 0.0), original) == 0
    assert score("class", original, original) == 100
    assert score("class", figures(0.0, 0.7, 0.0), original) == pytest.approx(30)
    # Being better than the original costs nothing.
    assert score("class", figures(0.0, 1.0, 0.9), figures(1.0, 0.9, 0.8)) == 0


def test_the_rule_takes_the_first_of_the_best_and_none_that_failed(benchmark):
    choose = benchmark["choose"].choose
    assert choose([3.0, 1.0, 1.0, None]) == 1
    assert choose([None, math.nan, math.inf, 7.0]) == 3
    assert choose([None, None]) is None


def test_what_the_rule_sees_has_nothing_of_reference_and_test_data(finished):
    folder, jobs = finished
    tuned = [json.loads(job.result(folder).read_text()) for job in jobs if job.kind == "tune"]
    assert len(tuned) == 5
    for record in tuned:
        assert record["seed"] == 10 and set(record["figures"]["accuracy"]) == {"forget", "retain", "unseen"}
        assert "jensen_shannon" not in record["figures"]
    assert not list((folder / "models").glob("*reference-10"))


@pytest.mark.slow
def test_tables_of_a_real_run_hold_its_figures(benchmark, finished):
    folder, _ = finished
    tables = benchmark["tables"]
    page = folder / "page.md"
    page.write_text(f"above\n{tables.BEGIN}\n{tables.END}\nbelow\n")
    tables.main(tables.make_parser().parse_args(["--output_dir", str(folder), "--markdown", str(page)]))
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "### digits-random" in text
    known = json.loads((folder / "results.json").read_text())
    record = json.loads((folder / "results" / "digits-random" / "FineTuning-0.json").read_text())
    reference = json.loads((folder / "results" / "digits-random" / "Reference-0.json").read_text())
    gap = 100 * (record["figures"]["accuracy"]["forget"] - reference["figures"]["accuracy"]["forget"])
    assert known["seeds"]["digits-random"]["FineTuning"]["0"]["forget"] == pytest.approx(gap)
    assert known["seeds"]["digits-random"]["Reference"]["0"]["average"] == 0
    assert (folder / "results.png").stat().st_size > 1000


def record(task, method, seed, forget, seconds):
    return {
        "task": task,
        "what": method,
        "seed": seed,
        "figures": {
            "accuracy": {"forget": forget, "retain": 1.0, "unseen": 0.8, "eval": 0.8},
            "mean_loss": {"forget": 1 - forget},
            "auc": 0.5,
            "tpr_at_1_percent_fpr": 0.01,
        },
        "retraining": {"processor_seconds": 100.0},
        "processor_seconds": seconds,
        "peak_bytes": 1e6,
        "relearning": {"movement": 0.0},
        "four_bits": {"forget": forget},
    }


def synthetic(ours, baselines):
    """Results of one task, from forget accuracies by seed and seconds."""
    found = {"Reference": ([0.8, 0.8, 0.8], 0), "Original": ([1.0, 1.0, 1.0], 0), "FisherUnlearner": ours, **baselines}
    return {
        "digits-random": {
            method: {seed: record("digits-random", method, seed, value, seconds) for seed, value in enumerate(values)}
            for method, (values, seconds) in found.items()
        }
    }


def test_the_cost_is_a_share_of_retraining_on_the_machine_on_which_a_method_ran(benchmark):
    slower = record("digits-random", "FisherUnlearner", 0, 0.8, 30.0) | {"retraining": {"processor_seconds": 200.0}}
    reference = record("digits-random", "Reference", 0, 0.8, 0.0)
    assert benchmark["tables"].describe(slower, reference)["cost"] == pytest.approx(15.0)


def test_intervals_are_those_of_the_t_distribution(benchmark):
    tables = benchmark["tables"]
    summary = tables.summarize(synthetic(([0.82, 0.84, 0.86], 10), {}))["digits-random"]
    mean, half = summary["FisherUnlearner"]["forget"]
    # 4.303 is the 97.5 % quantile for two degrees of freedom.
    assert mean == pytest.approx(4) and half == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-3)
    assert summary["FisherUnlearner"]["average"][0] == pytest.approx(1)
    assert summary["FisherUnlearner"]["loss"][0] == pytest.approx(-0.04)
    assert summary["FisherUnlearner"]["cost"][0] == pytest.approx(10)
    assert tables.mean_interval([3.0]) == (3.0, math.inf)


def test_ours_wins_where_no_baseline_of_its_cost_is_as_near(benchmark):
    tables = benchmark["tables"]

    def won(**baselines):
        return tables.wins(tables.summarize(synthetic(([0.82] * 3, 10), baselines)))

    assert won(FineTuning=([0.9] * 3, 5)) == ["digits-random"]
    assert won(FineTuning=([0.81] * 3, 5)) == []
    assert won(FineTuning=([0.82] * 3, 10)) == []
    assert won(FineTuning=([0.81] * 3, 20)) == ["digits-random"]
    assert won() == []


def test_what_does_not_apply_or_fails_is_said_in_the_tables(benchmark):
    tables = benchmark["tables"]
    results = synthetic(([0.82] * 3, 10), {"FineTuning": ([0.9] * 3, 5)})
    for found in results["digits-random"]["FineTuning"].values():
        del found["figures"]
        found["failure"] = "It diverged.\nMore."
    text = tables.markdown(results, tables.summarize(results))
    assert "| SubspaceForgetting | does not apply |" in text and "| FineTuning | fails: It diverged. |" in text


def test_small_requests_share_no_row_and_the_reference_saw_none_of_them(benchmark, source):
    module = benchmark["small_requests"]
    data = module.small_task("digits-random").data(0, source)
    total, pool = len(data.forget) + len(data.retain), {id(row) for row in data.forget}
    assert len(data.reference_rows) == total - len(pool) and not pool & {id(row) for row in data.reference_rows}
    by_size = {}
    for size, _, request in module.requests(data):
        rows = [id(row) for row in request.forget]
        assert len(rows) == size and len(request.retain) == total - size
        assert not set(rows) & {id(row) for row in request.retain}
        by_size.setdefault(size, []).extend(rows)
    assert by_size and all(len(rows) == len(set(rows)) and set(rows) <= pool for rows in by_size.values())


def test_small_requests_are_summed_up_by_model_and_size(benchmark):
    stage = {"auc": 0.6, "retain": 0.9, "eval": 0.8, "seconds": 2.0, "share": 0.1}
    result = {"task": "digits-random", "seed": 0, "unseen": True, "before": stage, "reference": stage}
    results = [result | {"size": 3, "after": stage | {"auc": auc}} for auc in (0.4, 0.6)]
    results.append(result | {"size": 1, "after": {"refused": True}})
    lines = benchmark["small_requests"].summarize(results).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| digits | yes | 3 | 2 | 0.600 | 0.500 ± 0.196 | 0.600 |")
