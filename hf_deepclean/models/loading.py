# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a model from a path, with or without an adapter, or takes one that is already loaded."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from ..runtime.random_state import seeded
from ..runtime.sharded_models import plain_class
from .adapters.loading import load_adapted_model
from .adapters.parameters import is_adapted, is_adapter_path
from .contexts import end_mixed_precision
from .custom_code import auto_class_of, check_custom_code


def load_model(
    model: str | os.PathLike[str] | PreTrainedModel, seed: int, trust_remote_code: bool = False
) -> PreTrainedModel:
    """
    Loads a model, or checks a loaded one and removes the autocast of an earlier training.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model; its Hub id or folder; or the folder of a saved adapter.
        seed (`int`):
            Seed for the weights of an adapted model that no file holds, see [`load_adapted_model`].
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may be run.

    Raises:
        `ValueError`: If the configuration does not name the class of the model, or if the model comes with code that
            may not be run.
        `TypeError`: If the object is not a model.
    """
    if is_adapter_path(model):
        return load_adapted_model(model, seed, trust_remote_code)
    if isinstance(model, (str, os.PathLike)):
        return model_class_of(model, trust_remote_code).from_pretrained(model, **trusting(trust_remote_code))
    if not isinstance(model, PreTrainedModel) and not is_adapted(model):
        raise TypeError(
            f"The model is a {type(model).__name__}, not a `PreTrainedModel` or a `PeftModel`. Pass the bare model, "
            "without wrappers for compilation or data parallelism."
        )
    end_mixed_precision(model)
    return model


def model_class_of(path: str | os.PathLike[str], trust_remote_code: bool) -> Any:
    """
    Finds the class that loads a saved model with its head.

    Args:
        path (`str`):
            Folder or Hub id of the model. Only its configuration is read.
        trust_remote_code (`bool`):
            Whether code that comes with the model may be run.

    Returns:
        `type`: A class of transformers, or the auto class that loads the model's own.

    Raises:
        `ValueError`: As for [`load_model`].
    """
    config = check_custom_code(path, trust_remote_code)
    own = auto_class_of(config) if trust_remote_code else None
    if own is not None:
        return own
    # The configuration's class reads names that a plain dictionary may lack.
    architectures = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code).architectures
    if not architectures or not hasattr(transformers, architectures[0]):
        raise ValueError(
            f"The configuration of {str(path)!r} names no architecture of transformers ({architectures}), so the "
            "class of the model is unknown. Load the model yourself and pass the object."
        )
    return getattr(transformers, architectures[0])


def trusting(trust_remote_code: bool) -> dict[str, bool]:
    """The argument of `from_pretrained` that lets code run. Classes of transformers know no other value."""
    return {"trust_remote_code": True} if trust_remote_code else {}


def name_of_model(model: str | PreTrainedModel) -> str:
    """The last part of a path or id, or the class of a loaded model."""
    return Path(model).name if isinstance(model, (str, os.PathLike)) else type(model).__name__


def fresh_model(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Builds a newly initialised model of the same class and configuration, on the CPU."""
    # A loaded model cannot be initialised again in place: transformers 5 skips weights it has marked as initialised.
    with seeded(seed), torch.device("cpu"):
        return plain_class(model)(copy.deepcopy(model.config))
