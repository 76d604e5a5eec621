# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The data of an unlearning request, in batches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Subset

from ..data.loaders import seeded_batches
from ..data.streams import rows_at
from ..models.likelihood import LogLikelihoodFunction


@dataclass(frozen=True)
class UnlearningData:
    """
    The training data of a model, split into forget data and retain data.

    Args:
        forget_dataset ([`~datasets.Dataset`] or map-style):
            The training examples to forget.
        retain_dataset ([`~datasets.Dataset`] or map-style):
            The training examples to keep.
        data_collator (`Callable`):
            Makes a batch from a list of rows.
        log_likelihood_func (`Callable`, *optional*):
            Log-likelihood of every example, by default that of the model's head.
    """

    forget_dataset: Any
    retain_dataset: Any
    data_collator: Callable[[list[Any]], Mapping[str, Any]]
    log_likelihood_func: LogLikelihoodFunction | None = None

    def num_examples(self, split: str) -> int:
        """Number of examples of `"forget"`, `"retain"` or `"all"`."""
        return len(self._dataset(split))

    def batches(
        self, split: str, batch_size: int, seed: int | None = None, num_examples: int | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yields the batches of [`~UnlearningData.numbered_batches`] without the positions."""
        for _, batch in self.numbered_batches(split, batch_size, seed, num_examples):
            yield batch

    def numbered_batches(
        self, split: str, batch_size: int, seed: int | None = None, num_examples: int | None = None
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, Any]]]:
        """
        Yields the batches of one pass over a split, each with the positions of its examples in the split.

        Args:
            split (`str`):
                `"forget"`, `"retain"` or `"all"`, which is the forget data followed by the retain data.
            batch_size (`int`):
                Number of examples in a batch; the last batch may have fewer.
            seed (`int`, *optional*):
                Seed of a random order. By default the order is that of the data.
            num_examples (`int`, *optional*):
                Number of examples to use, the first ones in that order. By default all.
        """
        dataset = self._dataset(split)
        order = torch.arange(len(dataset))
        if seed is not None:
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
        rows = Subset(dataset, order[:num_examples].tolist())
        for place, batch in seeded_batches(rows, batch_size, self.data_collator, 0 if seed is None else seed):
            yield order[:num_examples][place * batch_size : (place + 1) * batch_size], batch

    def _dataset(self, split: str) -> Any:
        parts = {"forget": self.forget_dataset, "retain": self.retain_dataset}
        return _BothParts(parts.values()) if split == "all" else parts[split]


class _BothParts(ConcatDataset):
    """The rows of both parts, with the rows of a batch read at once."""

    def __getitems__(self, positions: list[int]) -> list[Any]:
        rows: dict[int, Any] = {}
        for part, first in zip(self.datasets, (0, *self.cumulative_sizes), strict=False):
            own = [position for position in positions if 0 <= position - first < len(part)]
            if own:
                rows |= zip(own, rows_at(part, [position - first for position in own]), strict=True)
        return [rows[position] for position in positions]
