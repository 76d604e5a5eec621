# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Signals at any moment: a process that was asked to stop ends, and leaves nothing half-written."""

import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
import torch
from transformers import PreTrainedModel

from hf_deepclean import FisherDiagonal, FisherUnlearner, UnlearningReport
from hf_deepclean.data import sources
from hf_deepclean.phases import Phases
from hf_deepclean.publishing.commitment import ForgetCommitment
from hf_deepclean.runtime import files
from hf_deepclean.runtime.files import STATE_FOLDER, incomplete_folder, staged
from hf_deepclean.runtime.interruption import Interruption
from hf_deepclean.runtime.lock import LOCK_NAME, FolderLock
from hf_deepclean.state.run_state import RunState
from tests import tiny
from tests.launched.launch import fork
from tests.launched.worlds import config


RESULT = {"config.json", "forget_commitment.json", "model.safetensors", "report.json"}
STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


def unlearner_for(folder, **kwargs):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = tiny.digits()
    return FisherUnlearner(
        tiny.randomized(tiny.vit(num_labels=10, num_hidden_layers=1), torch.float32),
        config(folder, **({"num_train_epochs": 1, "state_save_seconds": 0} | kwargs)),
        forget_dataset=digits.select(range(8)),
        retain_dataset=digits.select(range(8, 48)),
    )


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def unlearner(tmp_path_factory):
    """An unlearner whose run has stopped before it wrote its result."""
    unlearner = unlearner_for(tmp_path_factory.mktemp("stopped") / "clean")

    def stop(*args):
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Phases, "save_result", stop)
        unlearner.unlearn()
    return unlearner


def started(target, *arguments):
    """Starts a function in a forked process, which ends with the status that a shell shows."""

    def run():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            target(*arguments)
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def ended(target, *arguments):
    process = started(target, *arguments)
    process.join()
    return process.exitcode


