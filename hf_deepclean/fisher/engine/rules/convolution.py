# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The closed forms of convolutions."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..calls import Call, Contact, Use
from ..gradients import ConvolutionGradient, LinearGradient, ParameterGradient, PatchGradient
from ..layouts import Regular, upcast


def convolution_rule(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Contact | None:
    rank, size, product_dtype = weight.ndim - 2, call.batch.size, call.batch.product_dtype
    strides, dilations = _per_axis(stride, rank), _per_axis(dilation, rank)
    before = after = [0] * rank
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
    elif padding != "valid":
        before = after = _per_axis(padding, rank)

    def weight_gradient(g: torch.Tensor, x: torch.Tensor) -> ParameterGradient:
        paddings = before
        if before != after:
            pairs = [amount for pair in zip(before[::-1], after[::-1], strict=True) for amount in pair]
            x, paddings = F.pad(x, pairs), [0] * rank
        if groups == 1 and not any(paddings) and weight.is_contiguous():
            patches = _patches(x, weight.shape[2:], strides)
            if patches is not None:
                outputs = g.unflatten(0, (size, -1)).flatten(3).transpose(2, 3).flatten(1, 2)
                windows = patches.unflatten(0, (size, -1)).flatten(1, 2)
                return PatchGradient(LinearGradient(outputs, windows, product_dtype))
        return _kernel_gradient(size, g, x, weight, strides, paddings, dilations, False, [0] * rank, groups)

    return _images(call, input, weight, bias, weight_gradient)


def transposed_convolution_rule(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Contact | None:
    rank, size = weight.ndim - 2, call.batch.size
    strides, paddings, output_paddings, dilations = (
        _per_axis(value, rank) for value in (stride, padding, output_padding, dilation)
    )

    def weight_gradient(g: torch.Tensor, x: torch.Tensor) -> ParameterGradient:
        return _kernel_gradient(size, g, x, weight, strides, paddings, dilations, True, output_paddings, groups)

    return _images(call, input, weight, bias, weight_gradient)


def _images(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    weight_gradient: Callable[..., ParameterGradient],
) -> Contact | None:
    """The uses of a kernel and a bias, if every example has consecutive images on the first axis; else `None`."""
    layout, batch = call.layout(input), call.batch
    if not isinstance(layout, Regular) or layout.axis != 0 or (layout.rows > 1 and layout.interleaved):
        return None
    if input.ndim != weight.ndim:
        return None
    uses = [Use(weight, weight_gradient)]
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_channel(layout, g)))
    return Contact([input], uses)


def _kernel_gradient(
    size: int, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *arguments: Any
) -> ConvolutionGradient:
    return ConvolutionGradient(upcast(g), upcast(x), upcast(weight.detach()), len(x) // size, *arguments)


def _per_axis(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value) * (rank if len(value) == 1 else 1)


def _patches(images: torch.Tensor, window: torch.Size, strides: list[int]) -> torch.Tensor | None:
    """
    Adjacent windows, or windows of one pixel, as tokens of shape `(num_images, num_windows, channels * window)`,
    without a copy. `None` for other windows.
    """
    if all(size == 1 for size in window):
        for axis, stride in enumerate(strides, start=2):
            images = images[(slice(None),) * axis + (slice(None, None, stride),)]
        return images.flatten(2).transpose(1, 2)
    if list(window) != strides:
        return None
    rank = len(window)
    for axis, size in enumerate(window):
        images = images.narrow(2 + axis, 0, images.shape[2 + axis] // size * size)
    for axis, size in enumerate(window):
        images = images.unflatten(2 + 2 * axis, (-1, size))
    counts, sizes = [2 + 2 * axis for axis in range(rank)], [3 + 2 * axis for axis in range(rank)]
    return images.permute(0, *counts, 1, *sizes).flatten(1 + rank).flatten(1, rank)
