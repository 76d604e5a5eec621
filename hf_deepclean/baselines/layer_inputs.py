# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of linear layers and convolutions, and products with their weights on the side of the inputs."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ..models.contexts import differentiable_mode, evaluation_mode
from .scoring import trainable_parameters


# Maximum number of elements of the patches that are in memory at once.
_MAX_ENTRIES = 2**24


def projectable_layers(model: nn.Module) -> dict[nn.Parameter, nn.Module]:
    """
    The trainable weights of linear layers and convolutions, each with the first layer that uses it.

    Grouped convolutions are left out: each of their kernels reads a part of the channels, so no single matrix acts on
    all inputs.

    Raises:
        `ValueError`: If there is no such weight.
    """
    trainable = set(trainable_parameters(model).values())
    layers: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():
        is_projectable = isinstance(module, (nn.Linear, Conv1D)) or (
            isinstance(module, nn.Conv2d) and module.groups == 1
        )
        if is_projectable and module.weight in trainable:
            layers.setdefault(module.weight, module)
    if not layers:
        raise ValueError(
            f"No linear layer or ungrouped convolution of this {type(model).__name__} is trainable, but this method "
            "changes nothing else. Unfreeze some of them, or use another method."
        )
    return layers


@torch.no_grad()
def input_covariances(
    model: nn.Module,
    batches: Iterable[tuple[Any, dict[str, Any], torch.Tensor]],
    layers: Mapping[nn.Parameter, nn.Module],
    rows_per_example: float | None = None,
    seed: int = 0,
) -> dict[nn.Parameter, torch.Tensor]:
    """
    Sums `x x^T` over the vectors x that layers multiply by their weights: tokens, or the patches of a convolution,
    with the stride and the padding of its kernel. Padding tokens are left out.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model; it runs in eval mode.
        batches (`Iterable`):
            From [`scored_batches`].
        layers (`dict[torch.nn.Parameter, torch.nn.Module]`):
            From [`projectable_layers`]. Other layers that share these weights are summed too.
        rows_per_example (`float`, *optional*):
            Maximum number of vectors per example, drawn at random from those of a batch. By default all.
        seed (`int`, *optional*, defaults to `0`):
            Seed of that draw.

    Returns:
        `dict[torch.nn.Parameter, torch.Tensor]`: The sum for every weight that was used, of shape
        `(num_inputs, num_inputs)` in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    covariances: dict[nn.Parameter, torch.Tensor] = {}
    kinds = (nn.Linear, Conv1D, nn.Conv2d)
    used = [module for module in model.modules() if isinstance(module, kinds) and module.weight in layers]

    def add(mask: Any, num_rows: int | None, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(iter((*args, *kwargs.values())))
        for rows in _rows(layer, given, mask, num_rows, generator):
            rows = rows.double()
            if layer.weight in covariances:
                covariances[layer.weight].addmm_(rows.T, rows)
            else:
                covariances[layer.weight] = rows.T @ rows

    with evaluation_mode(model), differentiable_mode(model):
        for _, inputs, labels in batches:
            num_rows = None if rows_per_example is None else max(1, int(rows_per_example * len(labels)))
            hook = partial(add, inputs.get("attention_mask"), num_rows)
            # The hooks are for this forward pass alone, because finding the likelihood of a batch may run the model
            # too.
            handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in used]
            try:
                model(**inputs)
            finally:
                for handle in handles:
                    handle.remove()
    return covariances


def multiply_inputs(layer: nn.Module, tensor: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiplies a layer's weight or gradient, read as `(outputs, inputs)`, by a matrix on the side of the inputs."""
    if isinstance(layer, Conv1D):
        return matrix.T @ tensor
    return (tensor.flatten(1) @ matrix).view_as(tensor)


def _rows(
    layer: nn.Module, given: torch.Tensor, mask: Any, num_rows: int | None, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Yields the vectors that a layer multiplies by its weight, in one or more parts of `(num_rows, num_inputs)`."""
    if not isinstance(layer, nn.Conv2d):
        if given.ndim == 3 and isinstance(mask, torch.Tensor) and mask.shape == given.shape[:2]:
            given = given[mask.bool()]
        rows = given.flatten(0, -2)
        yield rows if num_rows is None else rows[_draw(len(rows), num_rows, generator).to(rows.device)]
        return
    padding, mode = layer._reversed_padding_repeated_twice, layer.padding_mode
    given = F.pad(given, padding, "constant" if mode == "zeros" else mode)
    unfold = partial(F.unfold, kernel_size=layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    # Takes only as many images at once as have patches that fit the limit.
    entries = given[0].numel() * layer.kernel_size[0] * layer.kernel_size[1] // (layer.stride[0] * layer.stride[1])
    parts = given.split(max(1, _MAX_ENTRIES // max(1, entries)))
    for part in parts:
        rows = unfold(part).transpose(1, 2).flatten(0, 1)
        if num_rows is not None:
            share = max(1, num_rows * len(part) // len(given))
            rows = rows[_draw(len(rows), share, generator).to(rows.device)]
        yield rows


def _draw(num_rows: int, num_drawn: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(num_rows, generator=generator)[:num_drawn]
