# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses models that cannot be cleaned, before any heavy work."""

import math
import os
from typing import Any

from pyarrow.types import is_large_list, is_list
from torch import nn

from ..data.checks import match_classes
from ..runtime.processes import check_launch
from .adapters.checks import check_adapter
from .adapters.parameters import MERGE_ADVICE, is_adapted, is_adapter_path
from .heads import class_numbers, num_classes


def check_devices(world_size: int, num_devices: int, model: Any) -> None:
    """
    Refuses processes that do not know of each other, and processes that average gradients over several devices.

    Args:
        world_size (`int`):
            Number of processes that Accelerate sees.
        num_devices (`int`):
            Number of accelerators that this process would train on.
        model (`str` or [`~transformers.PreTrainedModel`]):
            The model, which may lie on several devices.

    Raises:
        `RuntimeError`: As [`processes.check_launch`].
        `ValueError`: If one process sees several devices and the model is not spread over them.
    """
    check_launch(world_size)
    if num_devices > 1 and getattr(model, "hf_device_map", None) is None:
        raise ValueError(
            f"One process sees {num_devices} devices, and would divide every batch among them and average their "
            "gradients. Launch one process per device (`accelerate launch --multi_gpu`), make only one device visible "
            "(CUDA_VISIBLE_DEVICES), or load the model over all of them (`device_map`)."
        )


def check_scope_of_model(model: str | os.PathLike[str] | nn.Module, reset_scope: str) -> None:
    """
    Refuses a model that does not fit the scope, before it is loaded.

    Args:
        model (`str` or `torch.nn.Module`):
            The model, or the path to load it from.
        reset_scope (`str`):
            `"full"` or `"adapter"`.

    Raises:
        `ValueError`: If the scope is `"full"` and the model has an adapter, or `"adapter"` and it has none.
    """
    adapted = is_adapter_path(model) or is_adapted(model)
    described = repr(str(model)) if isinstance(model, (str, os.PathLike)) else f"a {type(model).__name__}"
    if adapted and reset_scope == "full":
        raise ValueError(
            f"The model is {described}, an adapter on a base model, and `reset_scope='full'` would reset weights of "
            f"both. Set `reset_scope='adapter'` to clean only the adapter. To clean the whole model, {MERGE_ADVICE}"
        )
    if reset_scope == "adapter" and not adapted:
        raise ValueError(
            f"`reset_scope='adapter'` cleans the adapter of a `PeftModel`, and the model is {described}, which has "
            "none. Pass `PeftModel.from_pretrained(base, path, is_trainable=True)` (a model into which transformers "
            "itself loaded an adapter is not a `PeftModel`) or the folder with `adapter_config.json`, or use "
            "`reset_scope='full'`."
        )


def check_model(model: nn.Module, reset_scope: str = "full", reset_value: str = "zero") -> None:
    """
    Refuses a model whose weights cannot be reset one by one.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            With `"adapter"` only the weights of the adapter are checked; the frozen base model may be quantised.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            The value that weights of the adapter will be reset to.

    Raises:
        `ValueError`: If weights are quantised or have no values (meta device), or if the model has adapters that are
            not in scope or cannot be reset.
    """
    if reset_scope == "adapter":
        check_adapter(model, reset_value)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            f"This {type(model).__name__} carries adapters that were loaded into it, so its weights are not those of "
            "one model. To clean an adapter, pass its folder as the model, with `reset_scope='adapter'`. To clean the "
            f"whole model, load it with `PeftModel.from_pretrained(base, folder)` and {MERGE_ADVICE}"
        )
    if reset_scope == "full" and (
        getattr(model, "is_quantized", False) or getattr(model, "quantization_method", None) is not None
    ):
        raise ValueError(
            f"The weights of this {type(model).__name__} are quantised: they have no gradients, and one stored number "
            "can hold several weights. Clean the model in float32 or bfloat16 and quantise the result."
        )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"The parameter {name} is on the meta device, so it has no values. Load the model's weights, for "
                "example with `from_pretrained` and without a `device_map` that offloads to disk."
            )
        if parameter.is_inference():
            raise ValueError(
                f"The parameter {name} was made within `torch.inference_mode`, so it can have no gradient. Load the "
                "model outside of it."
            )
        frozen = reset_scope == "adapter" and not parameter.requires_grad
        if not frozen and (not parameter.is_floating_point() or parameter.itemsize < 2):
            raise ValueError(
                f"The parameter {name} has dtype {parameter.dtype}: quantised weights have no gradients. Unlearn the "
                "model in float32 or bfloat16 and quantise the result."
            )


