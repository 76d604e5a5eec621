# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how long the phases of a run take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseClock:
    """
    Adds up wall-clock seconds by phase. The seconds of a phase inside another one count for the outer phase
    only.

    Args:
        seconds (`dict[str, float]`, *optional*):
            Seconds by phase that the clock adds to, such as those of an interrupted run. By default there are none.

    Attributes:
        seconds (`dict[str, float]`): Seconds by phase, in the order in which the phases first ended.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = {} if seconds is None else seconds
        self._is_running = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """
        Times the block. A phase that fails is not counted.

        Args:
            name (`str`):
                Name of the phase.
        """
        if self._is_running:
            yield
            return
        self._is_running, start = True, time.perf_counter()
        try:
            yield
        finally:
            self._is_running = False
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
