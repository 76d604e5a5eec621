# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Calls of `answer_requests` on a small model, and one that is killed at a chosen file operation near its end."""

import os
import signal
import sys
from dataclasses import replace

import torch

from hf_deepclean import FisherUnlearner, UnlearningReport, answer_requests, weights_fingerprint
from hf_deepclean.fisher.passes import FisherPass
from hf_deepclean.phases import Phases
from hf_deepclean.repair.trainer import RepairTrainer
from tests import tiny
from tests.launched.worlds import config


NUM_ROWS = 30
REQUESTS = {"Ada Smith": [3, 4], "Bob Jones": [17, 8, 9]}


def model(seed=0, **kwargs):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return tiny.randomized(tiny.vit(num_labels=10, num_hidden_layers=1, **kwargs), torch.float32)


def rows(places=range(NUM_ROWS)):
    return tiny.digits().select(places)


def kept_fisher(of_model=None):
    """The Fisher of the training data at the weights of a model."""
    of_model = model() if of_model is None else of_model
    parts = {"forget_dataset": rows(range(5)), "retain_dataset": rows(range(5, NUM_ROWS))}
    fisher = FisherUnlearner(of_model, config("unused"), **parts).compute_fisher(rows())
    return replace(fisher, weights_fingerprint=weights_fingerprint(of_model))


def call(folder, *, mode, resume=True, requests=REQUESTS, dataset=None, start=None, **kwargs):
    objects = {"kept_fisher": kwargs.pop("kept_fisher", None), "unseen_dataset": kwargs.pop("unseen", None)}
    objects |= {name: kwargs.pop(name) for name in ("data_collator", "callbacks") if name in kwargs}
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "dress_rehearsal": False} | kwargs
    return answer_requests(
        model() if start is None else start,
        config(folder, **settings),
        train_dataset=rows() if dataset is None else dataset,
        requests=requests,
        mode=mode,
        resume_from_checkpoint=resume,
        **{name: value for name, value in objects.items() if value is not None},
    )


class Heavy(Exception):
    """A pass or a step of training that was done twice."""


def without_heavy_work(monkeypatch):
    def refuse(*args, **kwargs):
        raise Heavy

    monkeypatch.setattr(FisherPass, "compute", refuse)
    monkeypatch.setattr(RepairTrainer, "training_step", refuse)


class Stopped(Exception):
    """The end of a call before its last result is written."""


def stop_before_the_last_result(monkeypatch, folder, **kwargs):
    """Leaves a call whose last run has done everything but write its result."""
    save_result = Phases.save_result

    def stopping(phases, state, report):
        if kwargs["mode"] == "batched" or state.output.name == f"{len(REQUESTS) - 1:05d}":
            raise Stopped
        return save_result(phases, state, report)

    with monkeypatch.context() as patch:
        patch.setattr(Phases, "save_result", stopping)
        try:
            call(folder, **kwargs)
        except Stopped:
            return
    raise AssertionError("The call was not stopped.")


_CHANGING = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "os.truncate")


def call_and_be_killed(folder, operation, **kwargs):
    """Continues a call, and kills this process before its file operation of that number from the last result on."""
    count, save_result = [0, False], Phases.save_result

    def hook(event, arguments):
        changes = event in _CHANGING or (
            event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
        )
        if count[1] and changes:
            if count[0] == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1

    def watched(phases, state, report):
        count[1] = True
        return save_result(phases, state, report)

    Phases.save_result = watched
    sys.addaudithook(hook)
    call(folder, **kwargs)


def result_of(folder):
    """The weights and the figures of every run and request, by file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors":
            found[path.relative_to(folder)] = path.read_bytes()
        elif path.name.startswith(("report", "request-")):
            record = UnlearningReport.load(path).to_dict()
            del record["seconds"], record["provenance"]
            found[path.relative_to(folder)] = record
        elif path.is_dir() or path.suffix == ".json":
            found[path.relative_to(folder)] = None
    return found
