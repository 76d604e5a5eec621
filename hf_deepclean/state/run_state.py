# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps what a run has done in its output directory, so that an interrupted run can continue."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..data.digests import DIGESTS_FORMAT
from ..evaluation.stages import StageResult
from ..fisher.checkpoint import FisherCheckpoint
from ..repair.checkpoints import STAGING_FOLDER
from ..runtime.files import (
    STATE_FOLDER,
    remove_folder,
    remove_incomplete,
    replaced,
    staged,
)
from ..runtime.interruption import Interruption, undisturbed, unwinding
from ..runtime.lock import FolderLock
from ..runtime.processes import broadcast_object, is_main_process, num_processes, on_main_process, process_index
from ..runtime.sealed_files import has_digest, read_tensors, warn_of_no_digest, write_tensors
from ..selection.weight_selection import WeightSelection
from .directory import check_output_directory
from .identity import FORMAT_OF_DIGESTS, NOT_COMPARED, check_same_run
from .progress import PROGRESS_NAME, RunProgress, load_progress, save_progress


logger = logging.getLogger(__name__)

_SELECTION = "selection.safetensors"
_REPAIRED = "repaired.safetensors"
_RESET_VALUES = "reset_values.safetensors"
# The share of one process in the Fisher pass of a data set.
_FISHER = "{split}-fisher-{share}.safetensors"


