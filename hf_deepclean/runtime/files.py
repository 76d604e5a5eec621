# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are there as a whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


# What an interrupted process leaves behind begins like this.
INCOMPLETE = ".incomplete-"

# The state of a run, in its output directory. Pushes by Trainer and `hf upload` leave out names that begin with "_".
STATE_FOLDER = "_unlearning_state"


@contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """
    What cannot be written into a folder is an error that says where, and what to do.

    Args:
        folder (`Path`):
            The folder that is written into.

    Raises:
        `OSError`: If something cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        remedy = "Free space there" if number in (errno.ENOSPC, errno.EDQUOT) else "Make room, or make it writable"
        raise OSError(
            number or errno.EIO,
            f"Writing to {folder} failed ({error}), and nothing that was there has changed. {remedy}, and continue "
            "(an unlearning run by `resume_from_checkpoint=True`)",
        ) from error


@contextmanager
def incomplete_folder(folder: Path) -> Iterator[Path]:
    """A new folder inside another one, which is gone afterwards, or with [`remove_incomplete`] if the process ends."""
    with explain_write_errors(folder):
        incomplete = Path(tempfile.mkdtemp(prefix=INCOMPLETE, dir=folder))
    try:
        yield incomplete
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """
    A new folder inside another one, to write into before a rename; it is gone afterwards.

    Args:
        folder (`Path`):
            On the file system of the files to come.

    Raises:
        `OSError`: If something cannot be written; says where and what to do.
    """
    with incomplete_folder(folder) as staging, explain_write_errors(folder):
        yield staging


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write a file to, which then takes the place of `path` in one step."""
    with staged(path.parent) as staging:
        yield staging / path.name
        os.replace(staging / path.name, path)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name of a file is one of several patterns, such as `"model-*.safetensors"`."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_new_file(path: Path) -> None:
    """
    Refuses to write over a file, or into a folder that is not there.

    Raises:
        `FileExistsError`: If there is something of that name.
        `FileNotFoundError`: If there is no folder for it.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Nothing is ever overwritten: choose another name, or move it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for the file {path.name}. Make it first.")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors, on any device and of any strides, to a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    The tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        `ValueError`: If it is no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}.") from None


def remove_folder(folder: Path) -> None:
    """Removes a folder so that it is there as a whole or not at all."""
    if folder.exists():
        doomed = Path(tempfile.mkdtemp(prefix=INCOMPLETE, dir=folder.parent))
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_incomplete(folder: Path) -> None:
    """Removes what an interrupted process has left in a folder."""
    for path in folder.glob(f"{INCOMPLETE}*"):
        shutil.rmtree(path, ignore_errors=True)
