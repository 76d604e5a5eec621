# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps what a run has done in its output directory, so that an interrupted run can continue."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from .config import FisherUnlearningConfig
from .data.digests import dataset_fingerprint
from .evaluation.recovery import RelearningResult
from .evaluation.stages import StageResult
from .fisher.checkpoint import FisherCheckpoint
from .models.fingerprint import weights_fingerprint
from .repair.checkpoints import STAGING_FOLDER
from .report.json_record import from_json_types, to_json_types
from .report.provenance import library_versions
from .report.report import REPORT_NAME
from .request import UnlearningRequest
from .runtime.files import (
    INCOMPLETE,
    STATE_FOLDER,
    read_tensors,
    remove_folder,
    remove_incomplete,
    replaced,
    staged,
    write_tensors,
)
from .runtime.interruption import Interruption
from .runtime.processes import broadcast_object, is_main_process, num_processes, on_main_process, process_index
from .selection.fisher_plane import FisherPlane
from .selection.search import SelectionSearch
from .selection.subtraction import KeptFisherResult
from .selection.sweep import GammaTrial
from .selection.weight_selection import WeightSelection


_RECORD = "progress.json"
_SELECTION = "selection.safetensors"
_REPAIRED = "repaired.safetensors"
# The share of one process in the Fisher pass of a data set.
_FISHER = "{split}-fisher-{share}.safetensors"

# Arguments, or their beginnings, that may differ in a resumed run.
_WITHOUT_EFFECT = (
    *("output_dir", "resume_from_checkpoint", "state_save_seconds", "disable_tqdm", "run_name", "report_to"),
    *("project", "logging_", "log_", "save_", "hub_", "push_to_hub", "dataloader_num_workers"),
    *("dataloader_pin_memory", "ddp_", "local_rank", "trackio_", "do_", "skip_memory_metrics"),
    *("enable_jit_checkpoint", "forget_disclosure", "forget_description"),
)


@dataclass
class RunProgress:
    """
    The record of a run that is under way.

    Args:
        identity (`dict[str, Any]`): What the run was started with; see [`identity_of_run`].
        stages (`dict[str, StageResult]`): Results of the stages that are done.
        seconds (`dict[str, float]`): Wall-clock seconds per phase.
        num_fisher_examples (`dict[str, int]`): Number of examples in each Fisher, once there is a selection.
        fisher_fallback (`dict[str, str]`): Parameters whose Fisher was computed one example at a time, with the
            reason.
        kept_fisher ([`KeptFisherResult`], *optional*): How a kept Fisher was used, if there was one.
        result_files (`list[str]`): Names of the files of the result, once they are being put in place.
        plane ([`FisherPlane`], *optional*): The histogram of the weights by both Fishers, once there is a selection.
        gamma_trials (`tuple[GammaTrial, ...]`): Trials of the gamma sweep that are done.
        relearning (`dict[str, RelearningResult]`): Results of the relearning that are done, by the data trained on.
        search ([`SelectionSearch`], *optional*): The record of the trials, if the rule is `"auto"`.
    """

    identity: dict[str, Any]
    stages: dict[str, StageResult] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    num_fisher_examples: dict[str, int] = field(default_factory=dict)
    fisher_fallback: dict[str, str] = field(default_factory=dict)
    kept_fisher: KeptFisherResult | None = None
    result_files: list[str] = field(default_factory=list)
    plane: FisherPlane | None = None
    gamma_trials: tuple[GammaTrial, ...] = ()
    relearning: dict[str, RelearningResult] = field(default_factory=dict)
    search: SelectionSearch | None = None


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

    def open(self, identity: Mapping[str, Any], num_bytes: int) -> None:
        """
        Opens the state of an interrupted run, or starts a new one.

        Args:
            identity (`dict[str, Any]`):
                What the run is started with; see [`identity_of_run`].
            num_bytes (`int`):
                The largest number of bytes that the run will write. Too little room is refused now, not hours later.

        Raises:
            `ValueError`: If the folder holds the state of another run. Names the differences.
            `OSError`: If the folder cannot be written, or has too little room.
        """
        self.progress = on_main_process(lambda: self._open(json.loads(json.dumps(identity, default=str)), num_bytes))
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"Process {process_index()} does not see {self.folder}, which the main process made. Choose an "
                "`output_dir` on a file system that all processes share."
            )

    def _open(self, identity: dict[str, Any], num_bytes: int) -> RunProgress:
        record = self.folder / _RECORD
        if record.exists():
            progress = _load_progress(record)
            _check_same_run(self.folder, progress.identity, identity)
            remove_incomplete(self.folder)
            shutil.rmtree(self.folder / STAGING_FOLDER, ignore_errors=True)
            return progress
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The output directory {self.output} cannot be written ({error.strerror}). Choose another "
                "`output_dir`, or make it writable",
            ) from error
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
        with replaced(self.folder / _RECORD) as path:
            path.write_text(json.dumps(to_json_types(progress), indent=2))

    def evaluate_stage(self, name: str, evaluate: Callable[[], StageResult]) -> StageResult:
        """Returns the result of a stage. Evaluates and saves it first if it is not in the record."""
        if name not in self.progress.stages:
            self.progress.stages[name] = evaluate()
            self.save()
            self.interruption.check()
        return self.progress.stages[name]

    def fisher_checkpoint(self, split: str) -> FisherCheckpoint:
        """
        Returns the checkpoint of this process's share of a Fisher pass.

        Args:
            split (`str`):
                Name of the data set.
        """
        name = _FISHER.format(split=split, share=f"{process_index():05d}-of-{num_processes():05d}")
        return FisherCheckpoint(self.folder / name, self.seconds, self.interruption)

    def load_selection(self) -> WeightSelection | None:
        """Returns the selection, or `None` if there is none yet."""
        path = self.folder / _SELECTION
        if not broadcast_object(path.exists()):
            return None
        indices, metadata = read_tensors(path)
        return WeightSelection(indices, **json.loads(metadata["selection"]))

    def save_selection(self, selection: WeightSelection) -> None:
        """Saves the selection, and removes the Fisher sums, which are not needed any more."""
        record = {item.name: getattr(selection, item.name) for item in fields(selection) if item.name != "indices"}

        def save() -> None:
            self._write(self.progress)
            with replaced(self.folder / _SELECTION) as path:
                write_tensors(path, selection.indices, {"selection": json.dumps(record)})
            for path in self.folder.glob(_FISHER.format(split="*", share="*")):
                path.unlink()

        on_main_process(save)
        self.interruption.check()

    def load_repaired(self) -> dict[str, torch.Tensor] | None:
        """Returns the values of the selected weights after the repair, or `None` if it is not done yet."""
        path = self.folder / _REPAIRED
        if not broadcast_object(path.exists()):
            return None
        return read_tensors(path)[0]

    def save_repaired(self, values: Mapping[str, torch.Tensor]) -> None:
        """Saves the values of the selected weights after the repair."""

        def save() -> None:
            self._write(self.progress)
            with replaced(self.folder / _REPAIRED) as path:
                write_tensors(path, values)

        on_main_process(save)
        self.interruption.check()

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
            and {path.name for path in self.folder.iterdir()} == {_RECORD}
        ):
            remove_folder(self.folder)
            with suppress(OSError):
                self.output.rmdir()


