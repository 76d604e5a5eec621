# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the linear layers and convolutions of a model are given, and products of their weights on that side."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ..models.contexts import differentiable_mode, evaluation_mode
from .scoring import trainable_parameters


# Entries of the patches that are made at once.
_MAX_ENTRIES = 2**24


def projectable_layers(model: nn.Module) -> dict[nn.Parameter, nn.Module]:
    """
    The trainable weights of linear layers and convolutions, each with the first layer that uses it.

    Convolutions in groups are left out: their kernels see a part of the channels each, which no one matrix acts on.
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
            f"No linear layer or ungrouped convolution of this {type(model).__name__} is trainable, and this method "
            "changes nothing else. Unfreeze some, or use another method."
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
    Sums of `x x^T` over the vectors x that layers multiply by their weights: tokens, or patches of a convolution in
    the kernel's own stride and padding. Padding tokens are left out.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model; it runs in eval mode.
        batches (`Iterable`):
            From [`scored_batches`].
        layers (`dict[torch.nn.Parameter, torch.nn.Module]`):
            From [`projectable_layers`]; other layers that use the same weight count too.
        rows_per_example (`float`, *optional*):
            So many vectors per example at most, drawn at random from those of a batch; by default all.
        seed (`int`, *optional*, defaults to `0`):
            Seed of that draw.

    Returns:
        `dict[torch.nn.Parameter, torch.Tensor]`: In float64, for every weight that was used.
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
            # For this forward pass alone: to look at a batch, its likelihood may run the model too.
            handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in used]
            try:
                model(**inputs)
            finally:
                for handle in handles:
                    handle.remove()
    return covariances


def multiply_inputs(layer: nn.Module, tensor: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A layer's weight or its gradient, read as (outputs, inputs), times a matrix on the side of the inputs."""
    if isinstance(layer, Conv1D):
        return matrix.T @ tensor
    return (tensor.flatten(1) @ matrix).view_as(tensor)


def _rows(
    layer: nn.Module, given: torch.Tensor, mask: Any, num_rows: int | None, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """The vectors that a layer multiplies by its weight, shape `(num_rows, num_inputs)`, in one or several parts."""
    if not isinstance(layer, nn.Conv2d):
        if given.ndim == 3 and isinstance(mask, torch.Tensor) and mask.shape == given.shape[:2]:
            given = given[mask.bool()]
        rows = given.flatten(0, -2)
        yield rows if num_rows is None else rows[_draw(len(rows), num_rows, generator).to(rows.device)]
        return
    padding, mode = layer._reversed_padding_repeated_twice, layer.padding_mode
    given = F.pad(given, padding, "constant" if mode == "zeros" else mode)
    unfold = partial(F.unfold, kernel_size=layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    # As many images at once as have patches that fit the memory.
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
