# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Writes and removes files and folders so that they are there as a whole or not at all."""

import atexit
import errno
import os
import re
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from .interruption import undisturbed, unwinding
from .lock import Holder


# Prefix of temporary folders. A killed process leaves them behind; their names then say whose they were.
INCOMPLETE = ".incomplete-"
_OWNED = re.compile(rf"{re.escape(INCOMPLETE)}(\d+)-(\d+)-([0-9a-f]{{8}})-\w{{8}}")

# The temporary folders of this process.
_own: set[Path] = set()
os.register_at_fork(after_in_child=_own.clear)

# State of a run, in its output directory. Pushes by Trainer and `hf upload` skip names that begin with "_".
STATE_FOLDER = "_unlearning_state"

# Errors that can only be those of writing.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_UNCHANGED = "and nothing that was there has changed"
_REMEDIES = {
    errno.ENOSPC: "Free space there",
    errno.EDQUOT: "Free space there, or have the quota raised",
    errno.EFBIG: "Raise the largest size of a file (its limit is set by ulimit or by the file system)",
    errno.ENOENT: "It is gone, or a part of it: put it back",
    errno.ESTALE: "It is gone, or a part of it: put it back",
}


@contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """
    Turns an error of writing into one that names the folder and says what to do.

    Args:
        folder (`Path`):
            The folder that the block writes into.

    Raises:
        `OSError`: If the block cannot write. Says how much room there is.
        `MemoryError`: If the block lacks memory.
    """
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"There was not enough memory to write to {folder}, {_UNCHANGED}. Free memory, for example by fewer "
            "processes on this machine, and continue (an unlearning run with `resume_from_checkpoint=True`)."
        ) from error
    except Exception as error:
        number = number_of_write_error(error)
        if number is None or _UNCHANGED in str(error):
            raise
        remedy = _REMEDIES.get(number, "Make room, or make it writable, or look whether the disk is sound")
        raise OSError(
            number,
            f"Writing to {folder} failed ({_in_words(error, number)}; {_free_space(folder)}), {_UNCHANGED}. "
            f"{remedy}, and continue (an unlearning run with `resume_from_checkpoint=True`)",
        ) from error


def number_of_write_error(error: BaseException) -> int | None:
    """
    Returns the number of the operating system's error that an exception tells of, or `None` if it tells of none.

    Args:
        error (`BaseException`):
            The exception, or one that was raised from it.
    """
    text, number = str(error), getattr(error, "errno", None)
    if isinstance(error, OSError) and isinstance(number, int):
        return number
    # The writers of safetensors and tokenizers, and `shutil.copytree`, tell the number in words.
    found = re.search(r"(?:\(os error|\[Errno) (\d+)[\])]", text)
    if found is not None:
        return int(found[1])
    # The writer of torch tells of no number.
    if isinstance(error, RuntimeError) and re.search("PytorchStreamWriter|inline_container|cannot be opened", text):
        return errno.EIO
    if error.__cause__ is not None:
        return number_of_write_error(error.__cause__)
    return errno.EIO if isinstance(error, OSError) else None


def _in_words(error: Exception, number: int) -> str:
    meaning = os.strerror(number)
    return str(error) if meaning in str(error) or number == errno.EIO else f"{meaning}: {error}"


def _free_space(folder: Path) -> str:
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return f"{shutil.disk_usage(there).free / 2**20:.1f} MiB are free"
    except OSError:
        return "its free space is not known"


@contextmanager
def incomplete_folder(folder: Path) -> Iterator[Path]:
    """
    Makes a temporary folder in `folder`, for this user alone, and removes it after the block, also if a signal ends
    the process. What killed processes left there goes first.
    """
    made = None
    with unwinding():
        try:
            with explain_write_errors(folder), undisturbed():
                _remove_incomplete(folder, is_held=False)
                prefix = f"{INCOMPLETE}{os.getpid()}-{int(time.time())}-{_machine()}-"
                made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
                _own.add(made)
            yield made
        finally:
            with undisturbed():
                _remove_own(made)


def _remove_own(folder: Path | None) -> None:
    # Not in a forked process.
    if folder in _own:
        shutil.rmtree(folder, ignore_errors=True)
        _own.discard(folder)


@atexit.register
def _remove_all_own() -> None:
    # A signal may come between the end of a block and its `finally`.
    for folder in list(_own):
        _remove_own(folder)


@cache
def _machine() -> str:
    """Eight digits for this machine. A container is a machine of its own."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {namespace}'.encode()):08x}"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """
    Makes a temporary folder in `folder`, in which the block writes files before it renames them.

    Args:
        folder (`Path`):
            Where the files will go, so that both folders are on one file system.

    Raises:
        `OSError`: If the block cannot write. The message says where, and what to do.
    """
    with incomplete_folder(folder) as staging, explain_write_errors(folder):
        yield staging


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder for the block to write to, as [`staged`] does, where temporary files go (`TMPDIR`)."""
    with staged(Path(tempfile.gettempdir())) as folder:
        yield folder


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a path to write a file to. After the block that file replaces `path` in one step."""
    with staged(path.parent) as staging:
        yield staging / path.name
        os.replace(staging / path.name, path)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file name matches one of several patterns, such as `"model-*.safetensors"`."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_new_file(path: Path) -> None:
    """
    Refuses to overwrite a file, or to write into a folder that does not exist.

    Raises:
        `FileExistsError`: If a file or folder of that name exists.
        `FileNotFoundError`: If the folder of the file does not exist.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Nothing is ever overwritten: choose another name, or move it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for the file {path.name}. Create it first.")


def remove_folder(folder: Path) -> None:
    """Renames a folder and then removes it, so that under its name it is there as a whole or not at all."""
    if folder.exists():
        with staged(folder.parent) as doomed:
            os.replace(folder, doomed / folder.name)


def remove_incomplete(folder: Path) -> None:
    """
    Removes the temporary folders that killed processes have left in a folder, which this process holds. Those of a
    process that may be alive on this machine stay.
    """
    _remove_incomplete(folder, is_held=True)


def _remove_incomplete(folder: Path, *, is_held: bool) -> None:
    for path in folder.glob(f"{INCOMPLETE}*"):
        owned = _OWNED.fullmatch(path.name)
        if owned is not None and owned[3] == _machine():
            left = not Holder(int(owned[1]), socket.gethostname(), float(owned[2])).may_be_alive
        else:
            left = is_held
        if left:
            shutil.rmtree(path, ignore_errors=True)
