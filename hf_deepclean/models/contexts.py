# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Puts a model into the state that a phase needs. Context managers restore it afterwards, also after an error."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from ..runtime.sharded_models import reshard
from .module_state import ModuleState


# Layers that write buffers in training mode, the newer form of spectral normalisation among them.
_WITH_STATISTICS = (nn.modules.batchnorm._NormBase, parametrizations._SpectralNorm)

_DROPOUTS: frozenset[Callable[..., Any]] = frozenset(
    getattr(owner, name)
    for owner in (torch, F)
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    if hasattr(owner, name)
)


class _WithoutDropout(TorchFunctionMode):
    """
    Switches dropout off, also where a model calls it regardless of its mode. Under autocast on a CPU, attention runs
    in float32: without dropout its backward pass in half precision takes several times as long.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            if kwargs.get("dropout_p"):
                kwargs = kwargs | {"dropout_p": 0.0}
            if torch.is_autocast_enabled("cpu"):
                with torch.autocast("cpu", enabled=False):
                    output = func(*convert_to_fp32(args), **convert_to_fp32(kwargs))
                return output if output.dtype == torch.float64 else output.to(torch.get_autocast_dtype("cpu"))
        return func(*args, **kwargs)


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Decorates a function that computes gradients, so that it does so also for a caller who switched them off
    (`torch.no_grad`, `torch.inference_mode`).
    """
    # This ends both modes within the function; `torch.enable_grad` ends only the first.
    return torch.inference_mode(False)(function)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """
    Puts every module in eval mode: no dropout, normalisation by running statistics.

    Afterwards, buffers that are not saved with the model are what they were; see [`restoring_unsaved_buffers`].
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with restoring_unsaved_buffers(model):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def restoring_unsaved_buffers(model: nn.Module) -> Iterator[None]:
    """
    Restores the buffers that are not saved with the model after the block, with what their modules note beside them.

    Some forward passes recompute them, such as rotary embeddings that are scaled by the length of the sequence. So
    every phase starts with the same ones, whatever the phase before it read.
    """
    state = ModuleState(model)
    try:
        yield
    finally:
        state.restore()


@contextmanager
def only_trainable(model: nn.Module, parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """Makes `parameters`, and no others of the model, require gradients."""
    # The whole parameters of a sharded model copy this from their shards when they are next made.
    reshard(model)
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        reshard(model)
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)


def end_mixed_precision(model: nn.Module) -> None:
    """Removes the autocast that Accelerate has put around a model's forward pass for training."""
    prepared = vars(model)
    if not prepared.get("_is_accelerate_prepared") or "_original_forward" not in prepared:
        return
    # If the mark stayed, the next training would run in full precision.
    del prepared["_is_accelerate_prepared"], prepared["forward"]
    forward = prepared.pop("_original_forward")
    if getattr(forward, "__func__", None) is not type(model).forward:
        model.forward = forward


@contextmanager
def own_precision(model: nn.Module) -> Iterator[None]:
    """Runs the model's own forward pass, without the autocast that Accelerate may have put around it for training."""
    names = ("_is_accelerate_prepared", "_original_forward", "forward")
    prepared = {name: value for name, value in vars(model).items() if name in names}
    end_mixed_precision(model)
    try:
        yield
    finally:
        vars(model).update(prepared)


# Models whose forward passes run under autocast now.
_under_autocast: WeakSet[nn.Module] = WeakSet()


@contextmanager
def autocasting(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """
    Runs the forward passes of a model under autocast, with outputs in float32, as Trainer's evaluation does.

    Args:
        model (`torch.nn.Module`):
            The model.
        dtype (`torch.dtype`, *optional*):
            The dtype of matrix products. `None`: the model's own forward pass.
    """
    if dtype is None:
        yield
        return
    model = getattr(model, "_orig_mod", model)
    # A cached cast would outlive a change of the weight within the pass, and one without a graph hides gradients.
    context = torch.autocast(next(model.parameters()).device.type, dtype, cache_enabled=False)

    def enter(module: nn.Module, args: Any) -> None:
        context.__enter__()

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        context.__exit__(None, None, None)
        return convert_to_fp32(output)

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    _under_autocast.add(model)
    try:
        yield
    finally:
        _under_autocast.discard(model)
        for hook in hooks:
            hook.remove()


def autocast_of_training(args: TrainingArguments) -> torch.dtype | None:
    """The dtype of Trainer's autocast, in training and in evaluation; `None` without autocast."""
    if args.bf16:
        return torch.bfloat16
    # On a CPU, Trainer has no autocast to float16.
    return torch.float16 if args.fp16 and args.device.type != "cpu" else None


def autocast_of_fishers(args: TrainingArguments, kept_fisher: Any) -> str | None:
    """
    The name of the dtype of the autocast of Fisher passes, that of the training; `None` without autocast.

    Squared gradients do not fit float16; their passes get bfloat16 where the device has it. A Fisher that is
    subtracted from a kept one must have its precision, which is the model's own.
    """
    dtype = autocast_of_training(args)
    has_bfloat16 = dtype != torch.float16 or torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
    return "bfloat16" if dtype is not None and has_bfloat16 and kept_fisher is None else None


def is_autocasting(model: nn.Module) -> bool:
    """Whether the forward passes of a model run under autocast, by [`autocasting`]."""
    return getattr(model, "_orig_mod", model) in _under_autocast


@contextmanager
def differentiable_mode(model: nn.Module) -> Iterator[None]:
    """
    Makes the gradients of a model in eval mode right for every parameter and example.

    Switches off dropout and the cache of keys and values. Runs mixtures of experts in their plain form, expert by
    expert, which keeps the rows of different examples apart.
    """
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    values = {"use_cache": False, "_experts_implementation_internal": "eager"}
    before = [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name in values
        if getattr(config, name, None) is not None
    ]
    for config, name, _ in before:
        setattr(config, name, values[name])
    # In eval mode LeViT reuses biases of an earlier forward pass, which pass no gradient on to their parameters.
    keeping = [module for module in model.modules() if hasattr(module, "attention_bias_cache")]
    for module in keeping:
        module.training = True
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_hook(_make_gradient_contiguous) for norm in norms]
    try:
        with _WithoutDropout():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in keeping:
            module.training = False
        for config, name, value in before:
            setattr(config, name, value)


