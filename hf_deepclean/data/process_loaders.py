# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The training batches of one of several processes: every row once, none repeated."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, Sampler

from ..runtime.random_state import all_seeded
from .loaders import seed_of_batch
from .streams import is_stream


class ProcessBatchSampler(Sampler[list[int]]):
    """
    The training batches of one process. In every step the processes together have the next rows, each row once and
    every process about as many, so that nothing is repeated to make the numbers even.

    With fewer rows than processes the last processes get a row that must not count.

    Args:
        sampler (`Sampler`):
            The order of the rows, drawn anew for every epoch.
        batch_size (`int`):
            At most so many rows per process and step; one more where otherwise a process would have none.
        seed (`int`):
            Seed of the order, which must be the same in all processes.
        process_index, num_processes (`int`):
            Which share.
        drop_last (`bool`, *optional*, defaults to `False`):
            Whether to leave out the rows that do not fill a step.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        seed: int,
        process_index: int,
        num_processes: int,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of that epoch."""
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        size, full = len(self.sampler), self.batch_size * self.num_processes
        if self.drop_last:
            return size // full
        steps = math.ceil(size / full)
        # A step needs a row for every process.
        return max(1, min(steps, size // self.num_processes))

    def __iter__(self) -> Iterator[list[int]]:
        with all_seeded(seed_of_batch(self.seed, self.epoch)):
            rows = np.fromiter(self.sampler, dtype=np.int64)
        if self.drop_last:
            rows = rows[: len(self) * self.batch_size * self.num_processes]
        for step in np.array_split(rows, len(self)) if len(self) else ():
            own = np.array_split(step, self.num_processes)[self.process_index]
            yield (own if len(own) else step[:1]).tolist()


class ProcessRows(IterableDataset):
    """
    The training rows of one process from a stream that every process reads, in lists of one step each.

    Args:
        dataset ([`~datasets.IterableDataset`] or iterable):
            The stream.
        batch_size (`int`):
            Rows per process and step, up to twice as many in the last one.
        process_index, num_processes (`int`):
            Which share.
    """

    def __init__(self, dataset: Any, batch_size: int, process_index: int, num_processes: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.process_index = process_index
        self.num_processes = num_processes

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to the stream, which may shuffle by it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        full = self.batch_size * self.num_processes
        rows = iter(self.dataset)
        step, following = list(islice(rows, full)), list(islice(rows, full))
        while step:
            if len(following) < self.num_processes:
                step, following = step + following, []
            if len(step) < self.num_processes:
                raise ValueError(
                    f"The stream has {len(step)} rows for {self.num_processes} processes. Launch fewer processes."
                )
            bounds = [
                len(step) * index // self.num_processes for index in (self.process_index, self.process_index + 1)
            ]
            yield step[slice(*bounds)]
            step, following = following, list(islice(rows, full))


class EpochLoader(DataLoader):
    """A data loader that tells its sampler, or its stream, which epoch begins."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of that epoch."""
        source = self.dataset if is_stream(self.dataset) else self.batch_sampler
        source.set_epoch(epoch)
