# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny, float64, deterministic model of every architecture in transformers' auto mappings."""

import functools
import random
from typing import Any

import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig, PreTrainedModel

from tests.architectures.batches import batch
from tests.architectures.entries import Entry
from tests.architectures.tiny_configs import tiny_config


def _part_for(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PretrainedConfig:
    """The configuration, or the part of it that a model class is built from (a decoder's or a text model's)."""
    if isinstance(config, model_class.config_class):
        return config
    parts = [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
    return next((part for part in parts if isinstance(part, model_class.config_class)), config)


class _Float64(TorchFunctionMode):
    """
    Uses float64 wherever a model asks for float32.

    Many models normalise and take softmaxes in float32 whatever their dtype. That rounds differently for one example
    and for several, which would hide differences that matter.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


def build(entry: Entry) -> PreTrainedModel:
    """Builds a float64 model in eval mode, the same on every call."""
    torch.manual_seed(0)
    random.seed(0)
    model_class = getattr(transformers, entry.class_name)
    config = _part_for(model_class, tiny_config(entry.model_type, entry.head))
    config._experts_implementation = "eager"
    model = model_class(config)
    for module in model.modules():
        # As in `Trainer`: nothing is generated, and some caches are changed in place.
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
    randomize(model)
    model = model.to(torch.float64).eval()
    forward = model.forward

    @functools.wraps(forward)
    def in_float64(*args: Any, **kwargs: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            with _Float64():
                return forward(*args, **kwargs)
        finally:
            torch.set_default_dtype(torch.float32)

    model.forward = in_float64
    _set_running_statistics(model, entry)
    return model


def randomize(model: nn.Module) -> None:
    """Moves weights and running statistics away from zeros and ones, so that no gradient is zero by chance."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                # At this scale of the kernels, signals do not vanish in many layers.
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 2 and parameter.numel() else 0.05
                parameter += scale * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if "running" in name and buffer.is_floating_point():
                buffer += 0.1 * torch.rand(buffer.shape, generator=generator)


def _set_running_statistics(model: PreTrainedModel, entry: Entry) -> None:
    """Gives batch normalisation the statistics of a batch, without which signals vanish in deep models."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(**{name: value for name, value in batch(entry, model).items() if name != "labels"})
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
