# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, or asked to stop, and continue."""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageClassification

from hf_deepclean import FisherUnlearner, UnlearningReport
from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.runtime.files import STATE_FOLDER
from hf_deepclean.runtime.sealed_files import sealed, unsealed
from tests import tiny
from tests.launched.worlds import config


CHECKPOINT = {
    "model.safetensors",
    "selected_weights.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
}


SETTINGS = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "per_device_fisher_batch_size": 4,
    "random_mask_control": True,
    "gamma_sweep": [1.0, 2.0],
    "relearning_steps": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "state_save_seconds": 0,
    "disable_tqdm": True,
}


def unlearner_for(folder, seed=0, forget=range(20), **kwargs):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    digits = tiny.digits()
    return FisherUnlearner(
        tiny.randomized(tiny.vit(num_labels=10), torch.float32),
        config(folder, **(SETTINGS | kwargs)),
        forget_dataset=digits.select(forget),
        retain_dataset=digits.select(range(20, 90)),
        unseen_dataset=digits.select(range(90, 110)),
        reference_model=tiny.randomized(tiny.vit(num_labels=10), torch.float32),
    )


def run(folder, resume=True, **kwargs):
    unlearner_for(folder, **kwargs).unlearn(resume_from_checkpoint=resume)


def started(target, *args, **kwargs):
    """Starts a function in a process that is forked, so that it need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def ended(target, *args, **kwargs):
    process = started(target, *args, **kwargs)
    process.join()
    return process.exitcode


def contents(folder):
    """The result of a run: its weights, and its report without seconds, digest and `state_save_seconds`."""
    report = json.loads((folder / "report.json").read_text())
    del report["seconds"], report["digest"], report["settings"]["state_save_seconds"]
    return {"report": report, "weights": (folder / "model.safetensors").read_bytes()}


def whole_files(folder):
    """Checks that every visible file is whole."""
    for path in folder.rglob("*"):
        if ".incomplete-" in str(path) or "_unlearning_state/checkpoints" in str(path):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
        elif re.fullmatch(r"checkpoint-\d+", path.name):
            names = {entry.name for entry in path.iterdir()}
            assert names >= CHECKPOINT and any(name.startswith("rng_state") for name in names)
    if (folder / "config.json").exists():
        AutoModelForImageClassification.from_pretrained(folder)
    if (folder / "report.json").exists():
        assert UnlearningReport.load(folder / "report.json").stages


def phase_of(folder):
    """The phase in which a run stopped, by the files that it left."""
    state = folder / STATE_FOLDER
    if not (state / "progress.json").exists():
        return "finished" if (folder / "report.json").exists() else "start"
    progress = json.loads((state / "progress.json").read_text())
    if "control_after_repair" in progress["stages"]:
        return "result"
    if "after_repair" in progress["stages"]:
        return "control"
    if (state / "repaired.safetensors").exists():
        return "evaluation"
    if "after_reset" in progress["stages"]:
        return "repair"
    if (state / "selection.safetensors").exists():
        return "reset"
    if list(state.glob("retain-fisher-*")):
        return "retain Fisher"
    if list(state.glob("forget-fisher-*")):
        return "forget Fisher"
    return "start"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The output directory of a run that nothing stops."""
    return tmp_path_factory.mktemp("uninterrupted") / "clean"


@pytest.fixture(scope="module")
def uninterrupted(finished):
    """The result of a run that nothing stops, and the seconds it takes."""
    folder, start = finished, time.monotonic()
    assert ended(run, folder, resume=None) == 0
    seconds = time.monotonic() - start
    assert {path.name for path in folder.iterdir() if "checkpoint" not in path.name} == {
        "config.json",
        "forget_commitment.json",
        "model.safetensors",
        "report.json",
    }
    return contents(folder), seconds


def kill_and_resume(folder, delay, expected):
    """Returns the phase in which the process was killed."""
    process = started(run, folder)
    time.sleep(delay)
    process.kill()
    process.join()
    phase = phase_of(folder)
    if folder.exists():
        whole_files(folder)
    if phase != "finished":
        assert ended(run, folder) == 0
    assert contents(folder) == expected
    assert not (folder / STATE_FOLDER).exists()
    whole_files(folder)
    return phase


