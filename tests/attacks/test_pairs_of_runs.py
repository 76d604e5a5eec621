# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two processes that want one folder: started afresh, resumed, or sent back to a queue, at random moments."""

import json
import os
import random
import signal
import time

import pytest
import torch

from hf_deepclean import FisherUnlearningConfig, answer_requests
from hf_deepclean.publishing.push import push_unlearned_model
from hf_deepclean.runtime.files import STATE_FOLDER
from hf_deepclean.runtime.lock import LOCK_NAME
from tests import tiny
from tests.hub.served import Hub
from tests.launched.test_interruption import SETTINGS, contents, ended, phase_of, started, unlearner_for


PROMISE = "of two runs in one folder one is refused within a second, the other ends in the same bits"

# What a second run may be told: the folder is held, holds a run to resume, or holds a finished one.
REFUSALS = ("is held by another run", "already holds")


def told(folder, step, start, error=None):
    """Writes down how a call of this process ended, and how long it took."""
    record = {
        "seconds": time.monotonic() - start,
        "error": None if error is None else f"{type(error).__name__} {error}",
    }
    folder.with_name(f"{folder.name}-{os.getpid()}-{step}.json").write_text(json.dumps(record))


def run(folder, resume):
    """A run that writes down when and why it was refused: 3 is the status of a refusal, 4 of any other error."""
    step = "constructor"
    start = time.monotonic()
    try:
        unlearner = unlearner_for(folder)
        step, start = "unlearn", time.monotonic()
        unlearner.unlearn(resume_from_checkpoint=resume)
    except Exception as error:
        told(folder, step, start, error)
        raise SystemExit(3 if isinstance(error, (BlockingIOError, FileExistsError)) else 4) from None
    told(folder, step, start)


def run_batched(folder, resume):
    """The same for a call that answers two requests at once."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = tiny.digits()
    start = time.monotonic()
    try:
        answer_requests(
            tiny.randomized(tiny.vit(num_labels=10), torch.float32),
            FisherUnlearningConfig(str(folder), **config_of_requests()),
            train_dataset=digits.select(range(90)),
            requests={"a": range(10), "b": range(10, 20)},
            resume_from_checkpoint=resume,
            unseen_dataset=digits.select(range(90, 110)),
        )
    except Exception as error:
        told(folder, "requests", start, error)
        raise SystemExit(3 if isinstance(error, (BlockingIOError, FileExistsError)) else 4) from None
    told(folder, "requests", start)
