# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A model as a phase needs it, for the duration; afterwards, also after an error, as it was before."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ..runtime.sharded_models import reshard


_DROPOUTS: frozenset[Callable[..., Any]] = frozenset(
    getattr(owner, name)
    for owner in (torch, F)
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    if hasattr(owner, name)
)


class _WithoutDropout(TorchFunctionMode):
    """No dropout, also where a model calls it without asking for its mode."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            kwargs = kwargs | {"dropout_p": 0.0}
        return func(*args, **kwargs)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode: no dropout, normalisation by running statistics."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def only_trainable(model: nn.Module, parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """These parameters, and no others of the model, require gradients."""
    # The whole parameters of a sharded model take over from their shards, once they are made of them again.
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
    """Gives a model back the forward pass that Accelerate, preparing it for training, has put under autocast."""
    prepared = vars(model)
    if not prepared.get("_is_accelerate_prepared") or "_original_forward" not in prepared:
        return
    # Without the mark the next training would run in full precision.
    del prepared["_is_accelerate_prepared"], prepared["forward"]
    forward = prepared.pop("_original_forward")
    if getattr(forward, "__func__", None) is not type(model).forward:
        model.forward = forward


@contextmanager
def own_precision(model: nn.Module) -> Iterator[None]:
    """The model's own forward pass, without the autocast that Accelerate may have put around it for training."""
    names = ("_is_accelerate_prepared", "_original_forward", "forward")
    prepared = {name: value for name, value in vars(model).items() if name in names}
    end_mixed_precision(model)
    try:
        yield
    finally:
        vars(model).update(prepared)


@contextmanager
def differentiable_mode(model: nn.Module) -> Iterator[None]:
    """
    In eval mode, but so that gradients are right for every parameter and example.

    No dropout and no cache of keys and values. Mixtures of experts in their plain form, expert by expert, which keeps
    apart whose rows an expert sees.
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
    # LeViT keeps biases from one forward pass to the next in eval mode, which cuts them off from their parameters.
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
    # The backward pass of batch normalisation in eval mode misreads gradients of one example with other strides
    # (torch 2.13, CPU).
    if output.requires_grad:
        output.register_hook(torch.Tensor.contiguous)


@contextmanager
def checkpointing_mode(
    model: nn.Module, recomputation: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """
    In eval mode, but with the gradient checkpointing that the model has switched on.

    transformers checkpoints layers in training mode only, so exactly these layers are put in it; dropout that they
    call themselves is off in [`differentiable_mode`].

    Args:
        model (`torch.nn.Module`):
            The model.
        recomputation (`Callable`, *optional*):
            Called in the forward pass; returns the context in which the backward pass runs a layer again. It must see
            the ops of the layer as the forward pass did.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _entered(_WithoutDropout(), recomputation())

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    functions = [layer._gradient_checkpointing_func for layer in layers]
    for layer in layers:
        layer.training = True
        # The reentrant kind needs inputs that require gradients, and refuses gradients of anything but leaves.
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
    Training flags, buffers, gradients and all random states are afterwards what they were before.

    Args:
        model (`torch.nn.Module`):
            The model. Whoever changes its weights puts them back.
    """
    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
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
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, mode in training.items():
            module.training = mode


@contextmanager
def checkpointing_activations(model: nn.Module, enabled: bool) -> Iterator[None]:
    """
    Checkpoints activations for the duration, where Trainer would switch it on for good.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        enabled (`bool`):
            Whether they are to be; if not, the model stays as it is.
    """
    # transformers has renamed the methods, and warns of the old names.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    enabled = enabled and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if enabled:
        getattr(model, f"{kind}_checkpointing_enable")()
    try:
        yield
    finally:
        if enabled:
            getattr(model, f"{kind}_checkpointing_disable")()


def freeze_running_statistics(model: nn.Module) -> None:
    """Puts layers that keep running statistics in eval mode, so that a training step leaves their buffers alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def keep_base_differentiable(model: nn.Module) -> None:
    """
    Keeps the 4-bit weights of bitsandbytes in the layout that gradients pass through.

    On processors with AVX512-BF16 a forward pass in eval mode repacks them in place, for good, into one that is for
    inference only; a gradient of any layer below would silently be missing, and the base's bits would differ.
    """
    packing = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for module in packing:
        # Asking for its state is how bitsandbytes undoes the packing.
        module.state_dict()
        module.support_avx512bf16_for_cpu = False
