# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the models that reset values are read from, so that a run loads or builds each of them once."""

from collections.abc import Callable, Hashable
from typing import Any


class ResetSources:
    """
    What reset values are read from: parameters of the checkpoint before fine-tuning, or of a fresh model. It takes a
    float per weight of memory from the first trial to the last reset.

    Args:
        num_resets (`int`, *optional*, defaults to `1`):
            After this many resets, trials aside, everything is released. What is needed later is made again.
        warns (`bool`, *optional*, defaults to `True`):
            Whether to warn of what the checkpoint lacks, once per parameter. The check of a request has done so.
    """

    def __init__(self, num_resets: int = 1, *, warns: bool = True) -> None:
        self._made: dict[Hashable, Any] = {}
        self._told: set[str] | None = set() if warns else None
        self._num_resets, self._num_done = num_resets, 0

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Returns what was made under a key, or makes it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def to_tell(self, names: set[str]) -> set[str]:
        """Returns the parameters that are still to be warned of, and takes them as told."""
        if self._told is None:
            return set()
        new = names - self._told
        self._told |= new
        return new

    def count_reset(self) -> None:
        """Notes a reset, and releases everything after the last."""
        self._num_done += 1
        if self._num_done >= self._num_resets:
            self._made.clear()
            self._num_done = 0
