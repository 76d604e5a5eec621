# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps a second run out of a folder that a run writes to."""

import errno
import os
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from filelock import SoftFileLock, Timeout


# A file that exists while a run holds the folder: it works on network file systems too, where `flock` may not.
LOCK_NAME = ".unlearning.lock"

# A file's time may be rounded, and a clock may be corrected.
_SECONDS_OF_DOUBT = 5.0
_SECONDS_FOR_NAME = 1.0
_SECONDS_FOR_FOLDER = 1.0
_MAX_CHARACTERS = 1024
# By which filelock tells containers of one host name apart.
_NAMESPACE_MARK = "?pidns-"


@dataclass(frozen=True)
class Holder:
    """
    The process that holds a folder.

    Args:
        process (`int`): Its id.
        host (`str`): Its machine.
        since (`float`): Since when, in seconds of the epoch.
    """

    process: int
    host: str
    since: float

    @property
    def is_here(self) -> bool:
        """Whether the process is on this machine. A container is a machine of its own."""
        host, _, namespace = self.host.partition(_NAMESPACE_MARK)
        if host.partition("?")[0] != socket.gethostname():
            return False
        with suppress(OSError):
            return not namespace or int(namespace, 16) == os.stat("/proc/self/ns/pid").st_ino
        return True

    @property
    def may_be_alive(self) -> bool:
        """Whether the process may still run. One on another machine cannot be seen."""
        if not self.is_here:
            return True
        try:
            process = psutil.Process(self.process)
            # A killed process keeps its number until its parent asks for its status, which some never do.
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            return not is_dead and process.create_time() <= self.since + _SECONDS_OF_DOUBT
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True


def holder_of(folder: Path) -> Holder | None:
    """
    Returns the process that holds a folder, or `None` if none does, or if it is dead.

    Args:
        folder (`Path`):
            The folder.
    """
    holder = _named(folder / LOCK_NAME)
    return holder if holder is not None and holder.may_be_alive else None


def _named(path: Path) -> Holder | None:
    """The process that a lock names, dead or alive."""
    try:
        # Opening a pipe would wait for its writer.
        with open(path, errors="replace", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            lines, since = file.read(_MAX_CHARACTERS).splitlines(), os.fstat(file.fileno()).st_mtime
        holder = Holder(int(lines[0]), lines[1], since)
    except (OSError, ValueError, IndexError):
        return None
    return holder if 0 < holder.process < 2**32 else None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def check_not_held(folder: Path) -> None:
    """
    Refuses a folder that another process holds.

    Args:
        folder (`Path`):
            The folder.

    Raises:
        `BlockingIOError`: If another process holds it.
    """
    holder = holder_of(folder)
    if holder is not None and not (holder.is_here and holder.process == os.getpid()):
        raise _refusal(folder, holder)


class FolderLock:
    """
    Keeps other runs out of a folder, from `acquire` to `release` or within a `with` block. If this process is killed,
    its lock is taken over by the next one on the same machine.

    Args:
        folder (`Path`):
            The folder, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = SoftFileLock(str(folder / LOCK_NAME))

    def acquire(self) -> None:
        """
        Takes the lock, or refuses at once.

        Raises:
            `BlockingIOError`: If another process holds the folder. Says which one, since when, and what to do.
            `OSError`: If the folder cannot be written.
        """
        end = time.monotonic() + _SECONDS_FOR_FOLDER
        try:
            while True:
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    return self._take()
                except (FileNotFoundError, FileExistsError):
                    # Another run that ends removes the folder if it is empty.
                    if self.folder.is_file() or time.monotonic() > end:
                        raise
        except Timeout:
            raise _refusal(self.folder, holder_of(self.folder)) from None
        except OSError as error:
            raise OSError(
                error.errno,
                f"The output directory {self.folder} cannot be written ({error.strerror}). Choose another "
                "`output_dir`, or make it writable",
            ) from error

    def _take(self) -> None:
        path = self.folder / LOCK_NAME
        named = _named(path)
        try:
            # A process that has just made its lock may not have written its name into it.
            self._lock.acquire(timeout=_SECONDS_FOR_NAME if named is None else 0)
        except Timeout:
            if named is None or named.may_be_alive:
                raise
            # For filelock, a process that its parent has not asked for is alive, and so is one that got its number.
            _put_aside(path)
            self._lock.acquire(timeout=0)

    def release(self) -> None:
        """Gives the folder free."""
        self._lock.release()

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _put_aside(path: Path) -> None:
    """Removes the lock of a dead process, and no other one that took its place meanwhile."""
    aside = path.with_name(f"{LOCK_NAME}.dead-{os.getpid()}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        holder = _named(aside)
        if holder is not None and not holder.may_be_alive:
            aside.unlink()
        else:
            os.rename(aside, path)


def _refusal(folder: Path, holder: Holder | None) -> BlockingIOError:
    lock = folder / LOCK_NAME
    if holder is None:
        who, remedy = "a process that is not named", f"delete {lock} if no run is under way"
    else:
        since = datetime.fromtimestamp(holder.since).astimezone().isoformat(sep=" ", timespec="seconds")
        who = f"process {holder.process} on {holder.host.partition('?')[0]}, since {since}"
        remedy = f"stop it (`kill {holder.process}`)"
        if not holder.is_here:
            remedy = f"delete {lock} if it is dead, which cannot be seen from {socket.gethostname()}"
    return BlockingIOError(
        errno.EWOULDBLOCK,
        f"The folder {folder} is held by another run: {who}. Wait until that run has ended, or {remedy}; or choose "
        "another `output_dir`",
    )
