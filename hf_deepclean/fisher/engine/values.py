# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Values that are computed from parameters alone: transposed weights, `1 + w`, one expert of a fused tensor, the rows of
a position table. They are the same for all examples. Per-example data meet them later.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .gradients import DerivedGradient, EmbeddingGradient, ParameterGradient, StackedGradient
from .ops import map_tensors, tensors_in
from .rules.embedding import table_lookup, without_padding
from .rules.table import ELEMENTWISE, UNARY


# Ops that keep every element: the result stands for the same part of the parameter as the input.
_KEEPING = frozenset(
    getattr(torch.Tensor, name)
    for name in ("to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "cpu", "cuda")
) | {torch.clone}


@dataclass(eq=False)
class ParameterValue:
    """
    A tensor that is computed from parameters alone.

    Args:
        tensor (`torch.Tensor`):
            The tensor that the model works with. It takes no part in autograd.
        names (`tuple[str, ...]`):
            The parameters it is computed from.
        part (`torch.Tensor`, *optional*):
            The view of the parameter that the elements come from, if they all come from one parameter.
        graph (`torch.Tensor`, *optional*):
            The same value with a graph back to the parameters.
        source (`ParameterValue`, *optional*):
            The value that an elementwise op or a lookup was applied to.
        indices (`torch.Tensor`, *optional*):
            The rows that were looked up in `source`, a table.
        padding_idx (`int`, *optional*):
            The row of the table that is not trained.
    """

    tensor: torch.Tensor
    names: tuple[str, ...]
    part: torch.Tensor | None = None
    graph: torch.Tensor | None = None
    source: "ParameterValue | None" = None
    indices: torch.Tensor | None = None
    padding_idx: int | None = None


@dataclass
class ParameterValues:
    """
    All values of one forward pass that are computed from parameters alone, found by identity.

    Args:
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters by name.
    """

    parameters: Mapping[str, nn.Parameter]
    _by_id: dict[int, ParameterValue] = field(init=False)
    _leaves: dict[str, torch.Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_id = {id(p): ParameterValue(p, (name,), part=p.detach()) for name, p in self.parameters.items()}

    def among(self, arguments: Sequence[Any]) -> list[ParameterValue]:
        """The values among an op's arguments, in order, including values in lists."""
        found = (self._by_id.get(id(tensor)) for tensor in tensors_in(arguments))
        return [value for value in found if value is not None]

    def derive(
        self, func: Callable[..., Any], values: Sequence[ParameterValue], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs an op that sees no per-example data, and remembers its outputs as values."""
        first = values[0]
        if len(values) == 1 and first.part is not None:
            output = func(*args, **kwargs)
            outputs = tree_leaves(output)
            if all(isinstance(tensor, torch.Tensor) and _is_part(tensor, first.part) for tensor in outputs):
                for tensor in outputs:
                    self._remember(ParameterValue(tensor, first.names, part=tensor.detach()))
                return output
            if func in _KEEPING and isinstance(output, torch.Tensor) and output.shape == first.part.shape:
                if output is not first.tensor:
                    self._remember(ParameterValue(output, first.names, part=first.part))
                return output
        names = tuple(dict.fromkeys(name for value in values for name in value.names))

        def on_graph(tensor: torch.Tensor) -> torch.Tensor:
            value = self._by_id.get(id(tensor))
            return tensor if value is None else self._graph(value)

        with torch.enable_grad():
            graphs = func(*map_tensors(on_graph, args), **map_tensors(on_graph, kwargs))

        def remember(graph: torch.Tensor) -> torch.Tensor:
            if graph is first.graph:
                return first.tensor
            value = ParameterValue(graph.detach(), names, graph=graph)
            if not graph.requires_grad:
                return value.tensor
            if len(values) == 1 and graph.shape == first.tensor.shape and func in ELEMENTWISE | UNARY | _KEEPING:
                value.source = first
            elif len(values) == 1 and func is F.embedding:
                lookup = table_lookup(*args, **kwargs)
                if lookup is not None and lookup[0] is first.tensor:
                    value.source, (_, value.indices, value.padding_idx) = first, lookup
            self._remember(value)
            return value.tensor

        return tree_map_only(torch.Tensor, remember, graphs)

    def gradients(
        self, value: ParameterValue, gradient: ParameterGradient
    ) -> list[tuple[str, torch.Tensor, ParameterGradient]]:
        """
        Propagates per-example gradients of a value to its parameters.

        Returns:
            `list[tuple[str, torch.Tensor, ParameterGradient]]`: For every parameter its name, the view that was used,
            and the gradients of that view.
        """
        if value.part is not None:
            return [(value.names[0], value.part, gradient)]
        if value.source is not None and isinstance(gradient, StackedGradient):
            if value.indices is None:
                with torch.enable_grad():
                    total = value.graph.sum()  # type: ignore[union-attr]
                slopes = torch.autograd.grad(total, self._graph(value.source), retain_graph=True)[0]
                return self.gradients(value.source, StackedGradient(gradient.values * slopes))
            table = value.source.tensor
            indices = value.indices.reshape(1, -1).expand(len(gradient.values), -1) % len(table)
            rows = gradient.values.reshape(*indices.shape, table.shape[1])
            rows = without_padding(rows, indices, value.padding_idx, len(table))
            return self.gradients(value.source, EmbeddingGradient(indices, rows))
        return [
            (name, self._leaves[name].detach(), DerivedGradient(gradient, value.graph, self._leaves[name]))  # type: ignore[arg-type]
            for name in value.names
        ]

    def _remember(self, value: ParameterValue) -> None:
        self._by_id[id(value.tensor)] = value

    def _graph(self, value: ParameterValue) -> torch.Tensor:
        if value.graph is None:
            name, part = value.names[0], value.part
            if name not in self._leaves:
                self._leaves[name] = self.parameters[name].detach().requires_grad_()
            with torch.enable_grad():
                leaf = self._leaves[name]
                graph = leaf if part.shape == leaf.shape else leaf.as_strided(*geometry(part))  # type: ignore[union-attr]
                value.graph = graph.to(value.tensor)
        return value.graph


def geometry(part: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, stride and offset of a view: which elements of its storage it holds."""
    return tuple(part.size()), part.stride(), int(part.storage_offset())


def _is_part(tensor: torch.Tensor, part: torch.Tensor) -> bool:
    if tensor.dtype != part.dtype or tensor.device != part.device:
        return False
    if tensor.untyped_storage().data_ptr() != part.untyped_storage().data_ptr():
        return False
    return all(stride or size == 1 for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
