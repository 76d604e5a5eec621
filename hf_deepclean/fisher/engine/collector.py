# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Collects the per-example gradients of all uses of a parameter, and squares their sum after the last has arrived."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ...runtime.shards import Processes, Turns, add_full_tensor_, is_whole_at
from .calls import Use
from .gradients import EmbeddingGradient, LinearGradient, ParameterGradient, PartGradient, TiedGradient, summed
from .values import ParameterValue, ParameterValues, geometry


class GradientCollector:
    """
    Collects the per-example gradients of all uses of all parameters in one forward pass.

    Args:
        values (`ParameterValues`):
            The parameters, and the values that are computed from them.
    """

    def __init__(self, values: ParameterValues) -> None:
        self.values = values
        self.num_uses: Counter[str] = Counter()
        self._plans: dict[str, list[tuple[torch.Tensor | None, torch.Tensor | None]]] = defaultdict(list)
        self._excluded: Collection[str] = ()
        self._parts: Sequence[tuple[range, Mapping[str, torch.Tensor]]] = ()
        self._gradients: dict[str, list[tuple[torch.Tensor, ParameterGradient | TiedGradient]]] = {}
        self._totals: dict[str, list[torch.Tensor]] = {}
        self._order: list[str] = []
        self._turns = Turns(())

    def agree(self, processes: Processes) -> None:
        """
        Makes all processes of a sharded model add to their sums in the same order, which is about the order of the
        backward pass. All processes must call this.
        """
        first_uses = reversed(self._plans)
        order = dict.fromkeys([*first_uses, *self.values.parameters])
        self._order = processes.gather(list(order))[0]

    def start(self, parts: Sequence[tuple[range, Mapping[str, torch.Tensor]]], excluded: Collection[str]) -> None:
        """Begins a backward pass. Its squares are added to the sums of each range of examples."""
        self._parts, self._excluded = parts, excluded
        self._gradients = defaultdict(list)
        self._turns = Turns(name for name in self._order if name not in excluded)
        for name in self._order:
            if not self.num_uses[name]:
                self._turns.ready(name, partial(self._hand_over, name))

    def finish(self) -> None:
        """Ends a backward pass. Uses that the score does not depend on have received no gradient."""
        for name in list(self._gradients):
            self._finish(name)
        self._turns.finish(self._hand_over)

    def plan(self, value: ParameterValue, use: Use | None) -> None:
        """Notes a use, so that a parameter is finished as soon as its last gradient has arrived."""
        self.num_uses.update(value.names)
        for name in value.names:
            self._plans[name].append((value.part, None if use is None else use.indices))

    def receive(self, value: ParameterValue, gradient: Callable[[], ParameterGradient]) -> None:
        """Receives the per-example gradients of a value."""
        if all(name in self._excluded for name in value.names):
            return
        for name, part, arrived in self.values.gradients(value, gradient()):
            if name in self._excluded:
                continue
            if isinstance(arrived, LinearGradient) and part is not _upright(part):
                part, arrived = part.mT, arrived.mT
            uses = self._gradients[name]
            uses.append((part, self._tied(name, part, arrived) or arrived))
            if len(uses) == self.num_uses[name]:
                self._finish(name)

    def _tied(self, name: str, part: torch.Tensor, gradient: ParameterGradient) -> TiedGradient | None:
        """The gradient of a head that is tied to embeddings, without the gradient of the logits; else `None`."""
        plan = self._plans[name]
        indices = [indices for _, indices in plan if indices is not None]
        if not isinstance(gradient, LinearGradient) or not indices or len(plan) != len(indices) + 1:
            return None
        if any(used is None or geometry(_upright(used)) != geometry(part) for used, _ in plan):
            return None
        for examples, total in self._parts_of(name):
            gradient.add_squares_(self._view(name, part, total), examples)
        dtype = self._parts[0][1][name].dtype
        return TiedGradient.of(gradient, torch.cat(indices, dim=1), len(part), dtype)

    def _finish(self, name: str) -> None:
        """Adds the squares of a parameter after all its gradients have arrived."""
        for part, gradients in self._disjoint(name, self._gradients.pop(name)):
            for examples, whole in self._parts_of(name):
                total = self._view(name, part, whole)
                tied = [gradient for gradient in gradients if isinstance(gradient, TiedGradient)]
                if tied:
                    tied[0].add_rest_(total, [g for g in gradients if isinstance(g, EmbeddingGradient)], examples)
                else:
                    summed(gradients).add_squares_(total, examples)
        if self._order:
            self._turns.ready(name, partial(self._hand_over, name))
        else:
            self._hand_over(name)

    def _totals_of(self, name: str) -> list[torch.Tensor]:
        """
        For every part a whole tensor on the parameter's device to add squares to. This is the sum itself if it is
        whole and on that device.
        """
        if name not in self._totals:
            parameter = self.values.parameters[name].detach()
            sums = [part[name] for _, part in self._parts]
            self._totals[name] = [
                total if is_whole_at(total, parameter.device) else torch.zeros_like(parameter, dtype=total.dtype)
                for total in sums
            ]
        return self._totals[name]

    def _parts_of(self, name: str) -> list[tuple[range, torch.Tensor]]:
        pairs = zip(self._parts, self._totals_of(name), strict=True)
        return [(examples, total) for (examples, _), total in pairs if examples]

    def _hand_over(self, name: str) -> None:
        """Adds to the sums the squares that were collected in other tensors."""
        for (_, sums), total in zip(self._parts, self._totals_of(name), strict=True):
            if total is not sums[name]:
                add_full_tensor_(sums[name], total)
        del self._totals[name]

    def _disjoint(self, name: str, uses: list[tuple[torch.Tensor, Any]]) -> list[tuple[torch.Tensor, list[Any]]]:
        """Groups uses by overlapping parts of the parameter. Parts that do not overlap are squared on their own."""
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
                whole = self.values.parameters[name].detach()
                merged.append((whole, [self._within(name, other, gradient) for other, gradient in group]))
        return merged

    def _within(self, name: str, part: torch.Tensor, gradient: ParameterGradient) -> ParameterGradient:
        return PartGradient(gradient, lambda whole: self._view(name, part, whole))

    def _view(self, name: str, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """The elements that a view of the parameter covers, of a tensor with the parameter's shape and strides."""
        size, stride, offset = geometry(part)
        return whole.as_strided(size, stride, offset - int(self.values.parameters[name].storage_offset()))


def _upright(part: torch.Tensor) -> torch.Tensor:
    """A matrix as it lies in memory."""
    return part.mT if part.ndim == 2 and part.stride(0) < part.stride(1) else part
