# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells by the weights whether a model was fine-tuned from another one."""

from collections.abc import Collection
from enum import Enum
from os import PathLike
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..runtime.sharded_models import named_parameters
from ..runtime.shards import is_sharded
from .pretrained import common_entries, shared_parameters, token_tables


# A fine-tuned model is far above (MiniLM after seven epochs: 0.999), an unrelated one near 0.
_MIN_COSINE = 0.5
# Fine-tuning in float32 moves nearly every weight of most matrices (MiniLM: 98 % of all), a cleaning only those that
# it resets.
_MAX_UNCHANGED = 0.5


class Kinship(Enum):
    """What a model is to another one, by their weights."""

    FINE_TUNED = "fine-tuned from it"
    SAME = "it, or a cleaned form of it"
    UNRELATED = "not fine-tuned from it"


@torch.no_grad()
def find_kinship(
    model: PreTrainedModel, names: Collection[str], other: str | PathLike[str] | PreTrainedModel
) -> Kinship:
    """
    Compares the matrices that two models share, without token embeddings, of which training may leave most rows alone.

    A cleaned form of a model is told in float32 alone: in 16 bits fine-tuning leaves as many weights as they are.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        names (`Collection[str]`):
            Names of the parameters that may be rewound. If all of these are equal, so are the models.
        other (`str` or [`~transformers.PreTrainedModel`]):
            The other model, or a path to load it from.

    Returns:
        [`Kinship`]

    Raises:
        `ValueError`: If the other model has another architecture or size, is quantised, or shares no parameter.
        `OSError`: If the other model cannot be loaded.
    """
    tables, cosines, unchanged = token_tables(model), [], []
    is_same = True
    for name, (value, before) in shared_parameters(model, named_parameters(model), other).items():
        is_matrix = value.ndim > 1 and value not in tables
        now, then = common_entries(value, before)
        if torch.equal(now, then):
            cosines += [1.0] * is_matrix
            continue
        is_same &= name not in names
        if is_matrix:
            cosines.append(torch.cosine_similarity(now.float(), then.float(), dim=0).item())
        if is_matrix and now.dtype.itemsize >= torch.float32.itemsize:
            unchanged.append((now == then).float().mean().item())
    if is_same or (unchanged and median(unchanged) > _MAX_UNCHANGED):
        return Kinship.SAME
    return Kinship.UNRELATED if cosines and not median(cosines) >= _MIN_COSINE else Kinship.FINE_TUNED


def is_saved_in(model: PreTrainedModel, folder: Path) -> bool:
    """
    Whether the files in a folder hold the parameters of a model, bit by bit and under the same names. Takes the memory
    of one parameter, and ends at the first that differs. `False` for a sharded model, and for one whose parameters are
    saved under other names.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        folder (`Path`):
            The folder.
    """
    waiting = named_parameters(model)
    if any(map(is_sharded, waiting.values())):
        return False
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            # The others are buffers, or more names of one parameter.
            for name in waiting.keys() & set(file.keys()):
                value, saved = waiting.pop(name).detach(), file.get_tensor(name)
                if value.dtype != saved.dtype or not torch.equal(value.cpu(), saved):
                    return False
    return not waiting