def identity_of_run(request: UnlearningRequest, args: FisherUnlearningConfig) -> dict[str, Any]:
    """
    Returns what a resumed run must share with the interrupted run to end in the same bits.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run.
        args ([`FisherUnlearningConfig`]):
            The configuration.
    """
    weights = {"model": weights_fingerprint(request.model)}
    if request.reference_model is not None:
        weights["reference_model"] = weights_fingerprint(request.reference_model)
    rows = {f"{split}_dataset": dataset for split, dataset in request.splits.items()}
    settings = args.to_dict() | {"reset_value": request.reset_value}
    return (
        weights
        | on_main_process(lambda: {name: dataset_fingerprint(dataset) for name, dataset in rows.items()})
        | {
            "num_processes": num_processes(),
            "kept_fisher": None if request.kept_fisher is None else request.kept_fisher.num_examples,
            "requests": {name: list(rows) for name, rows in request.requests.items()},
            "settings": {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_EFFECT)},
            "versions": library_versions(with_peft=request.has_adapter),
        }
    )


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
    record = output / STATE_FOLDER / _RECORD
    if name == STATE_FOLDER or name.startswith(INCOMPLETE):
        return True
    return record.exists() and name in _load_progress(record).result_files


def _load_progress(record: Path) -> RunProgress:
    try:
        return from_json_types(RunProgress, json.loads(record.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{record} is not the record of a run that this version of hf_deepclean can continue ({error}). Choose "
            "another `output_dir`, or remove the folder and start again."
        ) from error


def _check_same_run(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key):
            continue
        if isinstance(before.get(key), dict) and isinstance(now.get(key), dict):
            differences += [
                f"{key}: {name} {before[key].get(name)!r}, now {now[key].get(name)!r}"
                for name in sorted(before[key].keys() | now[key].keys())
                if before[key].get(name) != now[key].get(name)
            ]
        else:
            differences.append(
                f"{key} {before.get(key)!r}, now {now.get(key)!r}" if key == "num_processes" else f"another {key}"
            )
    if differences:
        raise ValueError(
            f"{folder} is the state of another run: {'; '.join(differences)}. Continue with what that run was started "
            "with, or choose another `output_dir`."
        )


def check_output_directory(path: str | os.PathLike[str], *, resuming: bool) -> None:
    """
    Refuses an output directory that is not empty. If a run is resumed, what an interrupted run left is allowed.

    Raises:
        `FileExistsError`: If the directory holds anything else.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"The output directory {path} is a file. Choose another `output_dir`.")
    found = sorted(
        entry.name
        for entry in path.iterdir()
        if not (resuming and (re.fullmatch(r"checkpoint-\d+|runs", entry.name) or belongs_to_run(path, entry.name)))
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
