# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A batch whose examples belong to groups, each of which has sums of its own."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from ..data.batches import num_examples
from ..models.rows import select_examples


@dataclass(frozen=True)
class GroupedBatch:
    """
    A batch whose examples are sorted by group.

    Args:
        batch (`dict[str, Any]`):
            Model inputs and labels.
        positions (`Sequence[int]`):
            The position of every example in the data set.
        groups (`dict[int, range]`):
            The examples of every group.
        runs (`list[range]`):
            The examples that may run together.
    """

    batch: dict[str, Any]
    positions: Sequence[int]
    groups: dict[int, range]
    runs: Sequence[range]

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.positions)


def group_examples(
    model: nn.Module,
    batch: dict[str, Any],
    groups: list[int] | None,
    start: int,
    kinds: Sequence[Hashable] | None = None,
) -> GroupedBatch:
    """
    Sorts the examples of a batch by group, and within a group by kind.

    Args:
        model (`torch.nn.Module`):
            The model.
        batch (`dict[str, Any]`):
            Model inputs and labels.
        groups (`list[int]`, *optional*):
            The group of every example. By default all examples belong to group 0.
        start (`int`):
            The position of the first example in the data set.
        kinds (`Sequence`, *optional*):
            A value for every example. Only examples of equal kinds run together, by default all.

    Raises:
        `ValueError`: If the batch has another number of examples than of groups.
    """
    size = num_examples(batch)
    if groups is None and (kinds is None or len(set(kinds)) == 1):
        return GroupedBatch(batch, range(start, start + size), {0: range(size)}, [range(size)])
    groups = [0] * size if groups is None else groups
    if len(groups) != size:
        raise ValueError(
            f"A batch holds {size} documents in {len(groups)} rows; packed rows have no single group. Do not pack."
        )
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds or [None]))}
    numbered = [numbers[kind] for kind in kinds or [None] * size]
    order = sorted(range(size), key=lambda example: (groups[example], numbered[example]))
    ends = dict(zip(sorted(groups), range(1, size + 1), strict=True))
    starts = [0, *ends.values()]
    runs = [list(run) for _, run in groupby(range(size), key=lambda place: numbered[order[place]])]
    return GroupedBatch(
        select_examples(model, batch, order),
        [start + index for index in order],
        {group: range(first, end) for (group, end), first in zip(ends.items(), starts, strict=False)},
        [range(run[0], run[-1] + 1) for run in runs],
    )


def split_groups(batch: Mapping[str, Any], column: str) -> tuple[dict[str, Any], list[int]]:
    """
    Takes the entry with the groups out of a batch.

    Args:
        batch (`dict[str, Any]`):
            Model inputs, labels and groups.
        column (`str`):
            The entry with the group of every example, integers of shape `(batch_size,)`.

    Returns:
        `tuple[dict[str, Any], list[int]]`: The batch without that entry, and the groups.

    Raises:
        `ValueError`: If the entry is missing or does not hold one integer per example.
    """
    rest = dict(batch)
    groups = rest.pop(column, None)
    shape = tuple(groups.shape) if isinstance(groups, torch.Tensor) else None
    if shape != (num_examples(rest),) or groups.is_floating_point() or groups.is_complex():
        raise ValueError(
            f"`group_column={column!r}` must name integers, one for each of the {num_examples(rest)} examples of a "
            f"batch, but that entry is {'missing' if groups is None else f'of shape {shape}'}. Keep the column in the "
            f"data set and in the collator's output; the batch holds {sorted(batch)}."
        )
    return rest, groups.tolist()
