# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Writes and removes files and folders so that they are there as a whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError


# Prefix of the temporary folders that an interrupted process leaves behind.
INCOMPLETE = ".incomplete-"

# State of a run, in its output directory. Pushes by Trainer and `hf upload` skip names that begin with "_".
STATE_FOLDER = "_unlearning_state"


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
            f"There was not enough memory to write to {folder}, and nothing that was there has changed. Free memory, "
            "for example by fewer processes on this machine, and continue (an unlearning run with "
            "`resume_from_checkpoint=True`)."
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch tells a full disk in this way.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        number = getattr(error, "errno", None)
        remedy = "Free space there" if number in (errno.ENOSPC, errno.EDQUOT) else "Make room, or make it writable"
        raise OSError(
            number or errno.EIO,
            f"Writing to {folder} failed ({error}; {_free_space(folder)}), and nothing that was there has changed. "
            f"{remedy}, and continue (an unlearning run with `resume_from_checkpoint=True`)",
        ) from error


def _free_space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB are free"
    except OSError:
        return "its free space is not known"


@contextmanager
def incomplete_folder(folder: Path) -> Iterator[Path]:
    """Makes a temporary folder in `folder`. If the process dies, [`remove_incomplete`] removes it later."""
    with explain_write_errors(folder):
        incomplete = Path(tempfile.mkdtemp(prefix=INCOMPLETE, dir=folder))
    try:
        yield incomplete
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


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
        doomed = Path(tempfile.mkdtemp(prefix=INCOMPLETE, dir=folder.parent))
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_incomplete(folder: Path) -> None:
    """Removes the temporary folders that an interrupted process has left in a folder."""
    for path in folder.glob(f"{INCOMPLETE}*"):
        shutil.rmtree(path, ignore_errors=True)
