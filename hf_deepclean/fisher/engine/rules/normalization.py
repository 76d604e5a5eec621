# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The closed forms of normalisation layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ....models.company import MIXES_EXAMPLES
from ..calls import Call, Contact, Use
from ..layouts import upcast


def layer_norm_rule(
    call: Call,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact | None:
    return _affine(
        call, input, weight, bias, len(normalized_shape), lambda x: F.layer_norm(x, normalized_shape, eps=eps)
    )


def rms_norm_rule(
    call: Call,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Contact | None:
    return _affine(
        call, input, weight, None, len(normalized_shape), lambda x: F.rms_norm(x, normalized_shape, eps=eps)
    )


def _affine(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    num_normalized: int,
    normalize: Callable[[torch.Tensor], torch.Tensor],
) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or getattr(layout, "axis", 0) >= input.ndim - num_normalized:
        return None
    uses = []
    if weight is not None:
        uses.append(
            Use(weight, lambda g, x: batch.sum_per_example(layout, upcast(g) * upcast(normalize(x)), num_normalized))
        )
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_example(layout, g, num_normalized)))
    return Contact([input], uses)


def group_norm_rule(
    call: Call,
    input: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact | None:
    return _affine_channels(call, input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps))


def batch_norm_rule(
    call: Call,
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Contact | None:
    if training:
        raise ValueError(MIXES_EXAMPLES)
    return _affine_channels(call, input, weight, bias, lambda x: F.batch_norm(x, running_mean, running_var, eps=eps))


def _affine_channels(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    normalize: Callable[[torch.Tensor], torch.Tensor],
) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or getattr(layout, "axis", 0) != 0:
        return None
    uses = []
    if weight is not None:
        uses.append(Use(weight, lambda g, x: batch.sum_per_channel(layout, upcast(g) * upcast(normalize(x)))))
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_channel(layout, g)))
    return Contact([input], uses)