def check_reference(model: nn.Module, reference_model: nn.Module) -> None:
    """
    Refuses a reference model that shares weights with the model, such as two adapters on the same base object, or that
    numbers its classes in another way.

    Raises:
        `ValueError`: If the two models share a parameter, or have the same class under different numbers.
    """
    counts = num_classes(model), num_classes(reference_model)
    if None not in counts and counts[0] != counts[1]:
        raise ValueError(
            f"`reference_model` has {counts[1]} classes and the model {counts[0]}, so their answers cannot be "
            "compared. Pass a model that was retrained for the same task."
        )
    own = set(model.parameters())
    shared = [name for name, parameter in reference_model.named_parameters() if parameter in own]
    if shared:
        raise ValueError(
            f"`reference_model` shares {len(shared)} parameters with the model, such as {shared[0]}, and would change "
            "with it. Load it separately; two adapters need a base each."
        )
    numbers, others = class_numbers(model), class_numbers(reference_model)
    if not numbers or not others:
        return
    names = sorted(others, key=others.get)
    found = match_classes(names, numbers) or []
    moved = [name for own, (name, given) in enumerate(zip(names, found, strict=False)) if given not in (own, None)]
    if moved:
        raise ValueError(
            f"`reference_model` gives {len(moved)} classes other numbers than the model, such as {moved[0]!r}: "
            f"{others[moved[0]]} instead of {numbers.get(moved[0])}. Its answers would be compared with those for "
            "other classes. Train it with the model's `config.label2id`, or correct its `config.id2label`."
        )


def check_sequence_lengths(model: nn.Module, dataset: Any, argument: str) -> None:
    """
    Refuses tokenised rows that are longer than the table of position embeddings.

    Models without this table (rotary, relative or computed positions) have no such limit. Only a
    [`~datasets.Dataset`] whose `input_ids` reach the model unchanged is checked. For any other the model itself raises
    an error.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        argument (`str`):
            Name of the argument it was passed as.

    Raises:
        `ValueError`: If rows are too long. The message says how many.
    """
    limit = max_sequence_length(model)
    formatted = getattr(dataset, "format", None)
    if limit is None or not isinstance(formatted, dict) or formatted["type"] == "custom":
        return
    if "input_ids" not in dataset.column_names:
        return
    tables = dataset.with_format("arrow").select_columns("input_ids").iter(batch_size=10_000)
    lengths = [table["input_ids"].combine_chunks() for table in tables]
    if not all(is_list(column.type) or is_large_list(column.type) for column in lengths):
        return
    longer = sum(int((column.value_lengths().to_numpy(zero_copy_only=False) > limit).sum()) for column in lengths)
    if longer:
        raise ValueError(
            f"{longer} of {len(dataset)} rows of `{argument}` have more than the {limit} tokens that this "
            f"{type(model).__name__} has positions for. Cut them as in training (`max_length={limit}` of the "
            "tokenizer), or leave them out."
        )


def max_sequence_length(model: nn.Module) -> int | None:
    """
    Number of tokens that the model's table of position embeddings has room for.

    The table is looked for beside the token embeddings, in the encoder if there is a decoder too. Positions that a
    padding index (RoBERTa) or an offset (OPT, BART) makes unusable do not count.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.

    Returns:
        `int`, *optional*: `None` if the model has no such table.
    """
    try:
        tokens = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    config = getattr(model, "config", None)
    part = model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model
    for module in part.modules():
        tables = {name: child for name, child in module.named_children() if isinstance(child, nn.Embedding)}
        if not any(table is tokens or table.weight is tokens.weight for table in tables.values()):
            continue
        for name, table in tables.items():
            if name == "wpe" or "position" in name:
                unused = getattr(table, "offset", 0 if table.padding_idx is None else table.padding_idx + 1)
                # Some tables have more rows than the configuration allows.
                return min(table.num_embeddings - unused, getattr(config, "max_position_embeddings", math.inf))
    return None
