# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds out from two small forward passes where the examples lie in the tensors that parameters meet."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...data.batches import num_examples, split_labels
from ...models.rows import select_examples
from .layouts import UNKNOWN, UnknownLayout, layout_of
from .ops import COMPOSITE, has_no_gradient, shapes_in, tensors_in
from .values import ParameterValue, ParameterValues


@dataclass(frozen=True)
class Record:
    """
    One op that a parameter entered: the layouts of its other tensors and of its outputs, in order.

    `UNKNOWN` stands for a layout that was not recognised.
    """

    operands: list[Any]
    outputs: list[Any]


# The calls of ops that parameters enter, in order, by op and parameters. `None`: the call could not be compared.
CallKey = tuple[Callable[..., Any], tuple[str, ...]]
Layouts = dict[CallKey, list[Record | None]]


# An op of the first run: the shapes of its inputs and outputs.
_Shaped = tuple[Callable[..., Any], list[torch.Size], list[torch.Size]]


class _Shapes(TorchFunctionMode):
    """Records the shapes of all ops in order, and which of them parameters enter as they are."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.ids = {id(parameter) for parameter in parameters.values()}
        self.calls: list[_Shaped] = []
        self.places: dict[Any, list[int]] = defaultdict(list)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        own = _own(self.ids, (args, kwargs or {}))
        if own:
            self.places[func, own].append(len(self.calls))
        self.calls.append((func, shapes_in((args, kwargs)), shapes_in(output)))
        return output


class _LayoutProbe(TorchFunctionMode):
    """Compares the shapes of all ops with their shapes at another batch size, and follows parameters through ops."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], shapes: _Shapes) -> None:
        super().__init__()
        self.values = ParameterValues(parameters)
        self.shapes = shapes
        self._next = 0
        self._places = {key: iter(places) for key, places in shapes.places.items()}
        self.records: Layouts = defaultdict(list)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **kwargs)
        other, other_inputs, other_outputs = self._counterpart(func, args, kwargs)
        values = self.values.among((args, kwargs))
        if not values or has_no_gradient(func, args, [value.tensor for value in values]):
            return func(*args, **kwargs)
        own = {id(value.tensor) for value in values}
        tensors, key = tensors_in((args, kwargs)), call_key(func, values)
        if other != func or len(tensors) != len(other_inputs):
            self.records[key].append(None)
            return func(*args, **kwargs)
        operands = [
            _layout_or_unknown(two, three)
            for two, three in zip(other_inputs, tensors, strict=True)
            if id(three) not in own
        ]
        output = func(*args, **kwargs)
        if all(layout is None for layout in operands) and shapes_in(output) == other_outputs:
            output = self.values.derive(func, values, args, kwargs)
        found = tensors_in(output)
        if len(found) != len(other_outputs):
            self.records[key].append(None)
            return output
        outputs = [_layout_or_unknown(two, three) for two, three in zip(other_outputs, found, strict=True)]
        self.records[key].append(Record(operands, outputs))
        return output

    def _counterpart(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same op in the first run. Loops over images run more often here, so parameters tell where this is."""
        own = _own(self.shapes.ids, (args, kwargs))
        self._next = next(self._places.get((func, own), iter(())), self._next) if own else self._next
        calls, self._next = self.shapes.calls, self._next + 1
        return calls[self._next - 1] if self._next <= len(calls) else (None, [], [])


def _own(ids: Collection[int], values: Any) -> tuple[int, ...]:
    """The parameters that enter an op as they are."""
    return tuple(id(tensor) for tensor in tensors_in(values) if id(tensor) in ids)


def probe_layouts(model: nn.Module, batch: Mapping[str, Any], parameters: Mapping[str, nn.Parameter]) -> Layouts:
    """
    Finds out, for every op that a parameter enters, where the examples lie in its tensors.

    The model runs on two examples of the batch, then on these two and the first one again; see [`layout_of`].
    """
    first = _most_padded(batch)
    second = next((example for example in range(num_examples(batch)) if example != first), first)
    two, three = (
        split_labels(select_examples(model, batch, rows))[0] for rows in ([first, second], [first, second, first])
    )
    # Nothing requires gradients here, so no graph is built. But ops under the model's own `no_grad` can be told apart.
    with torch.enable_grad():
        with _Shapes(parameters) as shapes:
            model(**two)
        with _LayoutProbe(parameters, shapes) as probe:
            model(**three)
    return dict(probe.records)


def _most_padded(batch: Mapping[str, Any]) -> int:
    """The example with the most padding: a padded batch can take other ops than a batch without padding."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.ndim < 2 or len(mask) != num_examples(batch):
        return 0
    return int(mask.flatten(1).sum(dim=1).argmin())


def _layout_or_unknown(two: torch.Size, three: torch.Tensor) -> Any:
    try:
        return layout_of(two, three)
    except UnknownLayout:
        return UNKNOWN


def call_key(func: Callable[..., Any], values: list[ParameterValue]) -> CallKey:
    """The key of a call: the op and the parameters that enter it."""
    return func, tuple(name for value in values for name in value.names)