def _make_gradient_contiguous(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    # The backward pass of batch normalisation in eval mode misreads the gradient of a single example if it is not
    # contiguous (torch 2.13, CPU).
    if output.requires_grad:
        output.register_hook(torch.Tensor.contiguous)


@contextmanager
def checkpointing_mode(
    model: nn.Module, recomputation: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """
    Keeps the gradient checkpointing of a model working in eval mode.

    transformers checkpoints layers only in training mode, so the checkpointed layers, but not their submodules, are
    put in training mode. Dropout that these layers call themselves is off in [`differentiable_mode`].

    Args:
        model (`torch.nn.Module`):
            The model.
        recomputation (`Callable`, *optional*):
            Called in the forward pass. Returns the context in which the backward pass runs a layer again, and in which
            the layer must run the same ops as in the forward pass.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _entered(_WithoutDropout(), recomputation())

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    functions = [layer._gradient_checkpointing_func for layer in layers]
    for layer in layers:
        layer.training = True
        # Reentrant checkpointing needs inputs that require gradients, and only gives gradients of leaves.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    try:
        yield
    finally:
        for layer, function in zip(layers, functions, strict=True):
            layer.training = False
            layer._gradient_checkpointing_func = function


@contextmanager
def _entered(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """
    Restores training flags, buffers, gradients, configurations and all random states after the block.

    Args:
        model (`torch.nn.Module`):
            The model. Its weights are not restored: a block that changes them must put them back.
    """
    training = {module: module.training for module in model.modules()}
    state = ModuleState(model, whole=True)
    configs = [vars(module.config) for module in model.modules() if hasattr(module, "config")]
    configs = [(values, dict(values)) for values in {id(values): values for values in configs}.values()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    device = next(model.parameters()).device
    states = random.getstate(), np.random.get_state()
    for parameter, _ in gradients:
        parameter.grad = None
    accelerator = {"devices": [], "device_type": "cuda"}
    if device.type != "cpu":
        accelerator = {"devices": [device], "device_type": device.type}
    try:
        with torch.random.fork_rng(**accelerator):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for parameter, gradient in gradients:
            parameter.grad = gradient
        state.restore()
        for values, before in configs:
            values.clear()
            values.update(before)
        for module, mode in training.items():
            module.training = mode


@contextmanager
def checkpointing_activations(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """
    Switches activation checkpointing on inside the block only, if the arguments ask for it; Trainer would leave it on.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        args ([`~transformers.TrainingArguments`]):
            The training arguments.

    Raises:
        `ValueError`: If the model does not support it.
    """
    # transformers renamed these methods and arguments, and warns if the old names are used.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    renamed = "activation" if hasattr(args, "activation_checkpointing") else "gradient"
    enabled = getattr(args, f"{renamed}_checkpointing")
    enabled = enabled and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if enabled:
        options = dict(getattr(args, f"{renamed}_checkpointing_kwargs", None) or {})
        further = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
        getattr(model, f"{kind}_checkpointing_enable")(**{f"{kind}_checkpointing_kwargs": options or None}, **further)
    try:
        yield
    finally:
        if enabled:
            getattr(model, f"{kind}_checkpointing_disable")()


def freeze_running_statistics(model: nn.Module) -> None:
    """
    Puts layers with running statistics in eval mode, so that a training step does not change their buffers. Spectral
    normalisation keeps its vectors.
    """
    for module in model.modules():
        hooks = module._forward_pre_hooks.values()
        if isinstance(module, _WITH_STATISTICS) or any(isinstance(hook, SpectralNorm) for hook in hooks):
            module.eval()


def keep_base_differentiable(model: nn.Module) -> None:
    """
    Keeps the 4-bit weights of bitsandbytes in the layout that gradients pass through, permanently.

    On processors with AVX512-BF16 a forward pass in eval mode repacks them in place and for good, into a layout for
    inference only. Then the gradients of all layers below would silently be missing, and the base model's bits would
    differ.
    """
    packing = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for module in packing:
        # bitsandbytes undoes the packing when it is asked for the state.
        module.state_dict()
        module.support_avx512bf16_for_cpu = False
