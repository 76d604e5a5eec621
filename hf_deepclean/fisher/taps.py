# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Finds where parameters meet per-example data, at the op, and turns what passes there into squared gradients.

Parameters do not require gradients during the pass, so autograd computes input gradients only. Every op that a
parameter in scope enters is followed by an identity node which keeps the op's operand; in backward it sees the output
gradient, and the two give the parameter's gradient for every example (`rules.py`). Watching ops and not modules
covers subclasses, functional calls and weights that are used outside the module that owns them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..batches import select_examples, split_labels
from .rules import BROADCAST_OPS, EXPAND_OPS, OPERAND_RULES, ParameterGradient, StackedGradient


# Reading these off a parameter tells nothing about its values.
_METADATA = frozenset(
    {
        getattr(torch.Tensor, name).__get__
        for name in ("shape", "dtype", "device", "requires_grad", "is_leaf", "ndim", "layout", "is_cuda", "is_meta")
        + (
            "is_cpu",
            "is_quantized",
            "is_sparse",
            "is_mps",
            "is_xpu",
            "is_xla",
            "grad",
            "grad_fn",
            "names",
            "is_nested",
        )
        if hasattr(torch.Tensor, name)
    }
    | {torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.stride, torch.Tensor.__len__}
    | {torch.Tensor.is_floating_point, torch.Tensor.is_complex, torch.Tensor.is_contiguous, torch.Tensor.element_size}
    | {torch.is_floating_point, torch.is_complex, torch.numel}
)

# How an op's tensors lie: one row per example on the first axis, the same for all examples, or neither.
_PER_EXAMPLE, _SHARED, _UNKNOWN = "per example", "shared", "unknown"


