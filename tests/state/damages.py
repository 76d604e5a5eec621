# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that stop in a chosen phase, and random damages to the files that they leave."""

import os
import random
from contextlib import suppress
from pathlib import Path

import torch

from hf_deepclean import FisherDiagonal, FisherUnlearner, ForgetCommitment, UnlearningReport
from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.repair.trainer import RepairTrainer
from tests import tiny
from tests.launched.worlds import config


class Stopped(Exception):
    """The end of a run in a chosen phase."""


SETTINGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "per_device_fisher_batch_size": 4,
    "random_mask_control": True,
    "gamma_sweep": [1.0],
    "save_strategy": "steps",
    "save_steps": 2,
    "state_save_seconds": 0,
}

# The phases that a run is stopped in: a Fisher pass, a step of the repair, and a step of the control.
PHASES = ("retain Fisher", "repair", "control")
KINDS = ("flip", "cut", "swap", "delete")


def unlearner_for(folder: Path, seed: int = 0, kept_fisher=None, **kwargs) -> FisherUnlearner:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    digits = tiny.digits()
    return FisherUnlearner(
        tiny.randomized(tiny.vit(num_labels=10, num_hidden_layers=1), torch.float32),
        config(folder, **(SETTINGS | kwargs)),
        forget_dataset=digits.select(range(12)),
        retain_dataset=digits.select(range(12, 60)),
        unseen_dataset=digits.select(range(60, 72)),
        kept_fisher=kept_fisher,
    )


def stop_in(folder: Path, phase: str, **kwargs) -> None:
    """Leaves the state of a run that fails in the third batch or step of a phase."""
    unlearner = unlearner_for(folder, **kwargs)
    batches, training_step, steps = BatchSource.batches, RepairTrainer.training_step, []

    def failing_batches(source, dataset, batch_size, description=None, **others):
        for count, batch in enumerate(batches(source, dataset, batch_size, description, **others)):
            if description == phase and count == 3:
                raise Stopped
            yield batch

    def failing_step(trainer, *args, **others):
        steps.append("control" if trainer.reset.selection.rule == "random" else "repair")
        if steps.count(phase) == 4:
            raise Stopped
        return training_step(trainer, *args, **others)

    BatchSource.batches, RepairTrainer.training_step = failing_batches, failing_step
    try:
        with suppress(Stopped):
            unlearner.unlearn()
    finally:
        BatchSource.batches, RepairTrainer.training_step = batches, training_step


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock")


def damage(path: Path, kind: str, draw: random.Random, other: Path) -> str:
    """Damages a file: one bit flipped, its end cut off, the file of another run in its place, or no file."""
    if kind == "delete":
        path.unlink()
    elif kind == "swap":
        os.replace(other, path)
    else:
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        if kind == "flip":
            content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content if kind == "flip" else content[:place])
    return f"{kind} {path.name}"


def weights_and_figures(folder: Path) -> dict:
    """What a run ends in: its weights, and its report without seconds."""
    report = UnlearningReport.load(folder / "report.json").to_dict()
    del report["seconds"]
    return {"weights": (folder / "model.safetensors").read_bytes(), "report": report}


def resumed(folder: Path, **kwargs) -> dict:
    unlearner_for(folder, **kwargs).unlearn(resume_from_checkpoint=True)
    return weights_and_figures(folder)


# The files of a result and how they are read: their content is what must not change in silence.
READERS = {
    "report.json": lambda path: UnlearningReport.load(path).to_dict(),
    "forget_commitment.json": lambda path: ForgetCommitment.load(path).key,
}


def content_of_fisher(folder: Path) -> dict:
    fisher = FisherDiagonal.from_pretrained(folder)
    sums = {name: total.numpy().tobytes() for name, total in fisher.sums.items()}
    return {"sums": sums, "num_examples": fisher.num_examples, "fingerprint": fisher.weights_fingerprint}
