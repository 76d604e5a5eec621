# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at an output directory before a run: what is there, and whether there is room."""

import errno
import os
import re
import tempfile
from contextlib import suppress
from itertools import chain
from pathlib import Path

from ..config import FisherUnlearningConfig
from ..report.report import REPORT_NAME
from ..request import UnlearningRequest
from ..runtime.files import INCOMPLETE, STATE_FOLDER
from ..runtime.interruption import undisturbed
from ..runtime.lock import LOCK_NAME, check_not_held
from ..runtime.processes import is_main_process, num_processes
from .progress import PROGRESS_NAME, load_progress


# Another run that begins or ends may remove a folder in which this one tries to write.
_TRIES = 100


def num_bytes_to_write(request: UnlearningRequest, args: FisherUnlearningConfig) -> int:
    """
    Returns the size of the result plus that of the sums of both Fishers of every process, in bytes.

    Args:
        request, args:
            As for [`identity_of_run`].
    """
    model, scope = request.model, request.parameters_in_scope(args)
    tensors = scope.values() if request.has_adapter else chain(model.parameters(), model.buffers())
    sums = sum(4 * parameter.numel() for parameter in scope.values())
    return sum(tensor.nbytes for tensor in tensors) + 2 * num_processes() * sums


def belongs_to_run(output: Path, name: str) -> bool:
    """Whether the entry `name` of an output directory belongs to the run whose state is there."""
    record = output / STATE_FOLDER / PROGRESS_NAME
    if name == STATE_FOLDER or name.startswith((INCOMPLETE, LOCK_NAME)):
        return True
    return record.exists() and name in load_progress(record).result_files


def _check_can_be_written(path: Path) -> None:
    """Makes what is missing of the path of an output directory in a temporary folder beside it."""
    for _ in range(_TRIES):
        try:
            there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
            if there == path and path.is_file():
                return
            # Not in its place: another run that begins or ends may make or remove the same folders.
            with undisturbed(), tempfile.TemporaryDirectory(prefix=INCOMPLETE, dir=there) as beside:
                (beside / path.relative_to(there)).mkdir(parents=True, exist_ok=True)
            return
        except (OSError, ValueError) as error:
            problem = error
            if not isinstance(error, FileNotFoundError):
                break
    raise OSError(
        getattr(problem, "errno", None) or errno.EINVAL,
        f"The output directory {path} cannot be written ({getattr(problem, 'strerror', None) or problem}). Choose "
        "another `output_dir`, or make it writable",
    ) from problem


def _is_expected(output: Path, entry: Path, *, resuming: bool) -> bool:
    if entry.name.startswith(LOCK_NAME):
        return True
    if entry.name.startswith(INCOMPLETE) and _is_empty_or_gone(entry):
        # Another run tries whether it can write, before it sees who holds the directory.
        return True
    return resuming and bool(re.fullmatch(r"checkpoint-\d+|runs", entry.name) or belongs_to_run(output, entry.name))


def _is_empty_or_gone(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except NotADirectoryError:
        return False
    except FileNotFoundError:
        return True


def check_output_directory(path: str | os.PathLike[str], *, resuming: bool) -> None:
    """
    Refuses an output directory that is not empty. If a run is resumed, what an interrupted run left is allowed.

    Raises:
        `FileExistsError`: If the directory holds anything else.
        `OSError`: If it cannot be made or written.
        `BlockingIOError`: If another run holds the directory.
    """
    path = Path(path)
    # The main process may hold the directory already, while others of its launch still look at it.
    if is_main_process():
        check_not_held(path)
        _check_can_be_written(path)
    if path.is_file():
        raise FileExistsError(f"The output directory {path} is a file. Choose another `output_dir`.")
    found: list[str] = []
    with suppress(FileNotFoundError):
        found = sorted(entry.name for entry in path.iterdir() if not _is_expected(path, entry, resuming=resuming))
    if not found:
        return
    remedy = "Nothing is ever overwritten: choose another `output_dir`, or move what is there."
    if (path / STATE_FOLDER).exists():
        remedy = f"Continue that run with `resume_from_checkpoint=True`, or choose another `output_dir`. {remedy}"
    elif resuming and (path / REPORT_NAME).exists():
        remedy = f"The run there is finished, so there is nothing to continue. {remedy}"
    raise FileExistsError(
        f"The output directory {path} already holds {found[0]}"
        f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}. {remedy}"
    )
