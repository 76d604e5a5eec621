# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Orders the rows of a repair: all rows in the first epoch, then only those with the largest losses."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from ..data.streams import rows_at
from ..runtime.processes import gather_objects


# The key under which a batch holds the indices of its rows.
ROW_NUMBERS = "row_numbers"


class HardExampleSampler(Sampler[int]):
    """
    Reads all rows in the first epoch, and only the rows with the largest losses in later epochs, repeated until an
    epoch is full. After one epoch of repair the model knows most rows again, so the rest of the repair goes to the
    others.

    The loss of a row is that of its last forward pass in training. Rows are ranked at the start of every epoch, over
    all processes. The order is drawn from the global random state of torch.

    Args:
        num_rows (`int`):
            Number of rows.
        share (`float`):
            Share of the rows that later epochs read, above 0 and at most 1.
    """

    def __init__(self, num_rows: int, share: float) -> None:
        self.num_rows = num_rows
        self.share = share
        self.epoch = 0
        self._ranked_epoch = 0
        # Rows that were never read come first.
        self._ranked_losses = torch.full((num_rows,), math.inf)
        self._latest_losses = self._ranked_losses
        self._recorded: dict[int, float] = {}

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose order is drawn next."""
        self.epoch = epoch

    def record(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """
        Records the losses of a training step of this process.

        Args:
            rows (`Sequence[int]`):
                Indices of the rows.
            losses (`Sequence[float]`):
                Losses of the rows.
        """
        self._recorded.update(zip(rows, losses, strict=True))

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what an interrupted epoch needs to continue in the same order. All processes must call this."""
        return {
            "epoch": torch.tensor(self._ranked_epoch),
            "ranked_losses": self._ranked_losses,
            "latest_losses": self._merged_losses(),
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """
        Continues from a state.

        Args:
            state (`dict[str, torch.Tensor]`):
                The output of [`~HardExampleSampler.state`].
        """
        self._ranked_epoch = int(state["epoch"])
        self._ranked_losses, self._latest_losses = state["ranked_losses"], state["latest_losses"]
        self._recorded = {}

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        if self.epoch != self._ranked_epoch:
            self._ranked_losses = self._latest_losses = self._merged_losses()
            self._ranked_epoch, self._recorded = self.epoch, {}
        num_read = self.num_rows if self.epoch == 0 else math.ceil(self.share * self.num_rows)
        read = self._ranked_losses.argsort(descending=True, stable=True)[:num_read]
        passes = [read[torch.randperm(num_read)] for _ in range(math.ceil(self.num_rows / num_read))]
        return iter(torch.cat(passes)[: self.num_rows].tolist())

    def _merged_losses(self) -> torch.Tensor:
        losses = self._latest_losses.clone()
        for recorded in gather_objects(self._recorded):
            losses[list(recorded)] = torch.tensor(list(recorded.values()))
        return losses


class NumberedRows(Dataset):
    """
    The rows of a data set, each with its index.

    Args:
        dataset (map-style):
            The data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, Any]:
        return number, self.dataset[number]

    def __getitems__(self, numbers: list[int]) -> list[tuple[int, Any]]:
        """Returns several rows at once."""
        return list(zip(numbers, rows_at(self.dataset, numbers), strict=True))


class NumberedCollator:
    """
    Makes a batch of numbered rows, and adds their indices to the batch.

    Args:
        collator (`Callable`):
            Makes a batch of rows.
    """

    def __init__(self, collator: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, rows: list[tuple[int, Any]]) -> dict[str, Any]:
        numbers, rows = zip(*rows, strict=True)
        return {**self.collator(list(rows)), ROW_NUMBERS: torch.tensor(numbers)}
