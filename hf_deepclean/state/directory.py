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
    if name in (STATE_FOLDER, LOCK_NAME) or name.startswith(INCOMPLETE):
        return True
    return record.exists() and name in load_progress(record).result_files


def _check_can_be_written(path: Path) -> None:
    """Makes a folder in an output directory, and takes it away again with all that had to be made for it."""
    absent = []
    try:
        absent = [folder for folder in (path, *path.parents) if not folder.exists()]
        if path.is_file():
            return
        path.mkdir(parents=True, exist_ok=True)
        with undisturbed():
            os.rmdir(tempfile.mkdtemp(prefix=INCOMPLETE, dir=path))
    except (OSError, ValueError) as error:
        raise OSError(
            getattr(error, "errno", None) or errno.EINVAL,
            f"The output directory {path} cannot be written ({getattr(error, 'strerror', None) or error}). Choose "
            "another `output_dir`, or make it writable",
        ) from error
    finally:
        for folder in absent:
            with suppress(OSError, ValueError):
                folder.rmdir()


def check_output_directory(path: str | os.PathLike[str], *, resuming: bool) -> None:
    """
    Refuses an output directory that is not empty. If a run is resumed, what an interrupted run left is allowed.

    Raises:
        `FileExistsError`: If the directory holds anything else.
        `OSError`: If it cannot be made or written.
        `BlockingIOError`: If another run holds the directory.
    """
    path = Path(path)
    if is_main_process():
        _check_can_be_written(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"The output directory {path} is a file. Choose another `output_dir`.")
    # The main process may hold the directory already, while others of its launch still look at it.
    if is_main_process():
        check_not_held(path)
    found = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name != LOCK_NAME
        and not (resuming and (re.fullmatch(r"checkpoint-\d+|runs", entry.name) or belongs_to_run(path, entry.name)))
    )
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
