# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The closed forms of lookups of rows in a table."""

from typing import Any

import torch

from ..calls import Call, Contact, Use
from ..gradients import EmbeddingGradient, ParameterGradient
from ..layouts import Ragged


def table_lookup(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, int | None] | None:
    """The table, indices and padding index of a call of `F.embedding`; `None` if it does more than look up rows."""
    return None if max_norm is not None or scale_grad_by_freq else (weight, input, padding_idx)


def embedding_rule(call: Call, *args: Any, **kwargs: Any) -> Contact | None:
    lookup = table_lookup(*args, **kwargs)
    return None if lookup is None else _lookup(call, *lookup)


def getitem_rule(call: Call, table: torch.Tensor, index: Any) -> Contact | None:
    if not isinstance(index, torch.Tensor) or index.is_floating_point() or index.dtype == torch.bool:
        return None
    return _lookup(call, table, index)


def index_select_rule(call: Call, input: torch.Tensor, dim: int, index: torch.Tensor) -> Contact | None:
    return _lookup(call, input, index) if dim == 0 else None


def _lookup(call: Call, table: torch.Tensor, index: torch.Tensor, padding_idx: int | None = None) -> Contact | None:
    layout, batch = call.layout(index), call.batch
    if layout is None or isinstance(layout, Ragged) or table.ndim != 2:
        return None
    num_rows = len(table)

    def rows(index: torch.Tensor) -> torch.Tensor:
        return layout.tokens(index, 0, batch.size) % num_rows

    def gradient(g: torch.Tensor, index: torch.Tensor) -> ParameterGradient:
        indices, gradients = rows(index), layout.tokens(g, 1, batch.size)
        return EmbeddingGradient(indices, without_padding(gradients, indices, padding_idx, num_rows))

    return Contact([index], [Use(table, gradient, indices=rows(index))])


def without_padding(
    gradients: torch.Tensor, indices: torch.Tensor, padding_idx: int | None, num_rows: int
) -> torch.Tensor:
    """The gradients `(n, t, i)` of rows read at `indices (n, t)`, with zeros for the padding row."""
    if padding_idx is None:
        return gradients
    return gradients.masked_fill((indices == padding_idx % num_rows)[..., None], 0)
