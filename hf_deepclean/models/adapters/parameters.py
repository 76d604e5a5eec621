# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of an adapter, and those of its base model."""

import os
import sys
from collections.abc import Collection, Iterator
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn


if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer


ADAPTER_CONFIG_NAME = "adapter_config.json"

# What to do with an adapter that cannot be cleaned by itself; the end of a sentence.
MERGE_ADVICE = (
    "merge it into the base (`model = model.merge_and_unload()`), unfreeze the base, which peft leaves frozen "
    "(`model.requires_grad_(True)`), and pass the model with `reset_scope='full'`."
)


def is_adapted(model: object) -> bool:
    """Whether a model is a [`~peft.PeftModel`]. Does not import peft."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def is_adapter_path(path: object) -> bool:
    """Whether a path is a folder with a saved adapter."""
    return isinstance(path, (str, os.PathLike)) and (Path(path) / ADAPTER_CONFIG_NAME).is_file()


def active_adapter(model: "PeftModel") -> str:
    """
    Name of the active adapter.

    Raises:
        `ValueError`: If no adapter or several adapters are active, or if the model is not a [`~peft.PeftModel`].
    """
    if not is_adapted(model):
        raise ValueError(f"A {type(model).__name__} has no adapter of its own. Wrap it in a `PeftModel`.")
    names = list(model.active_adapters)
    if len(names) != 1:
        raise ValueError(
            f"{len(names)} adapters of this model are active ({', '.join(map(repr, names)) or 'none'}), but only one "
            "can be cleaned. Activate it with `model.set_adapter(name)`."
        )
    return names[0]


def adapter_parameters(model: "PeftModel") -> dict[str, nn.Parameter]:
    """
    The parameters of the active adapter, each once, under the first of its names: low-rank factors and their biases,
    magnitudes (DoRA), copies of whole modules (`modules_to_save`) and rows of trained tokens.
    """
    owned = set(_parameters_of(model, [active_adapter(model)]))
    return {name: parameter for name, parameter in model.named_parameters() if parameter in owned}


def token_parameters(model: "PeftModel") -> list[nn.Parameter]:
    """
    The parameters of the active adapter with a row or a column for single tokens: the first factor of LoRA on the
    token embeddings, a trained copy of the table, or its trained rows.
    """
    try:
        embeddings = model.get_base_model().get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return []
    name = active_adapter(model)
    parameters: list[nn.Parameter] = []
    for container in ("lora_embedding_A", "modules_to_save", "token_adapter.trainable_tokens_delta"):
        try:
            entries = attrgetter(container)(embeddings)
        except AttributeError:
            continue
        parameters += entry_parameters(entries[name]) if name in entries else []
    return parameters


def num_base_weights(model: "PeftModel") -> int:
    """Number of weights outside all adapters. Packed weights count as they are stored."""
    owned = set(_parameters_of(model, list(model.peft_config)))
    return sum(parameter.numel() for parameter in model.parameters() if parameter not in owned)


def _parameters_of(model: "PeftModel", names: Collection[str]) -> Iterator[nn.Parameter]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            for container in module.adapter_layer_names:
                entries = attrgetter(container)(module)
                for name in names:
                    yield from entry_parameters(entries[name]) if name in entries else ()


def entry_parameters(entry: nn.Parameter | nn.Module) -> list[nn.Parameter]:
    """The parameters of an entry that peft keeps for an adapter, which is a parameter or a module."""
    return [entry] if isinstance(entry, nn.Parameter) else list(entry.parameters())


def lora_layers(model: "PeftModel", name: str) -> "Iterator[LoraLayer]":
    """The LoRA layers that an adapter is applied to."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.r:
            yield module
