# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a folder before it is published, as a stranger would, and compares its answers with those of the model."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import dynamic_module_utils
from transformers.utils import CONFIG_NAME
from transformers.utils import logging as transformers_logging

from ...data.batches import move_batch, split_labels
from ...models.adapters.loading import load_adapted_model
from ...models.adapters.parameters import is_adapter_path
from ...models.contexts import evaluation_mode, own_precision
from ...models.custom_code import check_custom_code, has_own_code
from ...models.heads import prepare_batch
from ...models.loading import model_class_of, trusting
from ...report.base_card import is_hub_id
from ...runtime.random_state import all_seeded
from ...runtime.sharded_models import plain_class
from .allow_list import ADAPTER_WEIGHTS_NAME, processing_classes


logger = logging.getLogger(__name__)

# Largest difference of the answers, as a share of the answer or of a usual one. Other kernels round differently; on
# the same device with the same kernels the answers have the same bits.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
# A copy of the model must leave some of the memory free.
_ROOM = 1.2


@dataclass(frozen=True)
class ModelInMemory:
    """
    The model that the published folder must answer like.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model.
        batch (`Mapping[str, Any]`): A small collated batch.
        processing_class (*optional*): Its tokenizer or processor.
    """

    model: nn.Module
    batch: Mapping[str, Any]
    processing_class: Any | None = None


def check_loads(
    folder: Path,
    *,
    base: str | None = None,
    in_memory: ModelInMemory | None = None,
    trust_remote_code: bool = False,
) -> None:
    """
    Loads a folder before it is published.

    The names and shapes of all weights are checked without reading them. If the model is in memory, and there is room
    for a second one, the folder is loaded beside it and must answer as it does on one batch: with the same bits, up to
    what other kernels round. An adapter is loaded on its base, if that is on this machine. What could not be checked
    is warned of.

    Args:
        folder (`Path`):
            The folder.
        base (`str`, *optional*):
            Path or id of an adapter's base.
        in_memory ([`ModelInMemory`], *optional*):
            The model to compare with.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code in the folder may be run. The code of a model in memory has been.

    Raises:
        `ValueError`: If the folder cannot be loaded, lacks weights, or answers differently.
    """
    model = None if in_memory is None else in_memory.model
    trust_remote_code |= model is not None and has_own_code(model)
    with _code_removed(folder), _silent(), all_seeded(0):
        if is_adapter_path(folder):
            _check_adapter(folder, base, in_memory, trust_remote_code)
        else:
            _check_model(folder, in_memory, trust_remote_code)
        processing_class = None if in_memory is None else in_memory.processing_class
        if processing_class is not None and has_own_code(processing_class):
            type(processing_class).from_pretrained(folder)
        else:
            list(processing_classes(folder, trust_remote_code))


def _check_model(folder: Path, in_memory: ModelInMemory | None, trust_remote_code: bool) -> None:
    check_custom_code(folder, trust_remote_code)
    try:
        kind = model_class_of(folder, trust_remote_code)
    except ValueError as error:
        if in_memory is None:
            logger.warning(f"Whether the folder loads again was not checked: {error}")
            return
        kind = plain_class(in_memory.model)
        logger.warning(
            f"{kind.__name__} is no class of transformers and its code is not published, so that only those who have "
            f"the code can load the model. `{kind.__name__}.register_for_auto_class(...)` before the run adds it."
        )
    arguments = {"dtype": "auto", "output_loading_info": True, **trusting(trust_remote_code)}
    outline = _load(kind, folder, device_map="meta", **arguments)
    if in_memory is None or not _has_room(in_memory.model):
        return
    if _warn_of_other_precision(outline, in_memory.model):
        # The widest precision holds what the folder does; `_compare` rounds it as the model in memory is.
        arguments["dtype"] = reduce(torch.promote_types, _precisions(in_memory.model.named_parameters()).values())
    # The kernels of the model in memory, which its configuration does not save.
    kernels = {}
    for name in ("attn_implementation", "experts_implementation"):
        used = getattr(in_memory.model.config, f"_{name}", None)
        if used is not None and used != getattr(outline.config, f"_{name}", None):
            kernels[name] = used
    try:
        loaded = _load(kind, folder, **arguments, **kernels)
    except ValueError:
        # A model of several parts may not take one kernel for all of them.
        loaded = _load(kind, folder, **arguments)
    _compare(loaded, in_memory)


