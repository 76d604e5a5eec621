# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the metadata of a model card as the Hub does."""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml


PIPELINE_TAGS = (
    "any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation "
    "document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction "
    "image-segmentation image-text-to-text image-to-3d image-to-image image-to-text image-to-video keypoint-detection "
    "mask-generation multiple-choice object-detection other question-answering reinforcement-learning robotics "
    "sentence-similarity summarization table-question-answering table-to-text tabular-classification "
    "tabular-regression tabular-to-text text-classification text-generation text-ranking text-retrieval text-to-3d "
    "text-to-audio text-to-image text-to-speech text-to-video time-series-forecasting token-classification "
    "translation unconditional-image-generation video-classification video-text-to-text video-to-video "
    "visual-document-retrieval visual-question-answering voice-activity-detection zero-shot-classification "
    "zero-shot-image-classification zero-shot-object-detection"
).split()
ONE, MANY, ONE_OR_MANY = "a string", "a list of strings", "a string or a list of strings"
# For each field its type, and a pattern that its strings must match.
FIELDS = {
    "license": (ONE_OR_MANY, r"[a-z0-9][a-z0-9.-]*"),
    "language": (ONE_OR_MANY, r"[a-z]{2,3}(-[A-Za-z]+)*|code|multilingual"),
    "tags": (MANY, r".+"),
    "datasets": (ONE_OR_MANY, r".+"),
    "metrics": (ONE_OR_MANY, r".+"),
    "library_name": (ONE, r".+"),
    "pipeline_tag": (ONE, "|".join(PIPELINE_TAGS)),
    "base_model": (ONE_OR_MANY, r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"),
    "base_model_relation": (ONE, "adapter|merge|quantized|finetune"),
}


def front_matter(content: str) -> Any:
    """
    The YAML between the first two lines of `---`, or None.

    Raises:
        `yaml.YAMLError`: If the YAML cannot be parsed.
    """
    match = re.match(r"\s*---[ \t]*\n(.*?)^---[ \t]*$", content.replace("\r\n", "\n"), re.DOTALL | re.MULTILINE)
    return yaml.safe_load(match[1]) if match else None


def validate(content: str) -> tuple[list[str], list[str]]:
    """
    Finds the errors and the warnings of a model card.

    Args:
        content (`str`):
            The content of README.md.
    """
    try:
        data = front_matter(content)
    except yaml.YAMLError as error:
        return [f"the metadata are no YAML: {error}"], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"], []
    errors = [error for key in FIELDS if key in data for error in _field_errors(key, data[key])]
    return errors + list(_model_index_errors(data.get("model-index", []))), []


def _field_errors(key: str, value: Any) -> Iterator[str]:
    form, pattern = FIELDS[key]
    listed = isinstance(value, list)
    values = value if listed else [value]
    if (listed and form == ONE) or (not listed and form == MANY) or not all(isinstance(one, str) for one in values):
        yield f'"{key}" must be {form}'
        return
    for one in values:
        if not re.fullmatch(pattern, one):
            yield f'"{key}" with value "{one}" is not valid. It must match {pattern}'


def _are_mappings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _model_index_errors(models: Any) -> Iterator[str]:
    if not _are_mappings(models):
        yield '"model-index" must be a list of mappings'
        return
    for i, model in enumerate(models):
        if not isinstance(model.get("name"), str):
            yield f'"model-index[{i}].name" is required'
        if not _are_mappings(model.get("results")):
            yield f'"model-index[{i}].results" must be a list of mappings'
            continue
        for j, result in enumerate(model["results"]):
            yield from _result_errors(f"model-index[{i}].results[{j}]", result)


def _result_errors(where: str, result: dict[str, Any]) -> Iterator[str]:
    for key, name in (("task", "type"), ("dataset", "name"), ("dataset", "type")):
        part = result.get(key)
        if not isinstance(part, dict) or not isinstance(part.get(name), str):
            yield f'"{where}.{key}.{name}" is required'
    if not _are_mappings(result.get("metrics")):
        yield f'"{where}.metrics" must be a list of mappings'
        return
    for i, metric in enumerate(result["metrics"]):
        if not isinstance(metric.get("type"), str):
            yield f'"{where}.metrics[{i}].type" is required'
        value = metric.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f'"{where}.metrics[{i}].value" must be a number'
