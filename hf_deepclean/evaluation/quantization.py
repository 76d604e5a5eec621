# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Does rounding the weights bring back what was forgotten?"""

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
    A model as it would be after loading with weights of 4 or 8 bits; afterwards, also after an error, bit for bit as
    before. Evaluate in it, do not train.

    Round to nearest: in every weight matrix of a linear or convolutional layer, the inputs of each output are taken
    in groups of `group_size`; a group is divided by `scale = max |w| / (2^(num_bits - 1) - 1)`, rounded to whole
    numbers, and multiplied by it again. Embeddings, norms and biases stay as they are, and so does an output layer
    that is tied to an embedding.

    A model that hides what it should have forgotten behind small changes of its weights gets the old ones back by
    rounding: 4 bits are reported to bring back up to 22 times more of it than there was, 8 bits do not
    ([arXiv 2605.02196](https://huggingface.co/papers/2605.02196)). Evaluate the forget data in it: the target is the
    change that the same rounding makes to the reference. Rounding costs accuracy by itself, so look at the retained
    data too: where they are lost, a low forget accuracy proves nothing.

    It is not any one library's format: scales are in full precision, activations are not rounded, nothing is
    calibrated (as by GPTQ and AWQ), and the levels are evenly spaced (those of NF4 are not). Weights that layers hold
    in other ways stay as they are: fused experts, the joint projection of `torch.nn.MultiheadAttention`, recurrent
    layers, weights under a parametrisation. What was rounded is in the list. Of a model with adapters merge a copy
    first: here the base and the adapter would be rounded each by itself.

    As long as it lasts, the rounded weights take as much memory again as the originals.

    Args:
        model (`torch.nn.Module`):
            The model, in one piece.
        num_bits (`int`):
            4 or 8.
        group_size (`int`, *optional*, defaults to `128`):
            Inputs that share a scale, or `None` for all inputs of an output.

    Yields:
        `list[str]`: Names of the rounded parameters.

    Raises:
        `ValueError`: If `num_bits` or `group_size` is none, or the model is sharded, has no such layer, or is
            quantised already.
    """
    if num_bits not in (4, 8) or (group_size is not None and group_size < 1):
        raise ValueError(
            f"`num_bits` is {num_bits} and `group_size` is {group_size}, but weights are rounded to 4 or 8 bits, in "
            "groups of at least one input, or with `group_size=None` in whole rows."
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
    """Linear and convolutional layers by the names of their weights, of layers that share a weight the first."""
    if any(map(is_sharded, model.parameters())):
        raise ValueError(
            f"This {type(model).__name__} is sharded over several processes, where no row of a weight is whole. "
            "Re-check the saved result in one process."
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
                f"The weight of {name} is {weight.dtype}: the model is quantised already. Load it without, and "
                "compare its results with those in here."
            )
        seen.add(weight)
        layers[f"{name}.weight" if name else "weight"] = module
    if not layers:
        raise ValueError(
            f"This {type(model).__name__} has no linear or convolutional layer with a weight of its own, so that "
            "rounding would change nothing."
        )
    return layers


def _rounded(layer: nn.Module, num_bits: int, group_size: int | None) -> torch.Tensor:
    result = layer.weight.detach().clone()
    rows = _by_output(layer, result)
    inputs = rows.flatten(2)
    largest = 2 ** (num_bits - 1) - 1
    parts = []
    for part in inputs.split(group_size or inputs.shape[2], dim=2):
        # Half precision would round the scale as well.
        values = part.float() if part.itemsize < 4 else part
        scale = values.abs().amax(dim=2, keepdim=True) / largest
        # A group of zeros stays what it is.
        levels = (values / scale.where(scale > 0, 1)).round().clamp(-largest, largest)
        parts.append((levels * scale).to(part.dtype))
    rows.copy_(torch.cat(parts, dim=2).view(rows.shape))
    return result


def _by_output(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """A view of a weight with axes for groups of channels, outputs, and inputs."""
    if isinstance(layer, (Conv1D, *_TRANSPOSED)):
        return weight.unflatten(0, (getattr(layer, "groups", 1), -1)).transpose(1, 2)
    return weight.unsqueeze(0)
