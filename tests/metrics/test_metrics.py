# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os
import socket
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from transformers import Trainer, TrainingArguments

from hf_deepclean import (
    average_gap,
    extraction_strength,
    is_verbatim,
    jensen_shannon_divergence,
    klom,
    klom_percentile,
    lira_scores,
    membership_attack,
    metrics,
    rmia_scores,
    tug_of_war,
)
from hf_deepclean.evaluation.figures.gaps import ACCURACIES, FIGURES
from tests import heads, tiny


FOLDER = Path(metrics.__file__).parent
ATTACK = ("auc", "auc_low", "auc_high", "tpr_at_1_percent_fpr")


@pytest.fixture(scope="module", autouse=True)
def module_cache(tmp_path_factory):
    """The folder that evaluate copies metric modules to."""
    with pytest.MonkeyPatch.context() as patch:
        # evaluate adds the folder to the path and leaves it there.
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """Computes a metric by its name; any network connection fails."""

    def refuse(*args):
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return lambda name, **inputs: metrics.load(name, cache_dir=str(tmp_path)).compute(**inputs)


def attack_of(scores, references):
    attack = membership_attack(scores[references == 1], scores[references == 0])
    return dict(zip(ATTACK, (attack.auc, *attack.auc_interval, attack.tpr_at_1_percent_fpr), strict=True))


def test_every_folder_is_a_metric_and_a_package_that_goes_into_the_wheel():
    assert sorted(path.parent.name for path in FOLDER.glob("*/__init__.py")) == list(metrics.NAMES)
    for name in metrics.NAMES:
        assert Path(metrics.path(name), f"{name}.py").is_file()