def test_runs_killed_at_random_end_in_the_same_bits(tmp_path, uninterrupted):
    expected, seconds = uninterrupted
    draw = random.Random(0)
    for number in range(3):
        kill_and_resume(tmp_path / str(number), seconds * (number + draw.random()) / 3, expected)


@pytest.mark.slow
def test_sixty_runs_killed_at_random_over_all_phases_end_in_the_same_bits(tmp_path, uninterrupted):
    expected, seconds = uninterrupted
    draw = random.Random(1)
    phases = []
    for number in range(60):
        folder = tmp_path / str(number)
        # Half of the runs are killed in the first half, so that the short Fisher passes are hit.
        part = 0.5 if number % 2 else 1.0
        phases.append(kill_and_resume(folder, seconds * part * draw.random(), expected))
        shutil.rmtree(folder)
    assert {"forget Fisher", "retain Fisher", "repair", "control"} <= set(phases), phases


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path, uninterrupted):
    expected, seconds = uninterrupted
    folder, draw = tmp_path / "clean", random.Random(2)
    for _ in range(5):
        process = started(run, folder)
        process.join(seconds * (0.3 + 0.4 * draw.random()))
        process.kill()
        process.join()
        if phase_of(folder) == "finished":
            break
        whole_files(folder)
    else:
        assert ended(run, folder) == 0
    assert contents(folder) == expected


def is_control(trainer):
    return trainer.reset.selection.rule == "random"


def run_and_be_asked_to_stop(folder, phase, number):
    """A run that gets the signal in the middle of a phase, and saves only because of the signal."""
    unlearner = unlearner_for(folder, state_save_seconds=1e9, save_strategy="no")
    batches, training_step, steps = BatchSource.batches, RepairTrainer.training_step, []

    def counted_batches(source, dataset, batch_size, description=None, **kwargs):
        for count, batch in enumerate(batches(source, dataset, batch_size, description, **kwargs)):
            if description == phase and count == 3:
                os.kill(os.getpid(), number)
            yield batch

    def counted_step(trainer, *args, **kwargs):
        steps.append(is_control(trainer))
        if steps.count(phase == "control") == 3 and steps[-1] == (phase == "control") and phase != "retain Fisher":
            os.kill(os.getpid(), number)
        return training_step(trainer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchSource, "batches", counted_batches)
        patch.setattr(RepairTrainer, "training_step", counted_step)
        unlearner.unlearn()


@pytest.mark.parametrize(
    ("phase", "number"),
    [("retain Fisher", signal.SIGTERM), ("repair", signal.SIGINT), ("control", signal.SIGTERM)],
)
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_in_the_same_bits(tmp_path, uninterrupted, phase, number):
    expected, _ = uninterrupted
    folder = tmp_path / "clean"
    state = folder / STATE_FOLDER
    status = ended(run_and_be_asked_to_stop, folder, phase, number)
    # multiprocessing ends with status 1 after a KeyboardInterrupt.
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 1}[number]
    whole_files(folder)
    assert phase_of(folder) == phase
    assert [path.name for path in state.glob("checkpoint-*")] == (["checkpoint-3"] if phase == "repair" else [])
    assert len(list(state.glob("retain-fisher-*"))) == (phase == "retain Fisher")
    assert ended(run, folder, save_strategy="no") == 0
    assert contents(folder) == expected
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "forget_commitment.json",
        "model.safetensors",
        "report.json",
    }


