# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C, answered between two steps instead of amid one."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


# A launcher passes on a Ctrl-C that the terminal has sent to its processes too; what comes later is impatience.
_SAME_REQUEST_SECONDS = 2.0


class Interruption:
    """
    Notes that the process has been asked to stop. A second Ctrl-C stops it at once.

    Attributes:
        signal (`signal.Signals`, *optional*): The signal that came, if one did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """SIGTERM and SIGINT are noted for the duration; only a main thread can do that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.signal = None
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def note(number: int, frame: FrameType | None) -> None:
            if self.signal is None:
                self.signal, self._since = signal.Signals(number), time.monotonic()
            elif number == signal.SIGINT and time.monotonic() - self._since > _SAME_REQUEST_SECONDS:
                raise KeyboardInterrupt

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                # A handler that was not installed from Python reads as none.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def share(self, gather: Callable[[Any], list[Any]]) -> None:
        """
        Makes a request to one process a request to all.

        Args:
            gather (`Callable`):
                Called with what this process has; returns what every process has. All processes must call this.
        """
        signals = [number for number in gather(self.signal) if number is not None]
        self.signal = signals[0] if signals else None

    def check(self) -> None:
        """
        Ends the process if that was asked for.

        Raises:
            `KeyboardInterrupt`: After SIGINT.
            `SystemExit`: After SIGTERM, with the status 143 of a process that it ended.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)
