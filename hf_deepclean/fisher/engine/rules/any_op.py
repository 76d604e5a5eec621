# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The rule for ops without a closed form."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from ..calls import Call, Contact, Use
from ..gradients import OpGradient, ParameterGradient
from ..layouts import Ragged, Regular


@dataclass(frozen=True)
class _Operand:
    """Takes the place of a per-example tensor among an op's arguments, so that the tensor is not kept alive."""

    position: int
    layout: Regular | Ragged


def any_op(call: Call) -> Contact | None:
    """The rule for every other op that keeps examples apart: the op runs again for every example."""
    func, output = call.func, call.output
    if output is None:
        return None
    operands: list[torch.Tensor] = []

    def stored(tensor: torch.Tensor) -> Any:
        layout = call.layout(tensor)
        if id(tensor) in call.values or layout is None:
            return tensor
        operands.append(tensor)
        return _Operand(len(operands) - 1, layout)

    device = next(iter(call.values.values())).device.type
    # The op runs again outside of the forward pass.
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    template = tree_map_only(torch.Tensor, stored, (call.args, call.kwargs))

    def use(value: torch.Tensor) -> Use:
        def gradient(g: torch.Tensor, *saved: torch.Tensor) -> ParameterGradient:
            def run(leaf: torch.Tensor, example: int) -> torch.Tensor:
                def argument(stored: Any) -> torch.Tensor:
                    if isinstance(stored, _Operand):
                        return stored.layout.example(saved[stored.position], example)
                    return leaf if stored is value else stored.detach()

                args, kwargs = tree_map_only((torch.Tensor, _Operand), argument, template)
                with torch.autocast(device, autocast, enabled=autocast is not None, cache_enabled=False):
                    return func(*args, **kwargs)

            return OpGradient(run, value, lambda example: output.example(g, example))

        return Use(value, gradient)

    uses = [use(value) for value in call.values.values()]
    return Contact(operands, uses)
