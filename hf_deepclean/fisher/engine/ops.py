# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Facts about ops as `__torch_function__` sees them, apart from their closed forms."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F


def _getters(*names: str) -> set[Callable[..., Any]]:
    return {getattr(torch.Tensor, name).__get__ for name in names if hasattr(torch.Tensor, name)}


# These return no tensor.
DESCRIBING = frozenset(
    _getters("shape", "dtype", "device", "requires_grad", "is_leaf", "ndim", "layout", "is_cuda", "is_meta", "is_cpu")
    | _getters("is_quantized", "is_sparse", "is_mps", "is_xpu", "is_xla", "is_nested", "names")
    | {torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.stride, torch.Tensor.__len__}
    | {torch.Tensor.is_floating_point, torch.Tensor.is_complex, torch.Tensor.is_contiguous, torch.Tensor.element_size}
    | {torch.is_floating_point, torch.is_complex, torch.numel}
)

# These read nothing of a parameter's values, or stop its gradient.
_WITHOUT_GRADIENT = DESCRIBING | _getters("grad", "grad_fn", "data")
_WITHOUT_GRADIENT |= {torch.Tensor.detach, torch.detach, torch.Tensor.requires_grad_}

# Ops that read only the shape, dtype or device of their second argument.
_LIKE = frozenset(getattr(torch.Tensor, name) for name in ("type_as", "to", "view_as", "reshape_as", "expand_as"))

# Functions whose Python code is run op by op; as they are, `__torch_function__` would only see them as a whole.
COMPOSITE = {
    F.multi_head_attention_forward: FunctionType(
        F.multi_head_attention_forward.__code__,
        {**vars(F), "has_torch_function": lambda tensors: False},
        argdefs=F.multi_head_attention_forward.__defaults__,
    )
}


def has_no_gradient(func: Callable[..., Any], args: tuple[Any, ...], values: list[torch.Tensor]) -> bool:
    """Whether no gradient flows back through an op to the values among its arguments."""
    if func in _WITHOUT_GRADIENT or not torch.is_grad_enabled():
        return True
    return func in _LIKE and all(value is not args[0] for value in values)


def is_in_place(func: Callable[..., Any]) -> bool:
    """Whether an op changes its first argument."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__index__", "__invert__", "__int__") or name == "__setitem__"
    return name.endswith("_")


def name_of(func: Callable[..., Any]) -> str:
    """An op's name for a message."""
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name in ("__get__", "__set__") else name


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """All tensors among arguments or outputs, including tensors in lists."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    found: list[torch.Tensor] = []
    if isinstance(tree, (list, tuple, dict)):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            if isinstance(branch, torch.Tensor):
                found.append(branch)
            elif isinstance(branch, (list, tuple, dict)):
                found += tensors_in(branch)
    return found


def map_tensors(function: Callable[[torch.Tensor], Any], arguments: Any) -> Any:
    """Applies `function` to every tensor among an op's arguments, including tensors in lists."""
    if isinstance(arguments, torch.Tensor):
        return function(arguments)
    if isinstance(arguments, dict):
        return {name: map_tensors(function, argument) for name, argument in arguments.items()}
    if type(arguments) in (list, tuple):
        return type(arguments)(map_tensors(function, argument) for argument in arguments)
    return arguments


def shapes_in(tree: Any) -> list[torch.Size]:
    """The shapes of all tensors among arguments or outputs."""
    return [tensor.shape for tensor in tensors_in(tree)]
