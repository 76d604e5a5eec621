# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The closed forms of matrix products with a weight."""

import torch

from ..calls import Call, Contact, Use
from ..layouts import Ragged


def linear_rule(
    call: Call, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or input.ndim < 2:
        return None
    uses = [Use(weight, lambda g, x: batch.linear(layout, g, x))]
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_example(layout, g, 1)))
    return Contact([input], uses)


def addmm_rule(
    call: Call,
    input: torch.Tensor,
    mat1: torch.Tensor,
    mat2: torch.Tensor,
    beta: float = 1,
    alpha: float = 1,
) -> Contact | None:
    layout, batch = call.layout(mat1), call.batch
    if layout is None or input.ndim != 1 or (alpha, beta) != (1, 1):
        return None
    return Contact(
        [mat1],
        [
            Use(mat2, lambda g, x: batch.linear(layout, x, g)),
            Use(input, lambda g, x: batch.sum_per_example(layout, g, 1)),
        ],
    )


def matmul_rule(call: Call, input: torch.Tensor, other: torch.Tensor) -> Contact | None:
    batch = call.batch
    if id(other) in call.values and other.ndim == 2 and input.ndim >= 2:
        layout = call.layout(input)
        if layout is None or getattr(layout, "axis", 0) == input.ndim - 1:
            return None
        return Contact([input], [Use(other, lambda g, x: batch.linear(layout, x, g))])
    if id(input) in call.values and input.ndim == 2 and other.ndim >= 3:
        layout = call.layout(other)
        if layout is None or isinstance(layout, Ragged) or layout.axis >= other.ndim - 2:
            return None
        return Contact([other], [Use(input, lambda g, x: batch.linear(layout, g.mT, x.mT))])
    return None