@pytest.mark.parametrize("name", metrics.NAMES)
def test_every_metric_says_what_it_is_what_it_takes_and_what_it_gives(name, tmp_path):
    metric = metrics.load(name, cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    assert len(metric.description) > 200
    assert "Args:" not in metric.description
    for feature in metric.features:
        assert f"    {feature} (`" in metric.inputs_description
    assert "Returns:\n    `" in metric.inputs_description


@pytest.mark.slow
def test_evaluate_itself_loads_a_metric_by_its_folder_in_a_process_without_a_network(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*args): raise SystemExit('asked for the network')\n"
        "socket.socket.connect = refuse\n"
        "import evaluate\nfrom hf_deepclean import metrics\n"
        "metric = evaluate.load(metrics.path('tug_of_war'))\n"
        "print(metric.compute(predictions=[0.5, 1.0, 0.9], references=[0.5, 1.0, 1.0])['tug_of_war'])\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.9)


def test_gaps_are_those_of_the_functions(compute):
    model, reference = [0.9, 0.97, 0.93, 0.55], [0.94, 1.0, 0.92, 0.5]
    named = [dict(zip(FIGURES, side, strict=True)) for side in (model, reference)]
    result = compute("average_gap", predictions=model, references=reference)
    assert result == {"average_gap": pytest.approx(average_gap(*named))}
    result = compute("tug_of_war", predictions=model[:3], references=reference[:3])
    assert result == {"tug_of_war": pytest.approx(tug_of_war(*named, ACCURACIES))}


def test_attacks_are_those_of_the_functions(compute):
    generator = np.random.default_rng(0)
    scores, references = -generator.random(60), generator.integers(0, 2, 60)
    others, population, of_population = (-generator.random(shape) for shape in ((60, 4), 30, (30, 4)))
    trained = np.tile([True, True, False, False], (60, 1))
    result = compute("membership_attack", predictions=scores, references=references)
    assert result == attack_of(scores, references)
    result = compute(
        "rmia",
        predictions=scores,
        references=references,
        reference_log_likelihood=others,
        population_log_likelihood=population,
        population_reference_log_likelihood=of_population,
        gamma=1.1,
    )
    assert result == attack_of(rmia_scores(scores, others, population, of_population, gamma=1.1), references)
    inputs = {"predictions": scores, "references": references, "shadow_confidence": others}
    assert compute("lira", **inputs) == attack_of(lira_scores(scores, others), references)
    result = compute("lira", **inputs, trained_on=trained.tolist(), pooled_variance=True)
    assert result == attack_of(lira_scores(scores, others, trained, pooled_variance=True), references)


def test_an_attack_on_anything_but_forgotten_and_unseen_examples_is_refused(compute):
    with pytest.raises(ValueError, match=r"1 for forgotten and 0 for unseen .*\[2\]"):
        compute("membership_attack", predictions=[0.1, 0.2, 0.3], references=[0, 1, 2])


def test_divergences_are_those_of_the_functions(compute):
    generator = np.random.default_rng(1)
    first, second = (log_softmax(generator.normal(size=(20, 5)), axis=1) for _ in range(2))
    first[0] = [0, *[-np.inf] * 4]
    result = compute("jensen_shannon_divergence", predictions=first, references=second)
    assert result["jensen_shannon_divergence"] == pytest.approx(jensen_shannon_divergence(first, second).mean())
    margins = generator.normal(size=(12, 8)), generator.normal(size=(12, 6))
    values = klom(*margins, num_bins=5)
    result = compute("klom", predictions=margins[0], references=margins[1], num_bins=5)
    assert result == {"klom_mean": values.mean(), "klom_95th_percentile": klom_percentile(values)}


def test_memorization_is_that_of_the_functions_over_texts_with_scored_tokens(compute):
    references = [[5, 6, 7, 8], [-100, 2, 3], [-100, -100]]
    predictions = [[0, 6, 7, 8], [9, 2, 3], [1, 1]]
    correct, counts = np.array([0, 1, 1, 1, 1, 1], dtype=bool), np.array([4, 2])
    inputs = {"predictions": predictions, "references": references}
    strength = extraction_strength(correct, counts).mean()
    assert compute("extraction_strength", **inputs) == {"extraction_strength": pytest.approx(strength)}
    assert compute("verbatim", **inputs) == {"verbatim": is_verbatim(correct, counts).mean()}
    with pytest.raises(ValueError, match="every reference is -100"):
        compute("verbatim", predictions=[[1]], references=[[-100]])
    with pytest.raises(ValueError, match="Example 1 has predictions"):
        compute("verbatim", predictions=[[1], [1]], references=[[1], [1, 2]])


def test_batches_add_up_to_the_whole(tmp_path):
    generator = np.random.default_rng(2)
    predictions, references = generator.integers(0, 3, 50), generator.integers(0, 3, 50)
    metric = metrics.load("per_class_accuracy", cache_dir=str(tmp_path))
    whole = metric.compute(predictions=predictions, references=references)
    for start in range(0, 50, 16):
        metric.add_batch(predictions=predictions[start : start + 16], references=references[start : start + 16])
    assert metric.compute() == whole
    assert whole["accuracy"] == (predictions == references).mean()
    assert whole["accuracy_class_1"] == (predictions[references == 1] == 1).mean()


def test_a_metric_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no metric 'accuracy' here; there are average_gap, "):
        metrics.load("accuracy")


def test_without_evaluate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", None)
    with pytest.raises(ImportError, match=r'pip install "hf-deepclean\[evaluate\]"'):
        metrics.load("klom")


def evaluated(model, dataset, tmp_path, **options):
    arguments = TrainingArguments(str(tmp_path), per_device_eval_batch_size=4, report_to=[], use_cpu=True)
    return Trainer(model, arguments, eval_dataset=dataset, **options).evaluate()


def rows_of(batch):
    return tiny.Rows([{key: value[row] for key, value in batch.items()} for row in range(len(batch["labels"]))])


def test_a_trainer_reports_the_accuracy_on_every_class(tmp_path):
    model, batch = tiny.randomized(tiny.vit(), torch.float32), tiny.image_batch(dtype=torch.float32)
    result = evaluated(model, rows_of(batch), tmp_path, compute_metrics=metrics.compute_per_class_accuracy)
    with torch.no_grad():
        right = model(**batch).logits.argmax(dim=-1) == batch["labels"]
    assert result["eval_accuracy"] == pytest.approx(right.double().mean().item())
    for label in batch["labels"].unique().tolist():
        share = right[batch["labels"] == label].double().mean().item()
        assert result[f"eval_accuracy_class_{label}"] == pytest.approx(share)


def test_a_trainer_reports_what_a_language_model_says_by_heart(tmp_path):
    model, batch = tiny.randomized(heads.gpt2(), torch.float32), dict(heads.text("next"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {
        "compute_metrics": metrics.compute_memorization,
        "preprocess_logits_for_metrics": metrics.first_choices,
    }
    before = evaluated(model, rows_of(batch), tmp_path, **options)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    after = evaluated(model, rows_of(batch), tmp_path, **options)
    assert before["eval_verbatim"] < after["eval_verbatim"]
    assert before["eval_extraction_strength"] < after["eval_extraction_strength"] <= 1
