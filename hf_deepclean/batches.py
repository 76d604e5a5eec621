# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A batch of model inputs: its labels, its examples, its device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch


LABELS = "labels"


def split_labels(batch: Mapping[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """
    Separates what the model is given from what it is scored on.

    Raises:
        `ValueError`: If the batch has no tensor under `"labels"`.
    """
    inputs = dict(batch)
    labels = inputs.pop(LABELS, None)
    if not isinstance(labels, torch.Tensor):
        raise ValueError(
            f'A batch must hold a tensor under "labels" but has only the keys {sorted(batch)}: the Fisher information '
            'is that of the labels\' log-likelihood. Name the target column "label" or "labels", or pass a '
            "`data_collator` that returns it."
        )
    return inputs, labels


def num_examples(batch: Mapping[str, Any]) -> int:
    """Number of examples in a batch, read off its labels."""
    return len(split_labels(batch)[1])


def select_examples(batch: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The batch that holds only the examples at `indices`; an index may be repeated."""
    size = num_examples(batch)
    return {
        key: value[list(indices)] if isinstance(value, torch.Tensor) and value.ndim and len(value) == size else value
        for key, value in batch.items()
    }


def move_batch(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with every tensor on `device`."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
