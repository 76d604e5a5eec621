# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Training batches for several processes: every row comes once, and none is repeated."""

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
    Yields the training batches of one process. In every step the processes divide the next rows about evenly, and no
    row is repeated to make the numbers even.

    If there are fewer rows than processes, the last processes get a row that must not count.

    Args:
        sampler (`Sampler`):
            The order of the rows, drawn anew for every epoch.
        batch_size (`int`):
            Maximum number of rows per process and step; one more if a process would have none otherwise.
        seed (`int`):
            Seed of the order; must be the same in all processes.
        process_index, num_processes (`int`):
            Which share of the rows to read.
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
        """Chooses the order of an epoch."""
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        size, full = len(self.sampler), self.batch_size * self.num_processes
        if self.drop_last:
            return size // full
        steps = math.ceil(size / full)
        # Every process needs a row in every step.
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
    Yields the training rows of one process in lists, one per step, from a stream that every process reads.

    Args:
        dataset ([`~datasets.IterableDataset`] or iterable):
            The stream.
        batch_size (`int`):
            Number of rows per process and step; up to twice as many in the last step.
        process_index, num_processes (`int`):
            Which share of the rows to yield.
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
    """A data loader that tells its sampler or its stream which epoch begins."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        source = self.dataset if is_stream(self.dataset) else self.batch_sampler
        source.set_epoch(epoch)
