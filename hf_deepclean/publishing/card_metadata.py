# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metadata of a card: the YAML block that the Hub reads."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers.utils import logging

from ..evaluation.measures import MEASURES
from ..evaluation.stages import AFTER_REPAIR
from ..models.heads import class_names_of_task
from ..report.base_card import BaseCard
from .public_report import PublicReport


logger = logging.get_logger(__name__)

TAGS = ("machine-unlearning", "fisher-unlearning", "hf_deepclean")

_SET_ANEW = ("base_model", "base_model_relation", "tags")

# Pipelines of the Hub, with the name of their task in `transformers`. It has none any more for encoder-decoder models
# in general: their cards name translation or summarisation, or nothing.
PIPELINES = {
    "text-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "text-generation": "CAUSAL_LM",
    "fill-mask": "MASKED_LM",
    "question-answering": "QUESTION_ANSWERING",
    "multiple-choice": "MULTIPLE_CHOICE",
    "image-classification": "IMAGE_CLASSIFICATION",
    "audio-classification": "AUDIO_CLASSIFICATION",
    "automatic-speech-recognition": "CTC",
}


def card_metadata(report: PublicReport, before: Mapping[str, Any], repo_id: str | None) -> ModelCardData:
    # The reports of older versions hold the fields as they were written.
    card = BaseCard.of(before)
    for sentence in card.left_out:
        logger.warning_once(sentence)
    kept = {name: value for name, value in card.fields.items() if name not in _SET_ANEW}
    pipeline = kept.pop("pipeline_tag", None) or _pipeline_tag(report.model_class)
    adapter = report.settings.get("reset_scope") == "adapter"
    base = {}
    if report.base_model is not None and report.base_model != repo_id:
        base = {"base_model": report.base_model, "base_model_relation": "adapter" if adapter else "finetune"}
    elif card.fields.get("base_model") not in (None, repo_id):
        base = {name: card.fields[name] for name in ("base_model", "base_model_relation") if name in card.fields}
    results = list(_eval_results(report, pipeline or "other"))
    unlearning = {
        "method": "DeepClean, arXiv 2311.10448",
        "hf_deepclean": report.versions.get("hf-deepclean"),
        "disclosure": report.disclosure,
        "fisher_type": report.settings.get("fisher_type"),
        "gamma": report.gamma,
        "reset_value": report.settings.get("reset_value"),
        "reset_scope": report.settings.get("reset_scope"),
        "num_in_scope": report.num_in_scope,
        "num_reset": report.num_selected,
        "num_changed_outside": 0,
        "frozen_checksum": report.integrity.frozen_checksum,
        "base_model_revision": report.base_model_revision,
        "commitment": report.commitment,
    }
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag=pipeline,
        **base,
        **kept,
        tags=list(dict.fromkeys([*card.fields.get("tags", []), *TAGS])),
        model_name=card_title(report, repo_id) if results else None,
        eval_results=results or None,
        unlearning={name: value for name, value in unlearning.items() if value is not None},
        ignore_metadata_errors=True,
    )


def _eval_results(report: PublicReport, task: str) -> Iterable[EvalResult]:
    for measure in report.measures:
        figure = measure.figures.get(AFTER_REPAIR)
        if measure.split in ("forget", "unseen") or figure is None or not math.isfinite(figure.value):
            continue
        arguments: dict[str, Any] = {"num_examples": min(measure.num_examples.values())}
        if figure.interval is not None:
            arguments["interval_95"] = list(figure.interval)
        yield EvalResult(
            task_type=task,
            dataset_type="retain" if measure.split == "retain" else "eval",
            dataset_name="retained training data"
            if measure.split == "retain"
            else f"evaluation data ({measure.split})",
            metric_type=_metric_type(measure.name),
            metric_name=f"{measure.split} {measure.name}",
            metric_value=figure.value,
            metric_args=arguments,
        )


def _metric_type(name: str) -> str:
    measure = MEASURES.get(name)
    return name if measure is None or measure.hub_type is None else measure.hub_type


def _pipeline_tag(model_class: str) -> str | None:
    if model_class in class_names_of_task("SEQ_TO_SEQ_CAUSAL_LM"):
        # transformers also counts BART among the masked language models.
        return None
    return next((tag for tag, task in PIPELINES.items() if model_class in class_names_of_task(task)), None)


def card_title(report: PublicReport, repo_id: str | None) -> str:
    return f"Cleaned {report.model_class}" if repo_id is None else repo_id.rpartition("/")[2]