class _Tap(torch.autograd.Function):
    """Identity that hands (operand, gradient of the value) on; the anchor keeps the graph alive before any input."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: torch.Tensor,
        value: torch.Tensor,
        operand: torch.Tensor,
        receive: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> torch.Tensor:
        ctx.receive = receive
        # Saving through autograd raises if the model overwrites the operand, as it would in ordinary training.
        ctx.save_for_backward(operand)
        if value._is_view():
            return value.view_as(value)
        # The same tensor, so that an op in place after the tap (an in-place ReLU) stays legal.
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, None, None]:
        ctx.receive(ctx.saved_tensors[0].detach(), gradient)
        return None, gradient, None, None


@dataclass(frozen=True)
class _Call:
    """One op that a parameter entered, as the layout probe saw it."""

    op: Callable[..., Any]
    parameters: tuple[str, ...]
    operand_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


class _ParameterCalls(TorchFunctionMode):
    """Sees every op that takes a parameter in scope, in order; subclasses say what happens there."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.num_calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        names = self._parameters_in(args) + self._parameters_in(kwargs.values())
        if not names or func in _METADATA:
            return func(*args, **kwargs)
        self.num_calls += 1
        return self.call(func, names, args, kwargs)

    def call(self, func: Callable[..., Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _parameters_in(self, values: Any) -> list[str]:
        found = []
        for value in values:
            if isinstance(value, (list, tuple)):
                found += self._parameters_in(value)
            elif isinstance(value, torch.Tensor) and id(value) in self.names:
                found.append(self.names[id(value)])
        return found


class _LayoutProbe(_ParameterCalls):
    """Writes down the shapes of every call."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self.calls: list[_Call] = []

    def call(self, func: Callable[..., Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operand = _operand(func, names, args, kwargs)
        operand_shape = () if operand is None else tuple(operand.shape)
        output = func(*args, **kwargs)
        output_shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
        self.calls.append(_Call(func, tuple(names), operand_shape, output_shape))
        return output


def probe_layouts(
    model: nn.Module, batch: Mapping[str, Any], parameters: Mapping[str, nn.Parameter]
) -> list[tuple[_Call, str]]:
    """
    Finds, for every op that a parameter enters, whether its tensors carry the examples on their first axis.

    Shapes alone cannot tell (a sequence may be as long as the batch is large), so the model runs once on two and once
    on three examples, and an axis is the example axis if its length follows.

    Returns:
        `list[tuple[_Call, str]]`: Every call in order with its layout. Empty if the model makes other calls for two
        examples than for three.
    """
    records = []
    for size in (2, 3):
        inputs, _ = split_labels(select_examples(batch, [0] * size))
        probe = _LayoutProbe(parameters)
        with torch.no_grad(), probe:
            model(**inputs)
        records.append(probe.calls)
    two, three = records
    if [(call.op, call.parameters) for call in two] != [(call.op, call.parameters) for call in three]:
        return []
    return [(call, _layout(call, other)) for call, other in zip(two, three, strict=True)]


def _layout(two: _Call, three: _Call) -> str:
    def follows(shape_two: tuple[int, ...], shape_three: tuple[int, ...]) -> bool:
        return (shape_two[:1], shape_three[:1]) == ((2,), (3,)) and shape_two[1:] == shape_three[1:]

    if follows(two.output_shape, three.output_shape) and (
        two.op in EXPAND_OPS or follows(two.operand_shape, three.operand_shape)
    ):
        return _PER_EXAMPLE
    if two.output_shape == three.output_shape and two.operand_shape == three.operand_shape:
        return _SHARED
    return _UNKNOWN


def _operand(
    func: Callable[..., Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor | None:
    if func in OPERAND_RULES:
        contact = OPERAND_RULES[func](*args, **kwargs)
        return None if contact is None else contact.operand
    if func in BROADCAST_OPS and len(names) == 1 and len(args) == 2:
        others = [value for value in args if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)]
        return others[0] if len(others) == 1 else None
    return None


class FisherTaps(_ParameterCalls):
    """
    Runs a model's forward so that a backward pass adds squared per-example gradients to sums.

    ```python
    taps = FisherTaps(parameters, layouts, batch_size)
    with taps:
        outputs = model(**inputs)
    taps.backward(scores, sums)      # once per score
    ```

    Args:
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters in scope. None of the model's parameters may require gradients.
        layouts (`list`):
            What [`probe_layouts`] returned for this model.
        batch_size (`int`):
            Number of examples in the batch.
        excluded (`dict[str, str]`, *optional*):
            Parameters that are left to the one-example path, with the reason.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        layouts: list[tuple[_Call, str]],
        batch_size: int,
        excluded: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        self.layouts = layouts
        self.batch_size = batch_size
        self.untapped: dict[str, str] = dict(excluded or {})
        self.num_uses: Counter[str] = Counter()
        self._anchor = torch.zeros((), requires_grad=True)
        self._gradients: dict[str, list[ParameterGradient]] = {}
        self._sums: dict[str, torch.Tensor] = {}

    def call(self, func: Callable[..., Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layout = self._layout_of_call(func, names)
        output = None
        if func in OPERAND_RULES:
            output = self._tap_output(func, names, layout, args, kwargs)
        elif func in BROADCAST_OPS and layout == _PER_EXAMPLE and len(names) == 1:
            output = self._tap_broadcast(func, names[0], args, kwargs)
        elif func in EXPAND_OPS and layout == _PER_EXAMPLE and len(names) == 1:
            output = self._tap_expand(func, names[0], args, kwargs)
        if output is not None:
            return output
        for name in names:
            self.untapped.setdefault(name, f"no rule for {_name(func)} with {layout} data")
        return func(*args, **kwargs)

    def backward(self, scores: torch.Tensor, sums: Mapping[str, torch.Tensor], retain_graph: bool = False) -> None:
        """
        Adds the squared gradients of every example's score to `sums`, for the parameters that are not `untapped`.

        Args:
            scores (`torch.Tensor`):
                One score per example, shape `(batch_size,)`.
            sums (`dict[str, torch.Tensor]`):
                The sums to add to, in place.
            retain_graph (`bool`, *optional*, defaults to `False`):
                Whether another backward pass follows.
        """
        self._sums = {name: total for name, total in sums.items() if name not in self.untapped}
        self._gradients = {name: [] for name in self._sums}
        if not scores.requires_grad:
            return
        scores.sum().backward(retain_graph=retain_graph)
        # What is left was used on paths the score does not depend on; only the uses that were reached count.
        for name in [name for name, gradients in self._gradients.items() if gradients]:
            self._finish(name)
        self._sums, self._gradients = {}, {}

    def _layout_of_call(self, func: Callable[..., Any], names: list[str]) -> str:
        if self.num_calls > len(self.layouts):
            return _UNKNOWN
        probed, layout = self.layouts[self.num_calls - 1]
        return layout if (probed.op, probed.parameters) == (func, tuple(names)) else _UNKNOWN

    def _tap_output(
        self,
        func: Callable[..., Any],
        names: list[str],
        layout: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor | None:
        contact = OPERAND_RULES[func](*args, **kwargs)
        if contact is None:
            return None
        in_scope = [(self.names[id(p)], rule) for p, rule in contact.rules if p is not None and id(p) in self.names]
        if sorted(name for name, _ in in_scope) != sorted(names):
            return None
        output, operand = func(*args, **kwargs), contact.operand
        if layout == _SHARED and contact.broadcasts and len(output) == 1:
            # The op ran once for all examples: laid out over them here, its gradient arrives per example.
            output = output.expand(self.batch_size, *output.shape[1:])
            operand = operand.expand(self.batch_size, *operand.shape[1:])
        elif layout != _PER_EXAMPLE or len(output) != self.batch_size:
            return None
        self.num_uses.update(name for name, _ in in_scope)

        def receive(operand: torch.Tensor, gradient: torch.Tensor) -> None:
            for name, rule in in_scope:
                if name in self._sums:
                    self._receive(name, rule(operand, gradient))

        return self._tap(output, operand, receive)

    def _tap_broadcast(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor | None:
        operand, parameter = _operand(func, [name], args, kwargs), self.parameters[name]
        if operand is None or len(operand) != self.batch_size or parameter.ndim > operand.ndim:
            return None
        if parameter.ndim == operand.ndim and len(parameter) != 1:
            return None
        axes = (1,) * (operand.ndim - parameter.ndim)
        laid_out = (
            parameter.detach().reshape(*axes, *parameter.shape).expand(self.batch_size, *[-1] * (operand.ndim - 1))
        )
        laid_out = self._tap_value(name, laid_out)
        return func(*[laid_out if value is parameter else value for value in args], **kwargs)

    def _tap_expand(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor | None:
        parameter, output = self.parameters[name], func(*args, **kwargs)
        if output.ndim != parameter.ndim or len(parameter) != 1 or len(output) != self.batch_size:
            return None
        return self._tap_value(name, output.detach())

    def _tap_value(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Taps the value of a parameter that is laid out over the examples."""
        shape = self.parameters[name].shape
        self.num_uses[name] += 1

        def receive(_: torch.Tensor, gradient: torch.Tensor) -> None:
            if name in self._sums:
                leading = (1,) * (gradient.ndim - len(shape) - 1) if gradient.ndim > len(shape) else ()
                last = shape if gradient.ndim > len(shape) else shape[1:]
                per_example = gradient.sum_to_size(self.batch_size, *leading, *last)
                self._receive(name, StackedGradient(per_example.reshape(self.batch_size, *shape)))

        return self._tap(value, value.new_empty(0), receive)

    def _tap(
        self, value: torch.Tensor, operand: torch.Tensor, receive: Callable[[torch.Tensor, torch.Tensor], None]
    ) -> torch.Tensor:
        return _Tap.apply(self._anchor, value, operand, receive)

    def _receive(self, name: str, gradient: ParameterGradient) -> None:
        self._gradients[name].append(gradient)
        if len(self._gradients[name]) == self.num_uses[name]:
            self._finish(name)

    def _finish(self, name: str) -> None:
        uses, self._gradients[name] = self._gradients[name], []
        if len(uses) == 1:
            uses[0].add_squares_(self._sums[name])
            return
        # A parameter used several times has the square of the sum of its uses, not the sum of their squares.
        batch_sum, gradient = torch.zeros_like(self._sums[name]), torch.empty_like(self._sums[name])
        for example in range(self.batch_size):
            gradient.zero_()
            for use in uses:
                use.add_example_(gradient, example)
            batch_sum.addcmul_(gradient, gradient)
        self._sums[name].add_(batch_sum)


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name in ("__get__", "__set__") else name
