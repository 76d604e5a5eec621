# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks which example each row of a tensor belongs to after rows were selected, as routers of experts do."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from .layouts import UNKNOWN, Ragged
from .ops import is_in_place, tensors_in


# Ops that keep rows in place: every output row belongs to the example of its input row.
_ROWWISE = frozenset(
    (
        "add sub mul div __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ neg pow clamp "
        "to float double type_as linear matmul __matmul__ addmm relu gelu silu sigmoid tanh softmax log_softmax "
        "exp softplus chunk split unbind unsqueeze squeeze contiguous clone layer_norm rms_norm dropout mish "
        "hardswish leaky_relu elu relu6 sqrt rsqrt square mean sum cos sin where minimum maximum glu bmm flatten "
        "reshape view "
    ).split()
)
_SELECTING = frozenset({torch.Tensor.__getitem__, torch.Tensor.index_select, torch.index_select})
_SPLITTING = frozenset({torch.Tensor.split, torch.split, torch.Tensor.chunk, torch.chunk})

# Ops whose number of output rows depends on the data.
_DATA_DEPENDENT = frozenset({torch.nonzero, torch.Tensor.nonzero, torch.masked_select, torch.Tensor.masked_select})

# Ops that write rows into a tensor: the result has the layout of that tensor.
_WRITING = ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "masked_scatter", "index_fill")


class SelectedRows:
    """
    The tensors of a forward pass whose rows were selected, each with the example of every row.

    Args:
        batch_size (`int`):
            Number of examples.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._rows: Any = WeakIdKeyDictionary()

    def __getitem__(self, tensor: torch.Tensor) -> Any:
        """The tensor's [`Ragged`] layout, `UNKNOWN` if it could not be followed, `None` if no rows were selected."""
        return self._rows.get(tensor) if self._rows else None

    def __setitem__(self, tensor: torch.Tensor, rows: Any) -> None:
        self._rows[tensor] = rows

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Notes the examples of the rows that an op returns which no parameter enters."""
        depends = func in _DATA_DEPENDENT or (func is torch.where and len(args) == 1)
        if not self._rows and not depends and func not in _SELECTING:
            return
        outputs = [tensor for tensor in tensors_in(output) if tensor.ndim]
        if depends:
            for tensor in outputs:
                self[tensor] = UNKNOWN
            return
        if func in _SELECTING:
            selected = self._selected(args)
            if selected is not None and outputs:
                self[outputs[0]] = selected
            return
        name = getattr(func, "__name__", "")
        inputs = tensors_in((args, kwargs))[: 1 if name in _WRITING else None]
        known = [self[tensor] for tensor in inputs]
        ragged = [rows for rows in known if isinstance(rows, Ragged)]
        if is_in_place(func) or not any(known):
            return
        if UNKNOWN in known or not ragged:
            for tensor in outputs:
                self[tensor] = UNKNOWN
            return
        examples = ragged[0].examples
        lengths = [len(tensor) for tensor in outputs]
        if func is torch.cat and len(ragged) == len(inputs) and lengths == [sum(map(len, inputs))]:
            self[outputs[0]] = Ragged(torch.cat([rows.examples for rows in ragged]))
        elif func in _SPLITTING and len(outputs) > 1 and sum(lengths) == len(examples):
            for tensor, part in zip(outputs, examples.split(lengths), strict=True):
                self[tensor] = Ragged(part)
        else:
            rowwise = name in _ROWWISE
            for tensor in outputs:
                self[tensor] = ragged[0] if rowwise and len(tensor) == len(examples) else UNKNOWN

    def _selected(self, args: tuple[Any, ...]) -> Any:
        """The layout that an indexing op returns; `None` if it selects no rows, `UNKNOWN` if it cannot be followed."""
        source, index = args[0], args[-1]
        known = self[source]
        indices = list(index) if isinstance(index, tuple) else [index]
        mixed = any(isinstance(i, torch.Tensor) and self[i] is not None for i in indices) or known is not None
        while indices and indices[0] is None:
            indices.pop(0)
        first = indices[0] if indices else None
        if not isinstance(source, torch.Tensor) or not source.ndim or (len(args) == 3 and args[1] != 0):
            return UNKNOWN if mixed else None
        if first is Ellipsis or (isinstance(first, slice) and known is None):
            return known
        if known is None and (not len(source) or len(source) % self.batch_size):
            return UNKNOWN if mixed else None
        if isinstance(known, Ragged):
            examples = known.examples
        else:
            rows = len(source) // self.batch_size
            examples = torch.arange(self.batch_size, device=source.device).repeat_interleave(rows)
        if len(examples) != len(source):
            return UNKNOWN
        if isinstance(first, slice):
            return Ragged(examples[first])
        if isinstance(first, torch.Tensor) and first.ndim == 1 and not first.is_floating_point():
            return Ragged(examples[first])
        if isinstance(first, torch.Tensor) and first.dtype == torch.bool and known is None:
            return Ragged(examples[first.nonzero()[:, 0]])
        return UNKNOWN if mixed else None
