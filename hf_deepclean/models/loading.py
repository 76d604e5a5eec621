# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a model from a path, with or without an adapter, or takes one that is already loaded."""

import copy
import os
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from ..runtime.random_state import seeded
from ..runtime.sharded_models import plain_class
from .adapters.loading import load_adapted_model
from .adapters.parameters import is_adapted, is_adapter_path
from .contexts import end_mixed_precision


def load_model(model: str | os.PathLike[str] | PreTrainedModel, seed: int) -> PreTrainedModel:
    """
    Loads a model, or checks a loaded one and removes the autocast of an earlier training.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model; its Hub id or folder; or the folder of a saved adapter.
        seed (`int`):
            Seed for the weights of an adapted model that no file holds, see [`load_adapted_model`].

    Raises:
        `ValueError`: If the configuration does not name the class of the model.
        `TypeError`: If the object is not a model.
    """
    if is_adapter_path(model):
        return load_adapted_model(model, seed)
    if isinstance(model, (str, os.PathLike)):
        architectures = AutoConfig.from_pretrained(model).architectures
        if not architectures or not hasattr(transformers, architectures[0]):
            raise ValueError(
                f"The configuration of {str(model)!r} names no architecture of transformers ({architectures}), so the "
                "class of the model is unknown. Load the model yourself and pass the object."
            )
        return getattr(transformers, architectures[0]).from_pretrained(model)
    if not isinstance(model, PreTrainedModel) and not is_adapted(model):
        raise TypeError(
            f"The model is a {type(model).__name__}, not a `PreTrainedModel` or a `PeftModel`. Pass the bare model, "
            "without wrappers for compilation or data parallelism."
        )
    end_mixed_precision(model)
    return model


def name_of_model(model: str | PreTrainedModel) -> str:
    """The last part of a path or id, or the class of a loaded model."""
    return Path(model).name if isinstance(model, (str, os.PathLike)) else type(model).__name__


def fresh_model(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Builds a newly initialised model of the same class and configuration, on the CPU."""
    # A loaded model cannot be initialised again in place: transformers 5 skips weights it has marked as initialised.
    with seeded(seed), torch.device("cpu"):
        return plain_class(model)(copy.deepcopy(model.config))
