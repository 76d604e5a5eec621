# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Writes and loads checkpoints of a repair. A checkpoint appears whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints

from ..reset.resetter import Reset
from ..reset.weights import read_weights, write_weights
from ..runtime.files import STATE_FOLDER, explain_write_errors, remove_folder
from ..runtime.processes import broadcast_object, gather_objects, on_main_process
from ..runtime.sealed_files import (
    MANIFEST_NAME,
    check_manifest,
    has_digest,
    read_tensors,
    write_manifest,
    write_tensors,
)
from .hard_examples import HardExampleSampler


# The folder, in the state folder, where a checkpoint is written before it is renamed.
STAGING_FOLDER = "checkpoints"

# The file of the selected weights in a checkpoint.
_SELECTED_NAME = "selected_weights.safetensors"
# The file of the losses of the rows, if the order of the rows follows their losses.
_ROW_LOSSES_NAME = "row_losses.safetensors"

_REMEDY = "Resume from another checkpoint, or remove this one: the repair then resumes from an earlier one, or starts."


@dataclass(frozen=True)
class RepairCheckpoints:
    """
    The checkpoints of one repair.

    Args:
        output (`Path`):
            The output directory.
        are_asked_for (`bool`):
            Whether the user asked for checkpoints. If not, the only checkpoint is that of an interruption, which is
            part of the state of the run and removed with it.
        max_kept (`int`, *optional*):
            At most this many checkpoints are kept, and the best one.
        run (`str`, *optional*):
            The run that the checkpoints belong to. Only that run loads them.
    """

    output: Path
    are_asked_for: bool = True
    max_kept: int | None = None
    run: str = ""

    @property
    def staging(self) -> Path:
        """The folder where Trainer writes a checkpoint before [`RepairCheckpoints.finish`] renames it."""
        return self.output / STATE_FOLDER / STAGING_FOLDER

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Writes to `staging` in the block. After an error, which says what to do, nothing half-written stays."""
        try:
            with explain_write_errors(self.output):
                yield
        except BaseException:
            shutil.rmtree(self.staging, ignore_errors=True)
            # If no run is under way, the state folder is empty now.
            with suppress(OSError):
                self.staging.parent.rmdir()
            raise

    def finish(self, state: TrainerState, reset: Reset, row_order: HardExampleSampler | None) -> None:
        """
        Completes the checkpoint that Trainer wrote to `staging`, and puts it in place by one rename. All processes
        must call this.

        Args:
            state ([`~transformers.TrainerState`]):
                The state of the trainer. The path of its best checkpoint is changed to the final path.
            reset ([`Reset`]):
                The reset that is repaired.
            row_order ([`HardExampleSampler`], *optional*):
                The order of the rows, if it follows their losses.
        """
        values = read_weights(reset.model, reset.selection)
        losses = None if row_order is None else row_order.state()
        gather_objects(None)
        name = _name(state.global_step)
        metadata = {"frozen": reset.guard.checksum, "step": str(state.global_step)}

        def put_in_place() -> None:
            final = self.output if self.are_asked_for else self.output / STATE_FOLDER
            with self.writing():
                write_tensors(self.staging / name / _SELECTED_NAME, values, metadata)
                if losses is not None:
                    write_tensors(self.staging / name / _ROW_LOSSES_NAME, losses)
                if state.best_model_checkpoint == str(self.staging / name):
                    state.best_model_checkpoint = str(final / name)
                    state.save_to_json(str(self.staging / name / TRAINER_STATE_NAME))
                write_manifest(self.staging / name, self.run)
                remove_folder(final / name)
                os.replace(self.staging / name, final / name)
                self.staging.rmdir()
            with suppress(OSError):
                self.staging.parent.rmdir()
            self._remove_old(state.best_model_checkpoint)

        on_main_process(put_in_place)
        state.best_model_checkpoint = broadcast_object(state.best_model_checkpoint)

    def _remove_old(self, best: str | None) -> None:
        if self.max_kept is None or self.max_kept <= 0:
            return
        for path in sort_checkpoints(str(self.output), best_model_checkpoint=best)[: -self.max_kept]:
            if path != best:
                remove_folder(Path(path))


def load_checkpoint(
    folder: str | os.PathLike[str], reset: Reset, row_order: HardExampleSampler | None, run: str = ""
) -> None:
    """
    Loads the selected weights of a checkpoint into the model. The model holds all other weights already. All files of
    the checkpoint are verified. All processes must call this.

    Args:
        folder (`str`):
            The checkpoint.
        reset ([`Reset`]):
            The reset that is repaired.
        row_order ([`HardExampleSampler`], *optional*):
            The order of the rows to continue, if it follows their losses.
        run (`str`, *optional*):
            The run that the checkpoint must belong to.

    Raises:
        `ValueError`: If the folder is not a checkpoint of a repair, is damaged, or belongs to another run, model or
            selection.
    """
    path = Path(folder) / _SELECTED_NAME
    if not path.exists():
        raise ValueError(
            f"{folder} is not a checkpoint of a repair: it has no {_SELECTED_NAME}. Resume from a checkpoint that "
            "`FisherUnlearner` wrote, or start again in another `output_dir`."
        )
    values, metadata = read_tensors(path, remedy=_REMEDY)
    if has_digest(metadata) or path.with_name(MANIFEST_NAME).exists():
        on_main_process(lambda: check_manifest(path.parent, run, _REMEDY))
        if _is_under_another_name(path.parent, metadata):
            raise ValueError(f"{folder} is the checkpoint of step {metadata['step']} under another name. {_REMEDY}")
    if metadata["frozen"] != reset.guard.checksum or not _have_sizes_of(values, reset):
        raise ValueError(
            f"{folder} belongs to another model or another selection. Resume with the model, the data, the seed and "
            "the selection rule that the checkpoint was made with."
        )
    write_weights(reset.model, reset.selection, values)
    if row_order is not None:
        losses, _ = read_tensors(path.with_name(_ROW_LOSSES_NAME), remedy=_REMEDY)
        row_order.load_state(losses)


def _is_under_another_name(folder: Path, metadata: Mapping[str, str]) -> bool:
    """Whether the checkpoint of one step is in the folder of another step. Names of other forms are left to users."""
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None and folder.name != _name(metadata["step"])


def _name(step: int | str) -> str:
    return f"checkpoint-{step}"


def _have_sizes_of(values: Mapping[str, torch.Tensor], reset: Reset) -> bool:
    sizes = {name: len(value) for name, value in values.items()}
    return sizes == {name: len(indices) for name, indices in reset.selection.indices.items()}
