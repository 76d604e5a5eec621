# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What decides a run and is in no argument: settings of the model and of torch, transforms of data, callbacks."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import datasets
import torch
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from ..data.streams import is_stream
from ..repair.callbacks import callbacks_of_caller
from .fingerprints import Fingerprints, is_installed


# Where a model was loaded from, by what, and what its weights or the arguments say.
_NOT_OF_THE_CONFIG = {"_name_or_path", "name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype"}
_NOT_OF_THE_CONFIG |= {"use_cache", "architectures", "model_type"}
# Attributes that a run changes, and that change no result.
_NOT_OF_A_MODULE = {"training", "gradient_checkpointing"}

# The fingerprint of a callback when a run first saw it: its state changes with every step.
_first_seen: "WeakKeyDictionary[TrainerCallback, str]" = WeakKeyDictionary()


def settings_of_model(model: nn.Module, config: Any) -> dict[str, str]:
    """
    Returns what decides how a model computes, besides its weights.

    Args:
        model (`torch.nn.Module`):
            The model.
        config ([`~transformers.PretrainedConfig`]):
            Its configuration, as it was before a trainer changed it.

    Returns:
        `dict[str, str]`: The entries of the configuration, how often every plain attribute of every kind of module has
            which value, and the number of weights that require gradients.
    """
    entries = config.to_dict() if hasattr(config, "to_dict") else {}
    found = {
        f"config.{name}": json.dumps(value, sort_keys=True, default=str)
        for name, value in entries.items()
        if name not in _NOT_OF_THE_CONFIG
    }
    found["attention implementation"] = str(getattr(model.config, "_attn_implementation", None))
    found["trainable weights"] = str(sum(p.numel() for p in model.parameters() if p.requires_grad))
    values: dict[str, Counter[str]] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            is_plain = isinstance(value, (bool, int, float, str, type(None)))
            if is_plain and not name.startswith("_") and name not in _NOT_OF_A_MODULE and "cache" not in name:
                values.setdefault(f"{type(module).__name__}.{name}", Counter())[repr(value)] += 1
    shown = {name: ", ".join(f"{v} ({n} times)" for v, n in sorted(c.items())) for name, c in values.items()}
    # Values that are all different, such as numbers of layers, say no more than the configuration.
    return found | {name: text for name, text in shown.items() if len(values[name]) <= 8}


def code_of_model(model: nn.Module, fingerprints: Fingerprints) -> dict[str, str]:
    """
    Returns the fingerprints of the code of a model that is in no installed library: classes of modules, hooks, and
    forward functions set on a module.

    Args:
        model (`torch.nn.Module`):
            The model.
        fingerprints ([`Fingerprints`]):
            Makes the fingerprints.
    """
    found: dict[str, list[str]] = {}
    classes = {type(module): None for module in model.modules() if not is_installed(type(module))}
    for kind in classes:
        found.setdefault(kind.__name__, []).append(fingerprints.of(kind))
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), vars(module).get("forward")]
        for hook in hooks:
            if hook is not None and not is_installed(hook):
                found.setdefault(f"hooks of {name or 'the model'}", []).append(fingerprints.of(hook))
    return {name: " ".join(sorted(values)) for name, values in found.items()}


def settings_of_torch(device: torch.device) -> dict[str, str]:
    """
    Returns the settings of torch that decide the last bits of a result.

    Args:
        device (`torch.device`):
            The device of the run. The number of threads matters on the CPU.
    """
    found = {
        "default dtype": torch.get_default_dtype(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "flash attention": torch.backends.cuda.flash_sdp_enabled(),
        "memory efficient attention": torch.backends.cuda.mem_efficient_sdp_enabled(),
    }
    if device.type == "cpu":
        found["num_threads"] = torch.get_num_threads()
    if device.type == "cuda":
        found["cudnn deterministic"] = torch.backends.cudnn.deterministic
        found["cudnn benchmark"] = torch.backends.cudnn.benchmark
        found["cudnn allow_tf32"] = torch.backends.cudnn.allow_tf32
        found["device"] = torch.cuda.get_device_name(device)
    return {name: str(value) for name, value in found.items()}


def transforms_of(splits: Mapping[str, Any], fingerprints: Fingerprints) -> dict[str, str]:
    """
    Returns how data sets make rows of what they hold: their formats and transforms, or the class of the data set.

    Args:
        splits (`dict[str, Any]`):
            The data sets by name.
        fingerprints ([`Fingerprints`]):
            Makes the fingerprints.
    """
    found = {}
    for split, dataset in splits.items():
        if isinstance(dataset, datasets.Dataset):
            shown = {name: value for name, value in dataset.format.items() if name != "columns"}
            found[f"{split}_dataset"] = fingerprints.of([shown, sorted(dataset.format["columns"] or [])])
        elif isinstance(dataset, datasets.IterableDataset):
            fingerprints.opaque.add(f"rows of the stream {split}_dataset after the first, and its transforms")
        else:
            found[f"{split}_dataset"] = fingerprints.of(type(dataset))
            if is_stream(dataset):
                fingerprints.opaque.add(f"rows of the stream {split}_dataset after the first")
    return found


def callbacks_of(trainer: Trainer, fingerprints: Fingerprints) -> dict[str, str]:
    """
    Returns the fingerprints of the caller's callbacks, by their names.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        fingerprints ([`Fingerprints`]):
            Makes the fingerprints.
    """
    found: dict[str, str] = {}
    for callback in callbacks_of_caller(trainer):
        # Those of other programs show the training somewhere.
        if type(callback).__module__.startswith("transformers.integrations"):
            continue
        kind = type(callback).__name__
        name = kind if kind not in found else f"{kind} ({len(found)})"
        if callback not in _first_seen:
            _first_seen[callback] = fingerprints.of(callback)
        found[name] = _first_seen[callback]
        if vars(callback) and not isinstance(callback, ExportableState) and not is_installed(type(callback)):
            fingerprints.opaque.add(f"what the callback {kind} has noted until the interruption")
    return found
