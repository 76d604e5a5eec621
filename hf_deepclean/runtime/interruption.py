# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Answers SIGTERM, SIGHUP and Ctrl-C between two steps, or at once but with everything cleaned up."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .processes import gather_objects


logger = logging.getLogger(__name__)

# Windows has no SIGHUP.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]

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
        """
        Notes SIGTERM, SIGHUP and SIGINT inside the block, and obeys them at its end at the latest. In any thread but
        the main one it does nothing.

        Raises:
            `KeyboardInterrupt`, `SystemExit`: As [`Interruption.check`], also in place of an error of the block.
        """
        self.signal = None
        try:
            with _handled(self._note):
                yield
        except Exception as error:
            if self.signal is not None:
                logger.error("The run failed after it was asked to stop.", exc_info=error)
            self.check()
            raise
        self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > _SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt

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
            `SystemExit`: After SIGTERM, with status 143, that of a process that SIGTERM ends; after SIGHUP with 129.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    def check_all(self) -> None:
        """
        Ends all processes if one was asked to stop. All processes must call this.

        Raises:
            `KeyboardInterrupt`, `SystemExit`: As [`Interruption.check`].
        """
        self.share(gather_objects)
        self.check()


@contextmanager
def unwinding() -> Iterator[None]:
    """
    Inside the block SIGTERM and SIGHUP raise `SystemExit`, as Ctrl-C raises `KeyboardInterrupt`, so that what the
    block holds or has made is given up. Signals that somebody else answers stay with them.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handled(end, only=signal.SIG_DFL):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside a short block signals wait. At its end they are answered as they would have been before it."""
    waiting: dict[int, None] = {}
    try:
        with _handled(lambda number, frame: waiting.update({number: None})):
            yield
    finally:
        for number in waiting:
            signal.raise_signal(number)


@contextmanager
def _handled(answer: Callable[[int, FrameType | None], None], only: Any = None) -> Iterator[None]:
    """Answers signals in the main thread inside the block, if `only` is given those with that handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored, as SIGHUP under `nohup`, stays ignored. None is a handler that Python could not restore.
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    before = {number: handler for number, handler in before.items() if only is None or handler is only}
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            answer(number, frame)
        else:
            # A forked worker: its parent ends it by a signal.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    try:
        for number in before:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