def _load(kind: Any, folder: Path, **arguments: Any) -> nn.Module:
    try:
        model, found = kind.from_pretrained(str(folder), **arguments)
    except Exception as error:
        raise ValueError(
            "The folder to publish cannot be loaded, so nothing is published "
            f"({type(error).__name__}: {' '.join(str(error).split()):.300})."
        ) from error
    lost, strange = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if lost or strange or found.get("mismatched_keys"):
        causes = [f"it has no {lost[0]} ({len(lost)} missing)"] if lost else []
        causes += [f"the model has no place for {strange[0]} ({len(strange)} unexpected)"] if strange else []
        raise ValueError(
            f"The folder to publish does not hold the model, so nothing is published: "
            f"{'; '.join(causes) or 'weights have other shapes'}. Restore its files, or run again."
        )
    return model


def _check_adapter(folder: Path, base: str | None, in_memory: ModelInMemory | None, trust_remote_code: bool) -> None:
    try:
        with safe_open(folder / ADAPTER_WEIGHTS_NAME, "pt") as file:
            carries_embeddings = any("lora_" not in key and "embed" in key for key in file.keys())
    except SafetensorError as error:
        raise ValueError(f"{ADAPTER_WEIGHTS_NAME} cannot be loaded, so nothing is published ({error}).") from None
    quantised = in_memory is not None and getattr(in_memory.model.get_base_model(), "hf_quantizer", None) is not None
    if base is None or quantised or carries_embeddings:
        cause = "its base is quantised" if quantised else "it carries embeddings" if base else "it names no base"
        logger.warning(f"Whether the adapter answers as the model was not checked: {cause}.")
        return
    is_here = is_hub_id(base) and isinstance(try_to_load_from_cache(base, CONFIG_NAME), str)
    if not (is_here or Path(base).is_dir()):
        logger.warning("Whether the adapter answers as the model was not checked: its base is not on this machine.")
        return
    if in_memory is not None and not _has_room(in_memory.model):
        return
    loaded = load_adapted_model(folder, trust_remote_code=trust_remote_code, base=base)
    if in_memory is not None:
        _compare(loaded, in_memory)


def _has_room(model: nn.Module) -> bool:
    needed = int(_ROOM * sum(tensor.nbytes for tensor in model.parameters()))
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        logger.warning(
            "Whether the folder answers as the model was not checked: a copy of the model needs "
            f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free on {device}. Its weights are complete."
        )
    return needed <= free


def _compare(loaded: nn.Module, in_memory: ModelInMemory) -> None:
    model = in_memory.model
    loaded.to(next(model.parameters()).device)
    precisions = _precisions(_tensors(model))
    for name, tensor in _tensors(loaded):
        # `model.half()` also rounds weights and buffers that loading makes in full precision.
        tensor.data = tensor.data.to(precisions.get(name, tensor.dtype))
    try:
        expected = _answers(model, in_memory.batch)
    except Exception as error:
        logger.warning(
            f"Whether the folder answers as the model was not checked: the model in memory fails on a batch of retain "
            f"data ({type(error).__name__})."
        )
        return
    try:
        found = _answers(loaded, in_memory.batch)
    except Exception as error:
        raise ValueError(
            "The folder to publish loads but does not answer as the model in memory does "
            f"({type(error).__name__}: {' '.join(str(error).split()):.300}), so nothing is published. "
            f"{_what_differs(loaded, model)}"
        ) from error
    if not any(answer.isfinite().any() for answer in expected.values()):
        logger.warning(
            f"Whether the folder answers as the model was not checked: the model in memory answers a batch of retain "
            f"data with no finite number, in {model.dtype}."
        )
    for name, answer in expected.items():
        other = found.get(name)
        if other is not None and torch.equal(answer, other):
            continue
        if other is None or other.shape != answer.shape or not _is_close(answer, other):
            raise ValueError(
                f"The folder to publish answers differently than the model in memory (`{name}` of a batch), so "
                f"nothing is published. {_what_differs(loaded, model)} If the model was changed after the run, "
                "`push_folder_to_hub` publishes what the run has written; else the folder, or how the model "
                "is saved or loaded, is at fault."
            )


