# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The architectures of transformers' auto mappings, with the heads that transformers lists for them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers.models.auto import modeling_auto


HEADS = {
    "sequence classification": "SEQUENCE_CLASSIFICATION",
    "token classification": "TOKEN_CLASSIFICATION",
    "multiple choice": "MULTIPLE_CHOICE",
    "question answering": "QUESTION_ANSWERING",
    "image classification": "IMAGE_CLASSIFICATION",
    "causal LM": "CAUSAL_LM",
    "masked LM": "MASKED_LM",
    "seq2seq LM": "SEQ_TO_SEQ_CAUSAL_LM",
    "audio classification": "AUDIO_CLASSIFICATION",
    "CTC": "CTC",
    "speech seq2seq": "SPEECH_SEQ_2_SEQ",
    "image-text-to-text": "IMAGE_TEXT_TO_TEXT",
}


class Entry(NamedTuple):
    """One line of one auto mapping."""

    head: str
    model_type: str
    class_name: str


def heads() -> dict[str, Mapping[str, Any]]:
    """The auto mapping (model type to class name or names) of every head."""
    return {head: getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES") for head, mapping in HEADS.items()}


def entries() -> list[Entry]:
    """Every architecture with every head that transformers lists for it."""
    return [
        Entry(head, model_type, class_name)
        for head, mapping in heads().items()
        for model_type, names in mapping.items()
        for class_name in ([names] if isinstance(names, str) else names)
    ]