def sending(number, function, count=1):
    """The function, which first sends the signal to its process when it is called for the `count`-th time."""
    calls = []

    def called(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return called


def left_over(folder):
    """What a finished run or push must not leave in a folder or beside it."""
    return [path.name for path in folder.parent.rglob("*") if path.name.startswith((".incomplete-", LOCK_NAME))]


# Where in the writing of the result a signal comes: what is patched, and at which of its calls.
MOMENTS = {
    "before the result": (RunState, "put_in_place", 1),
    "the model": (PreTrainedModel, "save_pretrained", 1),
    "the commitment": (ForgetCommitment, "save", 1),
    "the report": (UnlearningReport, "save", 1),
    "first rename": (os, "replace", 4),
    "a later rename": (os, "replace", 6),
    "the removal of the state": (RunState, "remove", 1),
    "within that removal": (shutil, "rmtree", 1),
    "the release of the lock": (FolderLock, "release", 1),
}


def finish_and_be_asked_to_stop(unlearner, folder, moment, number):
    where, name, count = MOMENTS[moment]
    if moment == "within that removal":
        remove = RunState.remove
        RunState.remove = lambda state: (setattr(where, name, sending(number, getattr(where, name))), remove(state))
    else:
        setattr(where, name, sending(number, getattr(where, name), count))
    unlearner.args.output_dir = str(folder)
    unlearner.unlearn(resume_from_checkpoint=True)
    # What the script of the user does next, such as a push.
    (folder.parent / "went on").touch()
    for _ in range(100):
        time.sleep(0.01)


ATTEMPTS = [(moment, signal.SIGTERM) for moment in MOMENTS]
ATTEMPTS += [("the model", signal.SIGINT), ("a later rename", signal.SIGINT), ("the report", signal.SIGHUP)]


def test_a_signal_while_the_result_is_written_ends_the_process_after_it_and_before_the_next_line(
    tmp_path, unlearner, attack
):
    stopped, went = unlearner.args.output_dir, {}
    for number, (moment, sent) in enumerate(ATTEMPTS):
        folder = tmp_path / str(number) / "clean"
        shutil.copytree(stopped, folder)
        status = ended(finish_and_be_asked_to_stop, unlearner, folder, moment, sent)
        found = {path.name for path in folder.iterdir()}
        went[f"{sent.name}, {moment}"] = (
            status != STATUS[sent]
            or (folder.parent / "went on").exists()
            or found != RESULT
            or bool(left_over(folder))
        )
    assert attack("a signal while the result is written is obeyed", went) == []
    with pytest.raises(FileExistsError, match="The run there is finished"):
        unlearner_for(folder).unlearn(resume_from_checkpoint=True)


def run_in_two_processes(folder):
    unlearner = unlearner_for(folder)
    rank = os.environ["RANK"]
    if rank == "1":
        Phases.save_result = sending(signal.SIGTERM, Phases.save_result)
    try:
        unlearner.unlearn()
    except SystemExit as error:
        (folder.parent / f"{rank} ended with {error.code}").touch()


def test_a_signal_to_one_of_several_processes_ends_all_of_them(tmp_path, attack):
    process = multiprocessing.get_context("fork").Process(
        target=fork, args=(2, run_in_two_processes, tmp_path / "clean")
    )
    process.start()
    process.join()
    found = {path.name for path in tmp_path.iterdir()}
    went = {f"process {rank}": f"{rank} ended with 143" not in found for rank in (0, 1)}
    assert attack("a signal to one process ends all", went) == []
    assert {path.name for path in (tmp_path / "clean").iterdir()} == RESULT


def write_and_be_asked_to_stop(write, folder, number):
    write(folder, lambda: os.kill(os.getpid(), number))
    (folder.parent / "went on").touch()


def in_a_folder(folder, ask):
    with incomplete_folder(folder) as made:
        (made / "half").write_text("")
        ask()
        time.sleep(5)


def twice(folder, ask):
    """As from a terminal and then from the launcher: the second signal comes while the first is obeyed."""
    with staged(folder) as made:
        (made / "half").write_text("")
        try:
            ask()
            time.sleep(5)
        finally:
            ask()


def while_it_is_made(folder, ask):
    make = files.tempfile.mkdtemp

    def made(*args, **kwargs):
        path = make(*args, **kwargs)
        ask()
        return path

    files.tempfile.mkdtemp = made
    with staged(folder):
        time.sleep(5)


def while_it_is_removed(folder, ask):
    remove = shutil.rmtree

    def removed(path, **kwargs):
        ask()
        remove(path, **kwargs)

    shutil.rmtree = removed
    with staged(folder) as made:
        (made / "half").write_text("")
    time.sleep(5)


def fisher(folder, ask):
    save = files.os.replace

    def replace(*args):
        ask()
        save(*args)

    files.os.replace = replace
    FisherDiagonal({"a": torch.zeros(300), "b": torch.zeros(300)}, 3, "empirical", {}, "0").save_pretrained(
        folder / "fisher", max_shard_size="1KB"
    )


def rows(folder, ask):
    files.tempfile.tempdir = str(folder)
    (folder.parent / "rows.jsonl").write_text('{"text": "a"}\n')
    load = sources.datasets.load_dataset_builder

    def builder(*args, **kwargs):
        found = load(*args, **kwargs)
        prepare = found._prepare_split

        def asked(*args, **kwargs):
            prepare(*args, **kwargs)
            ask()

        found._prepare_split = asked
        return found

    sources.datasets.load_dataset_builder = builder
    sources.load_splits(str(folder.parent / "rows.jsonl"), {"train": "train"})


def a_lock(folder, ask):
    release = FolderLock.release

    def released(lock):
        ask()
        release(lock)

    FolderLock.release = released
    with RunState(str(folder), 0, Interruption()).held(resuming=False):
        pass


WRITES = [in_a_folder, twice, while_it_is_made, while_it_is_removed, fisher, rows, a_lock]


def test_a_signal_while_anything_is_written_leaves_no_temporary_folder_and_no_lock(tmp_path, attack):
    went = {}
    for write in WRITES:
        for number, status in STATUS.items():
            folder = tmp_path / f"{write.__name__} {number.name}" / "folder"
            folder.mkdir(parents=True)
            found = ended(write_and_be_asked_to_stop, write, folder, number)
            went[f"{number.name}, {write.__name__}"] = (
                found != status
                or (folder.parent / "went on").exists()
                or any(folder.glob("*"))
                or bool(left_over(folder))
            )
    assert attack("nothing half-written stays after a signal", went) == []


def is_killed(folder):
    with staged(folder) as made:
        (made / "row").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


def waits(folder, done):
    with staged(folder):
        (folder / "begun").touch()
        done.wait(60)


def test_what_a_killed_process_left_goes_with_the_next_writer_and_what_a_living_one_uses_stays(tmp_path, attack):
    done = multiprocessing.get_context("fork").Event()
    living = started(waits, tmp_path, done)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    (in_use,) = tmp_path.glob(".incomplete-*")
    assert ended(is_killed, tmp_path) == -signal.SIGKILL
    (left,) = set(tmp_path.glob(".incomplete-*")) - {in_use}
    elsewhere = tmp_path / left.name.replace(left.name.split("-")[3], "00000000")
    shutil.copytree(left, elsewhere)
    with staged(tmp_path) as own:
        went = {"a killed process": left.exists(), "a living process": not in_use.exists()}
        went["another machine"] = not elsewhere.exists()
        with FolderLock(tmp_path):
            files.remove_incomplete(tmp_path)
        went |= {"a living process, in a held folder": not in_use.exists(), "this process": not own.exists()}
        went["another machine, in a held folder"] = elsewhere.exists()
    done.set()
    living.join()
    went["at the end"] = bool(list(tmp_path.glob(".incomplete-*")))
    assert attack("temporary folders of the dead go, those of the living stay", went) == []


def test_temporary_folders_are_for_their_owner_alone_and_what_leaves_them_is_not(tmp_path, attack):
    before = os.umask(0)
    try:
        with staged(tmp_path) as made:
            mode = made.stat().st_mode
            (made / "file").write_text("")
            os.replace(made / "file", tmp_path / "file")
    finally:
        os.umask(before)
    went = {"the folder": mode & 0o077 != 0, "the file": (tmp_path / "file").stat().st_mode & 0o666 != 0o666}
    assert attack("temporary folders are unreadable to others", went) == []


def run_between_handlers(unlearner, folder):
    """A run, with what the user answers signals with, which must be in place before and after it."""

    def own(number, frame):
        raise SystemExit(7)

    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Phases.save_result = sending(signal.SIGHUP, Phases.save_result)
    unlearner.args.output_dir = str(folder)
    unlearner.unlearn(resume_from_checkpoint=True)
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with staged(folder):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_handlers_of_the_user_are_in_place_after_a_run_and_ignored_signals_stay_ignored(tmp_path, unlearner, attack):
    shutil.copytree(unlearner.args.output_dir, tmp_path / "clean")
    status = ended(run_between_handlers, unlearner, tmp_path / "clean")
    went = {"handlers": status != 7, "folders": bool(left_over(tmp_path / "clean"))}
    assert attack("handlers of the user stay", went) == []


def run(folder):
    unlearner_for(folder, random_mask_control=True, save_strategy="steps", save_steps=2).unlearn(True)
    (folder.parent / "went on").touch()


@pytest.mark.slow
def test_a_signal_at_any_moment_of_a_run_ends_it_and_the_next_run_completes_it(tmp_path, attack):
    draw, went = random.Random(0), {}
    start = time.monotonic()
    assert ended(run, tmp_path / "uninterrupted" / "clean") == 0
    seconds = time.monotonic() - start
    weights = (tmp_path / "uninterrupted" / "clean" / "model.safetensors").read_bytes()
    for attempt in range(30):
        folder, number = tmp_path / str(attempt) / "clean", draw.choice(list(STATUS))
        process = started(run, folder)
        # A third comes at the end, where the result is written.
        time.sleep(seconds * (draw.uniform(0.8, 1.0) if attempt % 3 == 0 else draw.random()))
        os.kill(process.pid, number)
        process.join()
        name = f"{attempt}: {number.name}"
        is_finished = (folder / "report.json").exists() and not (folder / STATE_FOLDER).exists()
        # Before the run begins, Python's own answer to SIGTERM and SIGHUP ends the process.
        expected = {STATUS[number], -number}
        if (folder.parent / "went on").exists():
            expected |= {0}
        went[name] = process.exitcode not in expected or (folder.exists() and bool(left_over(folder)))
        if not is_finished:
            went[name] |= ended(run, folder) != 0
        went[name] |= (folder / "model.safetensors").read_bytes() != weights or bool(left_over(folder))
        shutil.rmtree(folder.parent)
    assert attack("a signal at any moment of a run is obeyed", went) == []
