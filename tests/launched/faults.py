# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A run of several processes of which one fails: `faults.py FOLDER FAULT`."""

import os
import signal
import sys
from pathlib import Path

from hf_deepclean import FisherUnlearner
from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.runtime.processes import process_index
from tests.launched.worlds import config, model, splits


def failing(fault):
    """Makes the last process fail in the second batch, or the third step, of a phase."""
    phase, _, kind = fault.partition(":")
    batches, training_step, steps = BatchSource.batches, RepairTrainer.training_step, []

    def fail():
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "terminate":
            # A scheduler sends the signal to the launcher.
            os.kill(os.getppid(), signal.SIGTERM)
            return
        raise ValueError("a failure of one process")

    def failing_batches(source, dataset, batch_size, description=None, **kwargs):
        for count, batch in enumerate(batches(source, dataset, batch_size, description, **kwargs)):
            if description == phase and count == 1:
                fail()
            yield batch

    def failing_step(trainer, *args, **kwargs):
        steps.append(True)
        if phase == "repair" and len(steps) == 3:
            fail()
        return training_step(trainer, *args, **kwargs)

    if process_index() == 1:
        BatchSource.batches, RepairTrainer.training_step = failing_batches, failing_step


if __name__ == "__main__":
    args = config(Path(sys.argv[1]), save_strategy="steps", save_steps=2, state_save_seconds=0, disable_tqdm=True)
    unlearner = FisherUnlearner(model(), args, **splits(23, 97))
    if len(sys.argv) > 2:
        failing(sys.argv[2])
    unlearner.unlearn(resume_from_checkpoint=True)
