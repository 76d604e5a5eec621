# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Answers SIGTERM and Ctrl-C between two steps, not in the middle of one."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


# A launcher passes a Ctrl-C on to processes that got it from the terminal too. A later one is a second request.
_SAME_REQUEST_SECONDS = 2.0


class Interruption:
    """
    Notes a request to stop the process. A second Ctrl-C stops it at once.

    Attributes:
        signal (`signal.Signals`, *optional*): The signal that the process got, if any.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes SIGTERM and SIGINT inside the block. In any thread but the main one it does nothing."""
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
                # `getsignal` returns None for a handler that was not installed from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def share(self, gather: Callable[[Any], list[Any]]) -> None:
        """
        Makes a request to one process a request to all. All processes must call this.

        Args:
            gather (`Callable`):
                Called with the value of this process; returns the values of all processes.
        """
        signals = [number for number in gather(self.signal) if number is not None]
        self.signal = signals[0] if signals else None

    def check(self) -> None:
        """
        Ends the process if it was asked to stop.

        Raises:
            `KeyboardInterrupt`: After SIGINT.
            `SystemExit`: After SIGTERM, with status 143, that of a process that SIGTERM ends.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)
