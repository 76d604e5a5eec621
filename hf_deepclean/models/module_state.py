# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules of a model hold beside their parameters: buffers, and plain values that a forward pass may note."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


# Attributes of these types are put back, but for the mode; all others are parts of the model.
_PLAIN = (type(None), bool, int, float, str, torch.Tensor)


class ModuleState:
    """
    The buffers and the plain attributes of all modules of a model at one moment.

    Args:
        model (`torch.nn.Module`):
            The model.
        whole (`bool`, *optional*, defaults to `False`):
            Whether to keep everything. By default only the buffers that are not saved with the model are kept, with
            what their modules note beside them, such as the longest sequence so far.
    """

    def __init__(self, model: nn.Module, *, whole: bool = False) -> None:
        self._model, self._whole = model, whole
        self._modules = {
            module: (
                dict(module._buffers),
                {name: None if buffer is None else buffer.detach().clone() for name, buffer in self._kept(module)},
                set(module._non_persistent_buffers_set),
                _plain_attributes(module),
            )
            for module in model.modules()
        }

    def changed_buffers(self) -> Iterator[tuple[str, bool]]:
        """Yields the name of every buffer that has other bits now, or is new or gone, and whether it is saved."""
        for prefix, module in self._model.named_modules():
            _, values, unsaved, _ = self._modules.get(module, ({}, {}, set(), {}))
            now = dict(self._kept(module))
            for name in values | now:
                if not _same_bits(values.get(name), now.get(name)):
                    is_saved = name not in unsaved | module._non_persistent_buffers_set
                    yield f"{prefix}.{name}".lstrip("."), is_saved

    @torch.no_grad()
    def restore(self) -> None:
        """Puts everything back: values, the tensors that hold them, and modules' attributes."""
        for module, (buffers, values, unsaved, attributes) in self._modules.items():
            now = dict(self._kept(module))
            if not (self._whole or values or now):
                continue
            for name in now.keys() - values.keys():
                del module._buffers[name]
            for name, value in values.items():
                module._buffers[name] = buffers[name]
                if not _same_bits(value, buffers[name]):
                    buffers[name].copy_(value)
            module._non_persistent_buffers_set.clear()
            module._non_persistent_buffers_set.update(unsaved)
            for name in _plain_attributes(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)

    def _kept(self, module: nn.Module) -> Iterator[tuple[str, Any]]:
        for name, buffer in module._buffers.items():
            if self._whole or name in module._non_persistent_buffers_set:
                yield name, buffer


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN) and name != "training"}


def _same_bits(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    return one.is_meta or torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return tensor.contiguous().reshape(-1).view(torch.uint8)
