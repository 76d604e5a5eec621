# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the processes of a sharded model run the same passes, though each has batches of its own."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..data.batches import move_batch
from ..models.rows import select_examples
from ..runtime.shards import Processes
from .groups import GroupedBatch


class Lockstep:
    """
    Makes the processes of a sharded model run the same passes.

    A layer of a sharded model is made whole by all processes together. So they must run equally many batches of
    equally many examples, and add to the sums of the same groups. A model that is not sharded has one process here,
    and its batches stay as they are.

    Args:
        model (`torch.nn.Module`):
            The model.
        processes ([`~runtime.shards.Processes`]):
            The processes that hold the shards.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self.model = model
        self.processes = processes
        self._spare: dict[str, Any] | None = None

    def batches(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any] | None]:
        """
        Iterates over batches until no process has any left.

        Yields:
            `dict[str, Any]`, *optional*: This process's next batch, or `None` if only other processes have more.
        """
        if not self.processes.are_several:
            yield from batches
            return
        iterator = iter(batches)
        while True:
            batch = next(iterator, None)
            if all(self.processes.gather(batch is None)):
                return
            yield batch

    def align(self, examples: GroupedBatch | None, device: torch.device) -> GroupedBatch:
        """
        Gives all processes batches of the same size with the same groups. All processes must call this.

        Args:
            examples ([`GroupedBatch`], *optional*):
                This process's batch; `None` if only other processes have more.
            device (`torch.device`):
                The device of the batches.

        Returns:
            [`GroupedBatch`]: The batch, filled up with examples that belong to no group. Groups of which only other
            processes have examples are empty.
        """
        needs_example = examples is None and self._spare is None
        size = 0 if examples is None else examples.size
        own_groups = {} if examples is None else examples.groups
        found = self.processes.gather((size, list(own_groups), needs_example))
        if examples is not None:
            self._spare = select_examples(self.model, examples.batch, [0])
        if any(needs for *_, needs in found):
            spares = self.processes.gather(self._spare and move_batch(self._spare, torch.device("cpu")))
            if needs_example:
                self._spare = move_batch(next(spare for spare in spares if spare is not None), device)
        num_added = max(other for other, *_ in found) - size
        groups = sorted({group for _, others, _ in found for group in others})
        return GroupedBatch(
            select_examples(
                self.model, self._spare if examples is None else examples.batch, [*range(size), *[0] * num_added]
            ),
            [*([] if examples is None else examples.positions), *[0] * num_added],
            {group: own_groups.get(group, range(0)) for group in groups},
            [range(size + num_added)],
        )
