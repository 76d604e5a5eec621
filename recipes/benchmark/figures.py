# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The measurements of a model on a task."""

import copy
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from methods import NUM_REPAIR_EPOCHS
from task_data import DataSource, Rows, TaskData
from tasks import Task
from torch import nn

from hf_deepclean import UnlearningData
from hf_deepclean.evaluation.figures.divergence import jensen_shannon_divergence
from hf_deepclean.evaluation.figures.membership import membership_attack
from hf_deepclean.evaluation.predictions import ExamplePredictions, predict_examples
from hf_deepclean.evaluation.quantization import quantized
from hf_deepclean.evaluation.relearning import relearning_curve
from hf_deepclean.evaluation.results import summarize_predictions


EVALUATION_BATCH_SIZE = 256
NUM_BITS = 4
# The splits that the rule of choice may see.
VISIBLE_SPLITS = ("forget", "retain", "unseen")
ALL_SPLITS = (*VISIBLE_SPLITS, "eval")


def predict(model: nn.Module, rows: Rows, data: TaskData) -> ExamplePredictions:
    """The predictions of a model on rows."""
    starts = range(0, len(rows), EVALUATION_BATCH_SIZE)
    batches = (data.data_collator(rows[start : start + EVALUATION_BATCH_SIZE]) for start in starts)
    return predict_examples(model, batches, keep_logits=False)


def accuracy(predictions: ExamplePredictions, split: str) -> float:
    """
    The share of correct predictions. For a language model it is the share of texts that the model completes word for
    word; on the ordinary test texts, which it does not know by heart, it is the share of correct tokens.
    """
    result = summarize_predictions(predictions)
    if result.tokens is None:
        return result.accuracy
    return result.tokens.accuracy if split == "eval" else result.tokens.num_verbatim / result.tokens.num_examples


def measure(
    model: nn.Module, data: TaskData, splits: Collection[str] = ALL_SPLITS, reference: nn.Module | None = None
) -> dict[str, Any]:
    """
    Measures accuracy and mean loss of every split, the membership attack, and the divergence from the reference. The
    attack uses the unseen rows if the rule of choice sees the figures, otherwise rows that no method saw.

    Args:
        model (`torch.nn.Module`):
            The model.
        data ([`TaskData`]):
            The data.
        splits (`Collection[str]`, *optional*):
            The splits to evaluate; `retain` stands for the kept rows.
        reference (`torch.nn.Module`, *optional*):
            The model retrained without the forget data.
    """
    rows = {"forget": data.forget, "retain": data.kept, "unseen": data.unseen, "eval": data.eval}
    answers = {split: predict(model, rows[split], data) for split in splits}
    others = answers["unseen"] if "eval" not in splits else predict(model, data.attacked, data)
    attack = membership_attack(answers["forget"].confidence(), others.confidence())
    result = {
        "accuracy": {split: accuracy(found, split) for split, found in answers.items()},
        "mean_loss": {split: float(-found.confidence().mean()) for split, found in answers.items()},
        "auc": attack.auc,
        "tpr_at_1_percent_fpr": attack.tpr_at_1_percent_fpr,
    }
    if reference is not None and answers["forget"].log_probabilities is not None:
        result["jensen_shannon"] = {
            split: float(
                jensen_shannon_divergence(
                    answers[split].log_probabilities, predict(reference, rows[split], data).log_probabilities
                ).mean()
            )
            for split in ("forget", "eval")
        }
    return result


def relearn(model: nn.Module, task: Task, data: TaskData, source: DataSource, seed: int) -> dict[str, Any]:
    """
    Measures the forget accuracy while a copy is fine-tuned on the retain data only, with AdamW at a tenth of the
    learning rate of the original's training, for as many steps as the repair of [`FisherUnlearner`] has.
    """
    recipe = task.training(source)
    batch_size = recipe.original_per_device_train_batch_size
    num_steps = math.ceil(NUM_REPAIR_EPOCHS * math.ceil(len(data.retain) / batch_size))
    source_of_batches = UnlearningData(data.forget, data.retain, data.data_collator)

    def batches() -> Iterator[Any]:
        for epoch in range(math.ceil(NUM_REPAIR_EPOCHS)):
            yield from source_of_batches.batches("retain", batch_size, seed + epoch)

    curve = relearning_curve(
        model,
        [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        batches(),
        lambda trained: accuracy(predict(trained, data.forget, data), "forget"),
        num_steps,
        recipe.original_learning_rate / 10,
    )
    return {"num_steps": num_steps, "forget_accuracy": curve, "movement": curve[-1] - curve[0]}


def round_weights(model: nn.Module, data: TaskData) -> dict[str, float]:
    """Measures forget and retain accuracy with the weights rounded to 4 bits; an adapter is merged first."""
    if hasattr(model, "merge_and_unload"):
        model = copy.deepcopy(model).merge_and_unload()
    with torch.no_grad(), quantized(model, NUM_BITS):
        return {
            "forget": accuracy(predict(model, data.forget, data), "forget"),
            "retain": accuracy(predict(model, data.kept, data), "retain"),
        }