@pytest.mark.parametrize("of_control", [False, True])
def test_after_an_interruption_the_model_is_what_it_was_and_the_same_process_can_go_on(
    tmp_path, monkeypatch, uninterrupted, of_control
):
    expected, _ = uninterrupted
    unlearner = unlearner_for(tmp_path / "clean", save_strategy="no")
    before = tiny.parameters_and_buffers(unlearner.model)
    training_step, steps = RepairTrainer.training_step, []

    def interrupting_step(trainer, *args, **kwargs):
        steps.append(is_control(trainer))
        if steps.count(of_control) == 3 and steps[-1] == of_control:
            raise KeyboardInterrupt
        return training_step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RepairTrainer, "training_step", interrupting_step)
        with pytest.raises(KeyboardInterrupt):
            unlearner.unlearn()
    assert all(
        torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(unlearner.model).items()
    )
    unlearner.unlearn(resume_from_checkpoint=True)
    assert contents(tmp_path / "clean") == expected


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """The output directory of a run that failed before its repair."""
    folder = tmp_path_factory.mktemp("stopped") / "clean"
    unlearner = unlearner_for(folder)

    def fail(*args, **kwargs):
        raise Stopped

    unlearner.train = fail
    with pytest.raises(Stopped):
        unlearner.unlearn()
    return folder


@pytest.fixture
def stopped(left_behind, tmp_path):
    """A copy of that directory."""
    return shutil.copytree(left_behind, tmp_path / "clean")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "another model"),
        ({"forget": range(1, 20)}, "another forget_dataset"),
        ({"reset_fraction": 0.3}, "reset_fraction 0.2, now 0.3"),
        ({"learning_rate": 2e-2}, "learning_rate 0.01, now 0.02"),
    ],
)
def test_the_state_of_another_run_is_refused_by_what_differs(stopped, changes, message):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        unlearner_for(stopped, **changes).unlearn(resume_from_checkpoint=True)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_state_of_another_number_of_processes_is_refused(stopped):
    record = stopped / STATE_FOLDER / "progress.json"
    progress = unsealed(json.loads(record.read_text()))
    assert progress["identity"]["num_processes"] == 1
    progress["identity"]["num_processes"] = 2
    record.write_text(json.dumps(sealed(progress)))
    with pytest.raises(ValueError, match="num_processes 2, now 1"):
        unlearner_for(stopped).unlearn(resume_from_checkpoint=True)


def test_a_finished_run_is_not_started_again(finished, uninterrupted):
    with pytest.raises(FileExistsError, match="The run there is finished"):
        unlearner_for(finished).unlearn(resume_from_checkpoint=True)


def test_nothing_to_resume_is_a_start(tmp_path, uninterrupted):
    expected, _ = uninterrupted
    run(tmp_path / "clean", resume=True)
    assert contents(tmp_path / "clean") == expected


def run_with_little_room(folder, num_bytes):
    """Writing more than `num_bytes` to a file fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    try:
        run(folder)
    except OSError as error:
        folder.with_name("error").write_text(str(error)[: num_bytes // 2])
        raise SystemExit(3) from None


@pytest.mark.parametrize("num_bytes", [1_500, 24_000])
def test_a_disk_that_is_full_is_a_clear_error_with_nothing_lost(tmp_path, uninterrupted, num_bytes):
    expected, _ = uninterrupted
    folder = tmp_path / "clean"
    assert ended(run_with_little_room, folder, num_bytes) == 3
    message = (tmp_path / "error").read_text()
    assert "failed" in message and "nothing that was there has changed" in message
    assert not list(folder.rglob(".incomplete-*"))
    whole_files(folder)
    assert ended(run, folder) == 0
    assert contents(folder) == expected


def test_an_output_directory_that_cannot_be_written_is_refused_before_any_pass(tmp_path):
    (tmp_path / "file").write_text("")
    unlearner = unlearner_for(tmp_path / "clean")
    unlearner.args.output_dir = str(tmp_path / "file" / "clean")
    with pytest.raises(OSError, match="cannot be written .*Choose another `output_dir`"):
        unlearner.unlearn()
    assert unlearner.seconds == {}


def test_too_little_room_is_refused_before_any_pass(tmp_path, monkeypatch):
    unlearner = unlearner_for(tmp_path / "clean")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="There are 0.00 GiB free"):
        unlearner.unlearn()
    assert not (tmp_path / "clean").exists() and unlearner.seconds == {}
