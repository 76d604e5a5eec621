# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the ops in which parameters meet per-example data, and hands (operand, output gradient) to their rules."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from ..batches import num_examples, select_examples, split_labels
from .gradients import (
    EmbeddingGradient,
    LinearGradient,
    ParameterGradient,
    PartGradient,
    StackedGradient,
    TiedGradient,
    summed,
)
from .layouts import Layout, Ragged, Regular, UnknownLayout, layout_of
from .rules import BROADCASTING, EXPANDING, RULES, Batch, Call, Contact, Use, any_op
from .values import ParameterValue, ParameterValues, geometry


# Reading these off a parameter tells nothing about its values, or stops its gradient.
_WITHOUT_GRADIENT = frozenset(
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
        + ("data",)
        if hasattr(torch.Tensor, name)
    }
    | {torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.stride, torch.Tensor.__len__}
    | {torch.Tensor.is_floating_point, torch.Tensor.is_complex, torch.Tensor.is_contiguous, torch.Tensor.element_size}
    | {torch.is_floating_point, torch.is_complex, torch.numel, torch.Tensor.detach, torch.detach}
)

# Ops that read no more than the form of their second argument.
_LIKE = frozenset(getattr(torch.Tensor, name) for name in ("type_as", "to", "view_as", "reshape_as", "expand_as"))

# Ops whose output rows are the input's rows: what is known of whose rows they are stays true.
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

# Ops whose output has as many rows as the data says.
_DATA_DEPENDENT = frozenset({torch.nonzero, torch.Tensor.nonzero, torch.masked_select, torch.Tensor.masked_select})

# Ops that write rows into a tensor: the result lies as that tensor did.
_WRITING = ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "masked_scatter", "index_fill")

# The rows of a tensor depend on the data, in a way that was not followed.
_MIXED = "mixed"

# Written in Python, so that its parts can be seen; the function itself would only be seen as a whole.
_COMPOSITE = {
    F.multi_head_attention_forward: FunctionType(
        F.multi_head_attention_forward.__code__,
        {**vars(F), "has_torch_function": lambda tensors: False},
        argdefs=F.multi_head_attention_forward.__defaults__,
    )
}


