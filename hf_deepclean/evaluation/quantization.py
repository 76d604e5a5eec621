# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Rounds the weights of a model, to see whether that brings forgotten data back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..runtime.shards import is_sharded


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@contextmanager
def quantized(model: nn.Module, num_bits: int, group_size: int | None = 128) -> Iterator[list[str]]:
    """
    Rounds the weights of a model to 4 or 8 bits within the block. Afterwards, also after an error, the weights are
    restored bit for bit. Evaluate the model in the block, do not train it.

    Weights are rounded to nearest. In every weight matrix of a linear or convolutional layer, the inputs of each
    output are taken in groups of `group_size`. A group is divided by `scale = max |w| / (2^(num_bits - 1) - 1)`,
    rounded to whole numbers, and multiplied by `scale`. Embeddings, norms and biases are not rounded, nor is an output
    layer that is tied to an embedding.

    If a model hides what it should have forgotten behind small changes of its weights, rounding restores the old
    weights: rounding to 4 bits is reported to bring back up to 22 times more than there was, and rounding to 8 bits
    not to ([arXiv 2605.02196](https://huggingface.co/papers/2605.02196)). Evaluate the forget data in the
    block. The target is the change that the same rounding makes to the reference. Rounding also costs accuracy, so
    look at the retain data too: if the model no longer knows them, a low forget accuracy proves nothing.

    The rounding is not the format of any library: scales have full precision, activations are not rounded, nothing is
    calibrated (as by GPTQ and AWQ), and the levels are evenly spaced (unlike those of NF4). Weights that layers hold
    in other ways are not rounded: fused experts, the joint projection of `torch.nn.MultiheadAttention`, recurrent
    layers, weights under a parametrisation. The yielded list names the rounded parameters. Merge a copy of a model
    with adapters first, since base and adapter would be rounded separately.

    Within the block the rounded weights take as much memory again as the originals.

    Args:
        model (`torch.nn.Module`):
            The model. It must not be sharded.
        num_bits (`int`):
            4 or 8.
        group_size (`int`, *optional*, defaults to `128`):
            Number of inputs that share a scale, or `None` for all inputs of an output.

    Yields:
        `list[str]`: Names of the rounded parameters.

    Raises:
        `ValueError`: If `num_bits` or `group_size` is invalid, or the model is sharded, has no such layer, or is
            quantised already.
    """
    if num_bits not in (4, 8) or (group_size is not None and group_size < 1):
        raise ValueError(
            f"`num_bits` is {num_bits} and `group_size` is {group_size}, but weights are rounded to 4 or 8 bits, in "
            "groups of at least one input, or in whole rows with `group_size=None`."
        )
    layers = _layers(model)
    originals: dict[str, torch.Tensor] = {}
    try:
        for name, layer in layers.items():
            originals[name] = layer.weight.data
            layer.weight.data = _rounded(layer, num_bits, group_size)
        yield list(layers)
    finally:
        for name, weight in originals.items():
            layers[name].weight.data = weight


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear and convolutional layers by the names of their weights; only the first layer that shares a weight."""
    if any(map(is_sharded, model.parameters())):
        raise ValueError(
            f"This {type(model).__name__} is sharded over several processes, and rounding needs whole weights. "
            "Evaluate the saved result in one process."
        )
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    layers, seen = {}, set(embeddings)
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D, *_CONVOLUTIONS, *_TRANSPOSED)):
            continue
        weight = module._parameters.get("weight")
        if weight is None or weight in seen:
            continue
        if not weight.is_floating_point():
            raise ValueError(
                f"The weight of {name} is {weight.dtype}: the model is quantised already. Load it without "
                "quantisation to round it here, or evaluate it as it is."
            )
        seen.add(weight)
        layers[f"{name}.weight" if name else "weight"] = module
    if not layers:
        raise ValueError(
            f"This {type(model).__name__} has no linear or convolutional layer with a weight of its own, so rounding "
            "would change nothing."
        )
    return layers


def _rounded(layer: nn.Module, num_bits: int, group_size: int | None) -> torch.Tensor:
    result = layer.weight.detach().clone()
    rows = _by_output(layer, result)
    inputs = rows.flatten(2)
    largest = 2 ** (num_bits - 1) - 1
    parts = []
    for part in inputs.split(group_size or inputs.shape[2], dim=2):
        # Half precision would round the scale too.
        values = part.float() if part.itemsize < 4 else part
        scale = values.abs().amax(dim=2, keepdim=True) / largest
        # A scale of 0 would give NaN.
        levels = (values / scale.where(scale > 0, 1)).round().clamp(-largest, largest)
        parts.append((levels * scale).to(part.dtype))
    rows.copy_(torch.cat(parts, dim=2).view(rows.shape))
    return result


def _by_output(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Returns a view of a weight with axes for groups of channels, outputs and inputs."""
    if isinstance(layer, (Conv1D, *_TRANSPOSED)):
        return weight.unflatten(0, (getattr(layer, "groups", 1), -1)).transpose(1, 2)
    return weight.unsqueeze(0)