def _answers(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """All answers that are tensors of numbers."""
    inputs, _ = split_labels(move_batch(prepare_batch(model, batch), next(model.parameters()).device))
    with torch.no_grad(), evaluation_mode(model), own_precision(model), all_seeded(0):
        outputs = model(**inputs)
    named = dict(outputs.items()) if isinstance(outputs, Mapping) else dict(enumerate(outputs))
    return {
        str(name): answer.detach()
        for name, answer in named.items()
        if isinstance(answer, torch.Tensor) and answer.is_floating_point()
    }


def _is_close(answer: torch.Tensor, other: torch.Tensor) -> bool:
    tolerance = _TOLERANCE.get(answer.dtype, 1e-2)
    # A usual answer among those that differ: masked ones may be the least number that there is, with the same bits.
    usual = answer.double().abs()[(answer != other) & answer.isfinite() & other.isfinite()]
    scale = usual.median().item() if usual.numel() else 0.0
    return torch.allclose(other.double(), answer.double(), rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _what_differs(loaded: nn.Module, model: nn.Module) -> str:
    """What explains that a loaded model answers otherwise than the one in memory."""
    found = dict(_tensors(loaded))
    changed = [
        name
        for name, tensor in _tensors(model)
        if name in found and (found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor))
    ]
    if changed:
        return f"`{changed[0]}` has other values after loading ({len(changed)} such)."
    if any("forward" in vars(module) for module in model.modules()):
        return "All weights are the same, but a `forward` was replaced on the model in memory, and no file holds it."
    return "All weights are the same: the configuration or the code differs."


def _warn_of_other_precision(outline: nn.Module, model: nn.Module) -> bool:
    """Whether loading the folder rounds weights otherwise than they are in memory."""
    precisions = _precisions(model.named_parameters())
    loaded = _precisions(outline.named_parameters())
    other = [name for name in precisions if loaded.get(name, precisions[name]) != precisions[name]]
    if other:
        advice = "Put the model into one precision before the run"
        if len(set(precisions.values())) == 1:
            advice = f"Whoever loads it needs `model.to({precisions[other[0]]})` afterwards"
        logger.warning(
            f"`{other[0]}` is {precisions[other[0]]} in memory and {loaded[other[0]]} where the folder is loaded "
            f"({len(other)} of {len(precisions)} weights), so that the loaded model rounds otherwise, or fails if "
            f"its layers do not take several precisions. The saved weights are right. {advice}."
        )
    return bool(other)


def _precisions(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in tensors if tensor.is_floating_point()}


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters and buffers of a model, by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


@contextmanager
def _silent() -> Iterator[None]:
    """Without the progress bars and the load reports of transformers: what matters is raised."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _code_removed(folder: Path) -> Iterator[None]:
    """Removes the copy of the folder's code that transformers makes to import it."""
    name = folder.name.replace(".", "_dot_").replace("-", "_hyphen_")
    try:
        yield
    finally:
        modules = Path(dynamic_module_utils.HF_MODULES_CACHE) / dynamic_module_utils.TRANSFORMERS_DYNAMIC_MODULE_NAME
        shutil.rmtree(modules / name, ignore_errors=True)