class _Tap(torch.autograd.Function):
    """Identity that hands (gradient of the value, operands) on; the anchor keeps the graph alive before any input."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: torch.Tensor,
        value: torch.Tensor,
        receive: Callable[..., None],
        *operands: torch.Tensor,
    ) -> torch.Tensor:
        ctx.receive = receive
        # Saving through autograd raises if the model overwrites an operand, as it would in ordinary training, and
        # lets gradient checkpointing compute operands again.
        ctx.save_for_backward(*operands)
        if value._is_view():
            # A view that autograd does not know as one: an op in place on it stays legal too. (A linear map of tokens
            # returns a view of a temporary.)
            return torch.ops.aten._unsafe_view(value, value.shape)
        # The same tensor, so that an op in place after the tap (an in-place ReLU) stays legal.
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # In a checkpointed model this runs a part of the forward again, which the taps must see.
        operands = ctx.saved_tensors
        with torch._C.DisableTorchFunction(), torch.no_grad():
            ctx.receive(gradient, *(operand.detach() for operand in operands))
        return None, gradient, None, *[None] * len(operands)


@dataclass(frozen=True)
class _Record:
    """
    One op that a parameter entered, as the probe saw it: layouts of its other tensors and of its outputs.

    `_MIXED` stands for a layout that was not recognised.
    """

    operands: list[Any]
    outputs: list[Any]


# The ops that parameters enter, in order, by the op and the parameters; `None` for a call that could not be compared.
CallKey = tuple[Callable[..., Any], tuple[str, ...]]
Layouts = dict[CallKey, list[_Record | None]]


class _Shapes(TorchFunctionMode):
    """Writes down the shapes of all ops in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], list[torch.Size], list[torch.Size]]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in _COMPOSITE:
            with self:
                return _COMPOSITE[func](*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        self.calls.append((func, _shapes((args, kwargs)), _shapes(output)))
        return output


class _LayoutProbe(TorchFunctionMode):
    """Compares the shapes of all ops with those of another batch size, and follows parameters through them."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        calls: list[tuple[Callable[..., Any], list[torch.Size], list[torch.Size]]],
    ) -> None:
        super().__init__()
        self.values = ParameterValues(parameters)
        self.calls = iter(calls)
        self.records: dict[tuple[Callable[..., Any], tuple[str, ...]], list[_Record | None]] = defaultdict(list)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _COMPOSITE:
            with self:
                return _COMPOSITE[func](*args, **kwargs)
        other, other_inputs, other_outputs = next(self.calls, (None, [], []))
        values = self.values.among((args, kwargs))
        if not values or _has_no_gradient(func, args, values):
            return func(*args, **kwargs)
        own = {id(value.tensor) for value in values}
        tensors, key = _tensors((args, kwargs)), _key(func, values)
        if other != func or len(tensors) != len(other_inputs):
            self.records[key].append(None)
            return func(*args, **kwargs)
        operands = [
            _layout_or_mixed(two, three)
            for two, three in zip(other_inputs, tensors, strict=True)
            if id(three) not in own
        ]
        output = func(*args, **kwargs)
        if all(layout is None for layout in operands) and _shapes(output) == other_outputs:
            output = self.values.derive(func, values, args, kwargs)
        outputs = [_layout_or_mixed(two, three) for two, three in zip(other_outputs, _tensors(output), strict=True)]
        self.records[key].append(_Record(operands, outputs))
        return output


def probe_layouts(model: nn.Module, batch: Mapping[str, Any], parameters: Mapping[str, nn.Parameter]) -> Layouts:
    """
    Finds, for every op that a parameter enters, where the examples lie in its tensors.

    The model runs on two examples of the batch, and on these two and the first once more; see [`layout_of`].
    """
    first = _most_padded(batch)
    second = next((example for example in range(num_examples(batch)) if example != first), first)
    two, three = (
        split_labels(select_examples(batch, examples))[0] for examples in ([first, second], [first, second, first])
    )
    # Nothing requires gradients here, so no graph is built; ops under the model's own `no_grad` are told apart.
    with torch.enable_grad():
        with _Shapes() as shapes:
            model(**two)
        with _LayoutProbe(parameters, shapes.calls) as probe:
            model(**three)
    return dict(probe.records)


def _most_padded(batch: Mapping[str, Any]) -> int:
    """An example with padding if there is one: a batch with a mask can take another way than one without."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.ndim < 2 or len(mask) != num_examples(batch):
        return 0
    return int(mask.flatten(1).sum(dim=1).argmin())


def _layout_or_mixed(two: torch.Size, three: torch.Tensor) -> Any:
    try:
        return layout_of(two, three)
    except UnknownLayout:
        return _MIXED


class FisherTaps(TorchFunctionMode):
    """
    Runs a model's forward so that a backward pass adds squared per-example gradients to sums.

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
            What [`probe_layouts`] returned for this model.
        batch_size (`int`):
            Number of examples in the batch.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of the matrix products, by default that of the sums.
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
        self.num_uses: Counter[str] = Counter()
        self._values = ParameterValues(parameters)
        self._calls: Counter[Any] = Counter()
        self._rows: Any = WeakIdKeyDictionary()
        self._plans: dict[str, list[tuple[Any, bool, torch.Tensor | None]]] = defaultdict(list)
        self._anchor = torch.zeros((), requires_grad=True)
        self._in_backward = False
        self._parts: Sequence[tuple[range, Mapping[str, torch.Tensor]]] = ()
        self._gradients: dict[str, list[tuple[torch.Tensor, ParameterGradient | TiedGradient]]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _COMPOSITE:
            with self:
                return _COMPOSITE[func](*args, **kwargs)
        values = self._values.among((args, kwargs) if kwargs else args)
        if not values or _has_no_gradient(func, args, values):
            output = func(*args, **kwargs)
            if self._rows or func in _SELECTING or func in _DATA_DEPENDENT or func is torch.where:
                self._follow_rows(func, args, kwargs, output)
            return output
        try:
            call = self._call(func, values, args, kwargs)
            if call is None:
                return self._values.derive(func, values, args, kwargs)
            return self._meet(call, values)
        except UnknownLayout:
            for name in dict.fromkeys(name for value in values for name in value.names):
                self.untapped.setdefault(name, f"no rule for {_name(func)} as it is used here")
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
                One score per example, shape `(batch_size,)`.
            parts (`list[tuple[range, dict[str, torch.Tensor]]]`):
                Ranges of examples, each with the sums to add them to, in place.
            retain_graph (`bool`, *optional*, defaults to `False`):
                Whether another backward pass follows.
        """
        self._parts = parts
        self._gradients = defaultdict(list)
        if not scores.requires_grad:
            return
        self._in_backward = True
        scores.sum().backward(retain_graph=retain_graph)
        self._in_backward = False
        # What is left was used on paths the score does not depend on; only the uses that were reached count.
        for name in list(self._gradients):
            self._finish(name)

    def _call(
        self,
        func: Callable[..., Any],
        values: list[ParameterValue],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Call | None:
        """What is known of an op's tensors; `None` if it sees nothing per example."""
        own = {id(value.tensor): value.tensor for value in values}
        operands = [tensor for tensor in _tensors((args, kwargs)) if id(tensor) not in own]
        ragged = [self._rows.get(tensor) for tensor in operands] if self._rows else [None] * len(operands)
        if _MIXED in ragged:
            raise UnknownLayout
        key = _key(func, values)
        records = self.layouts.get(key)
        if records is None:
            # An op that the probe did not meet, such as an expert that no token of its example went to.
            if operands and not any(ragged):
                self.missing.add(key)
                raise UnknownLayout
            record: _Record | None = _Record([None] * len(operands), [None])
        else:
            record = records[self._calls[key] % len(records)]
            self._calls[key] += 1
        if record is None or len(record.operands) != len(operands):
            raise UnknownLayout
        layouts: list[Layout] = []
        for tensor, probed, found in zip(operands, record.operands, ragged, strict=True):
            layout = found or probed
            if layout == _MIXED:
                raise UnknownLayout
            if layout is not None and not layout.fits(tensor, self.batch.size):
                raise UnknownLayout
            layouts.append(layout)
        output = next((found for found in ragged if found is not None), None)
        if output is None:
            if all(layout is None for layout in layouts + record.outputs):
                if _is_in_place(func) and args and id(args[0]) in own:
                    raise UnknownLayout
                return None
            if len(record.outputs) != 1 or record.outputs[0] == _MIXED:
                raise UnknownLayout
            output = record.outputs[0]
        by_id = {id(tensor): layout for tensor, layout in zip(operands, layouts, strict=True)}
        return Call(func, args, kwargs, own, by_id, output, self.batch)

    def _meet(self, call: Call, values: list[ParameterValue]) -> Any:
        rule = RULES.get(call.func)
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
        contact = None if _is_in_place(call.func) or not call.layouts else any_op(call)
        if contact is None:
            raise UnknownLayout
        return self._tap_output(call, values, contact)

    def _tap_output(self, call: Call, values: list[ParameterValue], contact: Contact) -> torch.Tensor:
        output = call.func(*call.args, **call.kwargs)
        if not isinstance(output, torch.Tensor) or call.output is None:
            raise UnknownLayout
        if not call.output.fits(output, self.batch.size):
            raise UnknownLayout
        by_id = {id(value.tensor): value for value in values}
        uses = [(by_id[id(use.value)], use) for use in contact.uses if id(use.value) in by_id]
        for value, use in uses:
            self._plan(value, use)

        def receive(gradient: torch.Tensor, *operands: torch.Tensor) -> None:
            for value, use in uses:
                self._receive(value, lambda use=use: use.gradient(gradient, *operands))

        tapped = _Tap.apply(self._anchor, output, receive, *contact.operands)
        if isinstance(call.output, Ragged):
            self._rows[tapped] = call.output
        return tapped

    def _tap_laid_out(self, call: Call, value: ParameterValue) -> torch.Tensor | None:
        """Runs a broadcasting op on the value laid out over the examples, so that autograd keeps them apart."""
        shape, size, layout = value.tensor.shape, self.batch.size, call.output
        operands = [tensor for tensor in _tensors((call.args, call.kwargs)) if tensor is not value.tensor]
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
            self._receive(value, lambda: StackedGradient(gradient))

        stacked = value.tensor.detach().expand(size, *shape)
        stacked = _Tap.apply(self._anchor, stacked, receive)
        laid_out = stacked[(slice(None),) + (None,) * num_new].squeeze(1 + axis)
        if isinstance(layout, Ragged):
            laid_out = laid_out[layout.examples]
        else:
            laid_out = laid_out.movedim(0, axis)
            if layout.rows > 1:  # type: ignore[union-attr]
                new_axis = axis + (not layout.interleaved)  # type: ignore[union-attr]
                laid_out = laid_out.unsqueeze(new_axis)
                rows = [layout.rows if i == new_axis else -1 for i in range(laid_out.ndim)]  # type: ignore[union-attr]
                laid_out = laid_out.expand(rows).flatten(axis, axis + 1)

        def argument(tensor: torch.Tensor) -> torch.Tensor:
            return laid_out if tensor is value.tensor else tensor

        args, kwargs = tree_map_only(torch.Tensor, argument, (call.args, call.kwargs))
        output = call.func(*args, **kwargs)
        if isinstance(layout, Ragged):
            self._rows[output] = layout
        return output

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
            self._receive(value, lambda: StackedGradient(gradient.reshape(size, *shape)))

        return _Tap.apply(self._anchor, output, receive)

    def _plan(self, value: ParameterValue, use: Use | None) -> None:
        """Takes down a use to come, so that a parameter is finished when its last gradient has arrived."""
        if self._in_backward:
            return
        self.num_uses.update(value.names)
        for name in value.names:
            key = None if value.part is None else geometry(_upright(value.part))
            is_linear = use is not None and use.is_linear
            self._plans[name].append((key, is_linear, None if use is None else use.indices))

    def _receive(self, value: ParameterValue, gradient: Callable[[], ParameterGradient]) -> None:
        if all(name in self.untapped for name in value.names):
            return
        for name, part, arrived in self._values.gradients(value, gradient()):
            if name in self.untapped:
                continue
            if isinstance(arrived, LinearGradient) and part is not _upright(part):
                part, arrived = part.mT, arrived.mT
            uses = self._gradients[name]
            uses.append((part, self._tied(name, part, arrived) or arrived))
            if len(uses) == self.num_uses[name]:
                self._finish(name)

    def _tied(self, name: str, part: torch.Tensor, gradient: ParameterGradient) -> TiedGradient | None:
        """The gradient of a head that is tied to embeddings, without the logits' gradient."""
        plan = self._plans[name]
        indices = [indices for _, _, indices in plan if indices is not None]
        if not isinstance(gradient, LinearGradient) or not indices or len(plan) != len(indices) + 1:
            return None
        if any(key != geometry(part) for key, _, _ in plan):
            return None
        for examples, sums in self._parts:
            gradient.add_squares_(self._view(name, part, sums[name]), examples)
        total = self._parts[0][1][name]
        return TiedGradient.of(gradient, torch.cat(indices, dim=1), len(part), total.dtype)

    def _finish(self, name: str) -> None:
        """Adds the squares of a parameter all of whose gradients have arrived."""
        for part, gradients in self._disjoint(name, self._gradients.pop(name)):
            for examples, sums in self._parts:
                total = self._view(name, part, sums[name])
                tied = [gradient for gradient in gradients if isinstance(gradient, TiedGradient)]
                if tied:
                    tied[0].add_rest_(total, [g for g in gradients if isinstance(g, EmbeddingGradient)], examples)
                else:
                    summed(gradients).add_squares_(total, examples)

    def _disjoint(self, name: str, uses: list[tuple[torch.Tensor, Any]]) -> list[tuple[torch.Tensor, list[Any]]]:
        """Groups uses of overlapping parts; parts that do not overlap have nothing to do with each other."""
        if len(uses) == 1:
            return [(uses[0][0], [uses[0][1]])]
        uses = sorted(uses, key=lambda use: int(use[0].storage_offset()))
        groups: list[list[tuple[torch.Tensor, Any]]] = []
        end = -1
        for part, gradient in uses:
            size, stride, offset = geometry(part)
            if offset > end:
                groups.append([])
            groups[-1].append((part, gradient))
            end = max(end, offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)))
        merged = []
        for group in groups:
            part = group[0][0]
            if all(geometry(other) == geometry(part) for other, _ in group):
                merged.append((part, [gradient for _, gradient in group]))
            else:
                whole = self.parameters[name].detach()
                merged.append((whole, [self._within(name, other, gradient) for other, gradient in group]))
        return merged

    def _within(self, name: str, part: torch.Tensor, gradient: ParameterGradient) -> ParameterGradient:
        return PartGradient(gradient, lambda whole: self._view(name, part, whole))

    def _view(self, name: str, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """The elements of a tensor of the parameter's shape and strides that a view of the parameter stands for."""
        size, stride, offset = geometry(part)
        return whole.as_strided(size, stride, offset - int(self.parameters[name].storage_offset()))

    def _follow_rows(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Keeps track of whose rows a tensor holds after rows were selected, as routers of experts do."""
        outputs = [tensor for tensor in tree_leaves(output) if isinstance(tensor, torch.Tensor) and tensor.ndim]
        if func in _DATA_DEPENDENT or (func is torch.where and len(args) == 1):
            for tensor in outputs:
                self._rows[tensor] = _MIXED
            return
        if func in _SELECTING:
            selected = self._selected_rows(func, args)
            if selected is not None and outputs:
                self._rows[outputs[0]] = selected
            return
        name = getattr(func, "__name__", "")
        inputs = _tensors((args, kwargs))[: 1 if name in _WRITING else None]
        known = [self._rows.get(tensor) for tensor in inputs]
        ragged = [rows for rows in known if isinstance(rows, Ragged)]
        if _is_in_place(func) or not any(known):
            return
        if _MIXED in known or not ragged:
            for tensor in outputs:
                self._rows[tensor] = _MIXED
            return
        examples = ragged[0].examples
        lengths = [len(tensor) for tensor in outputs]
        if func is torch.cat and len(ragged) == len(inputs) and lengths == [sum(map(len, inputs))]:
            self._rows[outputs[0]] = Ragged(torch.cat([rows.examples for rows in ragged]))
        elif func in _SPLITTING and len(outputs) > 1 and sum(lengths) == len(examples):
            for tensor, part in zip(outputs, examples.split(lengths), strict=True):
                self._rows[tensor] = Ragged(part)
        else:
            rowwise = name in _ROWWISE
            for tensor in outputs:
                self._rows[tensor] = ragged[0] if rowwise and len(tensor) == len(examples) else _MIXED

    def _selected_rows(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Whose rows an indexing op returns: `None` if it selects none, `_MIXED` if that was not followed."""
        source, index = args[0], args[-1]
        known = self._rows.get(source)
        indices = list(index) if isinstance(index, tuple) else [index]
        mixed = (
            any(isinstance(i, torch.Tensor) and self._rows.get(i) is not None for i in indices) or known is not None
        )
        while indices and indices[0] is None:
            indices.pop(0)
        first = indices[0] if indices else None
        if not isinstance(source, torch.Tensor) or not source.ndim or (len(args) == 3 and args[1] != 0):
            return _MIXED if mixed else None
        if first is Ellipsis or (isinstance(first, slice) and known is None):
            return known
        if known is None and (not len(source) or len(source) % self.batch.size):
            return _MIXED if mixed else None
        if isinstance(known, Ragged):
            examples = known.examples
        else:
            rows = len(source) // self.batch.size
            examples = torch.arange(self.batch.size, device=source.device).repeat_interleave(rows)
        if len(examples) != len(source):
            return _MIXED
        if isinstance(first, slice):
            return Ragged(examples[first])
        if isinstance(first, torch.Tensor) and first.ndim == 1 and not first.is_floating_point():
            return Ragged(examples[first])
        if isinstance(first, torch.Tensor) and first.dtype == torch.bool and known is None:
            return Ragged(examples[first.nonzero()[:, 0]])
        return _MIXED if mixed else None


def _has_no_gradient(func: Callable[..., Any], args: tuple[Any, ...], values: list[ParameterValue]) -> bool:
    if func in _WITHOUT_GRADIENT or not torch.is_grad_enabled():
        return True
    return func in _LIKE and all(value.tensor is not args[0] for value in values)


def _upright(part: torch.Tensor) -> torch.Tensor:
    """A matrix as it lies in memory."""
    return part.mT if part.ndim == 2 and part.stride(0) < part.stride(1) else part


def _key(func: Callable[..., Any], values: list[ParameterValue]) -> tuple[Callable[..., Any], tuple[str, ...]]:
    return func, tuple(name for value in values for name in value.names)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _shapes(tree: Any) -> list[torch.Size]:
    return [tensor.shape for tensor in _tensors(tree)]


def _is_in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__index__", "__invert__", "__int__") or name == "__setitem__"
    return name.endswith("_")


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name in ("__get__", "__set__") else name
