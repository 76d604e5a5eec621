# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Taps the ops in which parameters meet per-example data, and hands output gradients and operands to their rules."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...runtime.shards import Processes
from .calls import Batch, Call, Contact, Use
from .collector import GradientCollector
from .gradients import StackedGradient
from .layouts import UNKNOWN, Layout, Ragged, Regular, UnknownLayout
from .ops import COMPOSITE, DESCRIBING, has_no_gradient, is_in_place, map_tensors, name_of, tensors_in
from .probe import CallKey, Layouts, Record, call_key
from .rows import SelectedRows
from .rules.any_op import any_op
from .rules.table import BROADCASTING, EXPANDING, RULES
from .values import ParameterValue, ParameterValues


class _Tap(torch.autograd.Function):
    """
    The identity; its backward pass hands the gradient of the value and the operands to `receive`.

    The anchor requires gradients, so that there is a graph although no parameter and no input requires gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: torch.Tensor,
        value: torch.Tensor,
        receive: Callable[..., None],
        *operands: torch.Tensor,
    ) -> torch.Tensor:
        ctx.receive = receive
        # Autograd raises if the model overwrites a saved operand, as in ordinary training, and gradient checkpointing
        # can compute saved operands again.
        ctx.save_for_backward(*operands)
        if value._is_view():
            # A view that autograd does not know as a view, so that an in-place op on it stays legal too. (A linear map
            # of tokens returns a view of a temporary tensor.)
            return torch.ops.aten._unsafe_view(value, value.shape)
        # The same tensor, so that an in-place op after the tap, such as an in-place ReLU, stays legal.
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # In a checkpointed model this runs a part of the forward pass again, which the taps must see.
        operands = ctx.saved_tensors
        with torch._C.DisableTorchFunction(), torch.no_grad():
            ctx.receive(gradient, *(operand.detach() for operand in operands))
        return None, gradient, None, *[None] * len(operands)


class FisherTaps(TorchFunctionMode):
    """
    Watches a model's forward pass so that a backward pass adds squared per-example gradients to sums.

    ```python
    taps = FisherTaps(parameters, layouts, batch_size)
    with taps:
        outputs = model(**inputs)
    taps.backward(scores, [(range(batch_size), sums)])      # once per score
    ```

    Args:
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters in scope. None of the model's parameters may require gradients.
        layouts (`dict`):
            The layouts that [`probe_layouts`] found for this model.
        batch_size (`int`):
            Number of examples in the batch.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of the matrix products, by default the dtype of the sums.

    Attributes:
        untapped (`dict[str, str]`): Parameters that the taps could not follow, with the reason.
        missing (`set`): Calls of ops that the probe did not meet.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        layouts: Layouts,
        batch_size: int,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.layouts = layouts
        self.batch = Batch(batch_size, product_dtype)
        self.untapped: dict[str, str] = {}
        self.missing: set[CallKey] = set()
        self._values = ParameterValues(parameters)
        self._collector = GradientCollector(self._values)
        self._rows = SelectedRows(batch_size)
        self._calls: Counter[CallKey] = Counter()
        self._anchor = torch.zeros((), requires_grad=True)
        self._in_backward = False

    @property
    def num_uses(self) -> Mapping[str, int]:
        """How many times each parameter met per-example data."""
        return self._collector.num_uses

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in DESCRIBING:
            return func(*args, **kwargs)
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **kwargs)
        values = self._values.among((args, kwargs) if kwargs else args)
        if not values or has_no_gradient(func, args, [value.tensor for value in values]):
            output = func(*args, **kwargs)
            self._rows.follow(func, args, kwargs, output)
            return output
        try:
            # This only looks at tensors. Without it, every look would pass through the modes around this one.
            with torch._C.DisableTorchFunction():
                call = self._call(func, values, args, kwargs)
            if call is None:
                return self._values.derive(func, values, args, kwargs)
            return self._meet(call, values)
        except UnknownLayout:
            for name in dict.fromkeys(name for value in values for name in value.names):
                self.untapped.setdefault(name, f"no rule for {name_of(func)} as it is used here")
            return func(*args, **kwargs)

    def backward(
        self,
        scores: torch.Tensor,
        parts: Sequence[tuple[range, Mapping[str, torch.Tensor]]],
        retain_graph: bool = False,
    ) -> None:
        """
        Adds the squared gradients of every example's score to sums, for the parameters that are not `untapped`.

        Args:
            scores (`torch.Tensor`):
                The score of every example, shape `(batch_size,)`.
            parts (`list[tuple[range, dict[str, torch.Tensor]]]`):
                Ranges of examples, each with the sums to add to, in place.
            retain_graph (`bool`, *optional*, defaults to `False`):
                Whether another backward pass follows.
        """
        if not scores.requires_grad:
            return
        self._collector.start(parts, self.untapped)
        self._in_backward = True
        scores.sum().backward(retain_graph=retain_graph)
        self._in_backward = False
        self._collector.finish()

    def agree(self, processes: Processes) -> None:
        """
        Makes the processes of a sharded model treat every parameter alike. All processes must call this between the
        forward and the backward pass.
        """
        if processes.are_several:
            for untapped in processes.gather(self.untapped):
                self.untapped = untapped | self.untapped
            self._collector.agree(processes)

    def _call(
        self,
        func: Callable[..., Any],
        values: list[ParameterValue],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Call | None:
        """Finds out where the examples lie in an op's tensors; returns `None` if the op sees no per-example data."""
        own = {id(value.tensor): value.tensor for value in values}
        operands = [tensor for tensor in tensors_in((args, kwargs)) if id(tensor) not in own]
        ragged = [self._rows[tensor] for tensor in operands]
        if UNKNOWN in ragged:
            raise UnknownLayout
        key = call_key(func, values)
        records = self.layouts.get(key)
        if records is None:
            # The probe did not meet this op, such as an expert that no token of the probe's examples went to.
            if operands and not any(ragged):
                self.missing.add(key)
                raise UnknownLayout
            record: Record | None = Record([None] * len(operands), [None])
        else:
            record = records[self._calls[key] % len(records)]
            self._calls[key] += 1
        if record is None or len(record.operands) != len(operands):
            raise UnknownLayout
        layouts: list[Layout] = []
        for tensor, probed, found in zip(operands, record.operands, ragged, strict=True):
            layout = found or probed
            if layout == UNKNOWN:
                raise UnknownLayout
            if layout is not None and not layout.fits(tensor, self.batch.size):
                raise UnknownLayout
            layouts.append(layout)
        output = next((found for found in ragged if found is not None), None)
        if output is None:
            if all(layout is None for layout in layouts + record.outputs):
                if is_in_place(func) and args and id(args[0]) in own:
                    raise UnknownLayout
                return None
            if len(record.outputs) != 1 or record.outputs[0] == UNKNOWN:
                raise UnknownLayout
            output = record.outputs[0]
        by_id = {id(tensor): layout for tensor, layout in zip(operands, layouts, strict=True)}
        return Call(func, args, kwargs, own, by_id, output, self.batch)

    def _meet(self, call: Call, values: list[ParameterValue]) -> Any:
        rule = RULES.get(call.func)
        with torch._C.DisableTorchFunction():
            contact = rule(call, *call.args, **call.kwargs) if rule is not None else None
        if contact is not None and {id(use.value) for use in contact.uses} >= call.values.keys():
            return self._tap_output(call, values, contact)
        if len(values) == 1 and call.output is not None:
            if call.func in BROADCASTING:
                output = self._tap_laid_out(call, values[0])
                if output is not None:
                    return output
            if call.func in EXPANDING and isinstance(call.output, Regular):
                return self._tap_expanded(call, values[0])
        contact = None if is_in_place(call.func) or not call.layouts else any_op(call)
        if contact is None:
            raise UnknownLayout
        return self._tap_output(call, values, contact)

    def _tap_output(self, call: Call, values: list[ParameterValue], contact: Contact) -> torch.Tensor:
        output = call.func(*call.args, **call.kwargs)
        if not isinstance(output, torch.Tensor) or call.output is None:
            raise UnknownLayout
        by_id = {id(value.tensor): value for value in values}
        uses = [(by_id[id(use.value)], use) for use in contact.uses if id(use.value) in by_id]

        def receive(gradient: torch.Tensor, *operands: torch.Tensor) -> None:
            for value, use in uses:
                self._collector.receive(value, lambda use=use: use.gradient(gradient, *operands))

        with torch._C.DisableTorchFunction():
            if not call.output.fits(output, self.batch.size):
                raise UnknownLayout
            for value, use in uses:
                self._plan(value, use)
            tapped = _Tap.apply(self._anchor, output, receive, *contact.operands)
        if isinstance(call.output, Ragged):
            self._rows[tapped] = call.output
        return tapped

    def _tap_laid_out(self, call: Call, value: ParameterValue) -> torch.Tensor | None:
        """Runs a broadcasting op on the value expanded over the examples; autograd then keeps the examples apart."""
        with torch._C.DisableTorchFunction():
            laid_out = self._laid_out(call, value)
        if laid_out is None:
            return None

        def argument(tensor: torch.Tensor) -> torch.Tensor:
            return laid_out if tensor is value.tensor else tensor

        args, kwargs = map_tensors(argument, (call.args, call.kwargs))
        output = call.func(*args, **kwargs)
        if isinstance(call.output, Ragged):
            self._rows[output] = call.output
        return output

    def _laid_out(self, call: Call, value: ParameterValue) -> torch.Tensor | None:
        shape, size, layout = value.tensor.shape, self.batch.size, call.output
        operands = [tensor for tensor in tensors_in((call.args, call.kwargs)) if tensor is not value.tensor]
        num_axes = max([tensor.ndim for tensor in operands] + [len(shape)])
        num_new = num_axes - len(shape)
        axis = layout.axis if isinstance(layout, Regular) else 0
        own_axis = axis - num_new
        if own_axis >= 0 and shape[own_axis] != 1:
            return None
        if "matmul" in call.func.__name__ and (len(shape) < 3 or axis >= num_axes - 2):
            return None
        self._plan(value, None)

        def receive(gradient: torch.Tensor) -> None:
            self._collector.receive(value, lambda: StackedGradient(gradient))

        stacked = _Tap.apply(self._anchor, value.tensor.detach().expand(size, *shape), receive)
        laid_out = stacked[(slice(None),) + (None,) * num_new].squeeze(1 + axis)
        if isinstance(layout, Ragged):
            return laid_out[layout.examples]
        laid_out = laid_out.movedim(0, axis)
        if layout.rows > 1:  # type: ignore[union-attr]
            new_axis = axis + (not layout.interleaved)  # type: ignore[union-attr]
            laid_out = laid_out.unsqueeze(new_axis)
            rows = [layout.rows if i == new_axis else -1 for i in range(laid_out.ndim)]  # type: ignore[union-attr]
            laid_out = laid_out.expand(rows).flatten(axis, axis + 1)
        return laid_out

    def _tap_expanded(self, call: Call, value: ParameterValue) -> torch.Tensor:
        shape, size, axis = value.tensor.shape, self.batch.size, call.output.axis  # type: ignore[union-attr]
        output = call.func(*call.args, **call.kwargs).detach()
        own = (1,) * (output.ndim - len(shape)) + tuple(shape)
        repeats = [outer // inner for outer, inner in zip(output.shape, own, strict=True)]
        if repeats[axis] % size or call.output.interleaved or not call.output.fits(output, size):  # type: ignore[union-attr]
            raise UnknownLayout
        repeats[axis] //= size
        self._plan(value, None)

        def receive(gradient: torch.Tensor) -> None:
            gradient = gradient.unflatten(axis, (size, -1)).movedim(axis, 0)
            pairs = [length for pair in zip(repeats, own, strict=True) for length in pair]
            gradient = gradient.reshape(size, *pairs).sum(dim=tuple(range(1, 2 * len(own), 2)))
            self._collector.receive(value, lambda: StackedGradient(gradient.reshape(size, *shape)))

        return _Tap.apply(self._anchor, output, receive)

    def _plan(self, value: ParameterValue, use: Use | None) -> None:
        # A checkpointed layer runs again in the backward pass; that is the same use.
        if not self._in_backward:
            self._collector.plan(value, use)
