# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A batch of model inputs: its labels, its examples and its device."""

from collections.abc import Mapping
from typing import Any

import torch


LABELS = "labels"
SPAN_LABELS = ("start_positions", "end_positions")
# The label of a position that is not scored, as in torch's cross-entropy and everywhere in transformers.
IGNORED = -100


def split_labels(batch: Mapping[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """
    Separates the model's inputs from the labels.

    Args:
        batch (`dict[str, Any]`):
            Model inputs with `labels`, or with the `start_positions` and `end_positions` of question answering.

    Returns:
        `tuple[dict[str, Any], torch.Tensor]`: The inputs, and one tensor of labels whose first axis is that of the
        examples. Start and end positions are stacked to shape `(batch_size, 2)`.

    Raises:
        `ValueError`: If the batch is no dictionary, has neither kind of labels, or a single one for all examples.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"A batch must be a dictionary of tensors, such as `input_ids` and `labels`, and the data collator "
            f"returned a value of type {type(batch).__name__}."
        )
    inputs = dict(batch)
    labels, *spans = (inputs.pop(key, None) for key in (LABELS, *SPAN_LABELS))
    if isinstance(labels, torch.Tensor):
        if labels.ndim == 0:
            raise ValueError("A batch must hold one label per example, and the data collator returned a single one.")
        return inputs, labels
    if labels is not None:
        raise ValueError(
            f'A batch must hold a tensor under "labels", and the data collator returned a value of type '
            f"{type(labels).__name__}. Return `torch.as_tensor(labels)`."
        )
    if all(isinstance(span, torch.Tensor) for span in spans):
        return inputs, torch.stack([span.reshape(len(span)) for span in spans], dim=1)
    raise ValueError(
        f'A batch must hold a tensor under "labels" (or, for question answering, "start_positions" and '
        f'"end_positions") but has only the keys {sorted(batch)}: the Fisher information is that of the labels\' '
        'log-likelihood. Name the target column "label" or "labels", or pass a `data_collator` that returns it, such '
        "as `DataCollatorForLanguageModeling(tokenizer, mlm=False)` for a language model."
    )


def num_examples(batch: Mapping[str, Any]) -> int:
    """Number of examples in a batch, which is the length of its labels."""
    return len(split_labels(batch)[1])


def move_batch(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with every tensor on `device`."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