class RunState:
    """
    The state folder of a run.

    Every file in the folder is replaced as a whole. The main process writes what all processes share. Every process
    writes its own share of a Fisher pass, so all processes must see the same folder.

    Args:
        output_dir (`str`):
            The output directory of the run.
        seconds (`float`):
            The least number of seconds between two savings within a Fisher pass.
        interruption ([`Interruption`]):
            The requests to stop.
    """

    def __init__(self, output_dir: str, seconds: float, interruption: Interruption) -> None:
        self.output = Path(output_dir)
        self.folder = self.output / STATE_FOLDER
        self.seconds = seconds
        self.interruption = interruption
        self.progress = RunProgress({})

    @contextmanager
    def held(self, *, resuming: bool) -> Iterator[None]:
        """
        Keeps other runs out of the output directory during the block. All processes must call this.

        Args:
            resuming (`bool`):
                Whether the directory may hold what an interrupted run left.

        Raises:
            `BlockingIOError`: If another run holds the directory. Says which process, since when, and what to do.
            `FileExistsError`: If the directory holds anything else.
        """
        lock = FolderLock(self.output)

        def acquire() -> None:
            check_output_directory(self.output, resuming=resuming)
            lock.acquire()
            # Another run may have begun or ended meanwhile.
            try:
                check_output_directory(self.output, resuming=resuming)
            except BaseException:
                lock.release()
                raise

        with unwinding():
            try:
                on_main_process(acquire)
                yield
            finally:
                if is_main_process():
                    with undisturbed():
                        lock.release()
                        with suppress(OSError):
                            self.output.rmdir()

    def digests_format(self) -> int:
        """
        How digests of rows were taken for the identity of the run to continue, or are for a new one.

        Raises:
            `ValueError`: If the record of the run is damaged, or was written by a later version.
        """
        record = self.folder / PROGRESS_NAME

        def read() -> int:
            return load_progress(record).identity.get(FORMAT_OF_DIGESTS, 1) if record.exists() else DIGESTS_FORMAT

        found = on_main_process(read)
        if found > DIGESTS_FORMAT:
            raise ValueError(
                f"{self.folder} is the state of a run of a later version of hf_deepclean, which takes digests of rows "
                "in another way. Continue the run with that version, or choose another `output_dir`."
            )
        return found

    def open(self, identity: Mapping[str, Any], num_bytes: int) -> None:
        """
        Opens the state of an interrupted run, or starts a new one.

        Args:
            identity (`dict[str, Any]`):
                What the run is started with; see [`identity_of_run`].
            num_bytes (`int`):
                The largest number of bytes that the run will write. Too little room is refused now, not hours later.

        Raises:
            `ValueError`: If the folder holds the state of another run (names the differences), or a file of it is
                missing or damaged.
            `OSError`: If the folder has too little room.
        """
        self.progress = on_main_process(lambda: self._open(json.loads(json.dumps(identity, default=str)), num_bytes))
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"Process {process_index()} does not see {self.folder}, which the main process made. Choose an "
                "`output_dir` on a file system that all processes share."
            )

    def _open(self, identity: dict[str, Any], num_bytes: int) -> RunProgress:
        record = self.folder / PROGRESS_NAME
        if record.exists():
            progress = load_progress(record)
            if not has_digest(json.loads(record.read_bytes())):
                warn_of_no_digest(record)
                # An earlier version compared less.
                identity = {name: identity[name] for name in progress.identity if name in identity}
            check_same_run(self.folder, progress.identity, identity)
            if identity.get(NOT_COMPARED):
                logger.warning(
                    f"Continuing the run in {self.output}. These cannot be compared with what it was started with, "
                    f"and must be the same for the same result: {'; '.join(identity[NOT_COMPARED])}."
                )
            self._check_files(progress.files)
            remove_incomplete(self.folder)
            shutil.rmtree(self.folder / STAGING_FOLDER, ignore_errors=True)
            return progress
        self._check_no_files()
        # It tells which rows are to be forgotten to whoever can guess them.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_incomplete(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < num_bytes:
            self.folder.rmdir()
            with suppress(OSError):
                self.output.rmdir()
            raise OSError(
                f"The run writes up to {num_bytes / 2**30:.2f} GiB to {self.output}: the cleaned model, and before "
                f"it the sums of both Fishers. There are {free / 2**30:.2f} GiB free. Choose another `output_dir`."
            )
        progress = RunProgress(identity)
        self._write(progress)
        return progress

    def save(self) -> None:
        """Saves the record."""
        on_main_process(lambda: self._write(self.progress))

    def _write(self, progress: RunProgress) -> None:
        save_progress(self.folder / PROGRESS_NAME, progress)

    def _check_files(self, names: Iterable[str]) -> None:
        for name in names:
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder / name} is missing, which this run has written. {self._remedy}")

    def _check_no_files(self) -> None:
        """Refuses files of a run without its record: nothing says which run they belong to."""
        names = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if names:
            raise ValueError(
                f"{self.folder} holds {names[0]} of a run, but {PROGRESS_NAME} is missing. {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return f"Restore the file, or remove {self.folder} and start the run again."

    def _owner(self, name: str) -> str:
        return f"{self.progress.run} {name}"

    def _read_tensors(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        return read_tensors(self.folder / name, owner=self._owner(name), remedy=self._remedy)

    def _write_tensors(
        self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        # Before the tensors, since they stand for it. A record with the name of the file follows them.
        self._write(self.progress)
        with replaced(self.folder / name) as path:
            write_tensors(path, tensors, metadata, owner=self._owner(name))
        self.progress.files = sorted({*self.progress.files, name})
        self._write(self.progress)

    def evaluate_stage(self, name: str, evaluate: Callable[[], StageResult]) -> StageResult:
        """Returns the result of a stage. Evaluates and saves it first if it is not in the record."""
        if name not in self.progress.stages:
            self.progress.stages[name] = evaluate()
            self.save()
            self.interruption.check_all()
        return self.progress.stages[name]

    def fisher_checkpoint(self, split: str) -> FisherCheckpoint:
        """
        Returns the checkpoint of this process's share of a Fisher pass.

        Args:
            split (`str`):
                Name of the data set.
        """
        name = _FISHER.format(split=split, share=f"{process_index():05d}-of-{num_processes():05d}")
        path = self.folder / name
        return FisherCheckpoint(path, self.seconds, self.interruption, owner=self._owner(name), remedy=self._remedy)

    def load_selection(self) -> WeightSelection | None:
        """Returns the selection, or `None` if there is none yet."""
        path = self.folder / _SELECTION
        if not broadcast_object(path.exists()):
            return None
        indices, metadata = self._read_tensors(_SELECTION)
        return WeightSelection(indices, **json.loads(metadata["selection"]))

    def save_selection(self, selection: WeightSelection) -> None:
        """Saves the selection, and removes the Fisher sums, which are not needed any more."""
        record = {item.name: getattr(selection, item.name) for item in fields(selection) if item.name != "indices"}

        def save() -> None:
            self._write_tensors(_SELECTION, selection.indices, {"selection": json.dumps(record)})
            for path in self.folder.glob(_FISHER.format(split="*", share="*")):
                path.unlink()

        on_main_process(save)
        self.interruption.check_all()

    def save_reset_values(self, values: Mapping[str, torch.Tensor]) -> None:
        """Saves the new values of the weights that will be selected. Without the selection they are found anew."""
        on_main_process(lambda: self._write_tensors(_RESET_VALUES, values))

    def load_reset_values(self) -> dict[str, torch.Tensor]:
        """Returns the new values of the selected weights that a natural reset found."""
        return self._read_tensors(_RESET_VALUES)[0]

    def load_repaired(self) -> tuple[dict[str, torch.Tensor] | None, int]:
        """Returns the values of the selected weights after the last round of the repair, and its number, from 1."""
        path = self.folder / _REPAIRED
        if not broadcast_object(path.exists()):
            return None, 0
        values, metadata = self._read_tensors(_REPAIRED)
        return values, int(metadata.get("round", 1))

    def save_repaired(self, values: Mapping[str, torch.Tensor], number: int = 1) -> None:
        """Saves the values of the selected weights after a round of the repair."""
        on_main_process(lambda: self._write_tensors(_REPAIRED, values, {"round": str(number)}))
        self.interruption.check_all()

    def last_checkpoint(self) -> str | None:
        """Returns the latest checkpoint of the repair, in the output directory or in the state folder."""
        found = [
            path for folder in (self.output, self.folder) for path in folder.glob("checkpoint-*") if path.is_dir()
        ]
        last = max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
        return broadcast_object(None if last is None else str(last))

    def put_in_place(self, write: Callable[[Path], None], last: tuple[str, ...]) -> None:
        """
        Writes the result to a staging folder, then renames it file by file. All processes must call this.

        Args:
            write (`Callable`):
                Called in all processes with the staging folder. Writes all files of the result.
            last (`tuple[str, ...]`):
                Names of the files without which nothing loads the result. They are renamed last, in this order.
        """
        if not is_main_process():
            write(Path(broadcast_object("")))
            on_main_process(lambda: None)
            return
        with staged(self.folder) as staging:
            broadcast_object(str(staging))
            write(staging)
            names = sorted(path.name for path in staging.iterdir())
            names.sort(key=lambda name: last.index(name) if name in last else -1)
            self.progress.result_files = names
            self._write(self.progress)
            for name in names:
                os.replace(staging / name, self.output / name)
        on_main_process(lambda: None)

    def remove(self) -> None:
        """Removes the state folder, once the result is in place."""
        on_main_process(lambda: remove_folder(self.folder))

    def remove_if_empty(self) -> None:
        """Removes the state folder of a run that failed before there was anything to continue from."""
        if (
            is_main_process()
            and not self.progress.stages
            and {path.name for path in self.folder.iterdir()} == {PROGRESS_NAME}
        ):
            remove_folder(self.folder)
            with suppress(OSError):
                self.output.rmdir()
