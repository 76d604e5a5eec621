# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two runs in one folder: one of them goes on undisturbed, the other stops at once."""

import os
import signal
import time
from pathlib import Path

import pytest

from hf_deepclean.publishing.folder import Publication, staged_model
from hf_deepclean.publishing.leaks import Needles
from hf_deepclean.runtime.files import STATE_FOLDER
from hf_deepclean.runtime.lock import LOCK_NAME
from tests.launched.test_interruption import contents, ended, run, started, unlearner_for


def wait_for(path: Path) -> None:
    start = time.monotonic()
    while not path.exists():
        assert time.monotonic() - start < 60
        time.sleep(0.01)


def run_and_tell(folder, resume, **kwargs):
    """A run that writes down why it was refused."""
    try:
        run(folder, resume=resume, **kwargs)
    except OSError as error:
        folder.with_name(f"refusal-{os.getpid()}").write_text(f"{type(error).__name__} {error}")
        raise SystemExit(3) from None


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "clean"
    assert ended(run, folder, resume=None) == 0
    return folder


def test_further_runs_say_who_holds_the_folder_and_the_first_ends_undisturbed(tmp_path, uninterrupted):
    folder = tmp_path / "clean"
    first = started(run, folder)
    wait_for(folder / STATE_FOLDER / "progress.json")
    others = [started(run_and_tell, folder, resume) for resume in (None, True)]
    for other in others:
        other.join()
        assert other.exitcode == 3
    assert first.is_alive()
    refusals = [path.read_text() for path in tmp_path.glob("refusal-*")]
    assert len(refusals) == 2
    held = f"BlockingIOError [Errno 11] The folder {folder} is held by another run: process {first.pid} on"
    assert all(held in refusal for refusal in refusals)
    first.join()
    assert first.exitcode == 0 and contents(folder) == contents(uninterrupted)
    assert not (folder / LOCK_NAME).exists()


def test_of_runs_that_start_at_once_one_ends_and_the_others_stop(tmp_path, uninterrupted):
    processes = [started(run_and_tell, tmp_path / "clean", True) for _ in range(3)]
    for process in processes:
        process.join()
    # A run that comes when another one has finished is refused too.
    assert sorted(process.exitcode for process in processes) == [0, 3, 3]
    assert contents(tmp_path / "clean") == contents(uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_gives_the_folder_free(tmp_path, number):
    process = started(run, tmp_path / "clean")
    wait_for(tmp_path / "clean" / STATE_FOLDER / "forget-fisher-00000-of-00001.safetensors")
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode != 0
    assert not (tmp_path / "clean" / LOCK_NAME).exists()


def test_a_folder_that_is_held_is_neither_pushed_nor_previewed_nor_taken_by_a_new_unlearner(tmp_path, uninterrupted):
    lock = uninterrupted / LOCK_NAME
    lock.write_text("17\nnode-7\n")
    try:
        with pytest.raises(BlockingIOError, match="process 17 on node-7"):  # noqa: SIM117
            with staged_model(uninterrupted, Needles(), Publication()):
                pass
        with pytest.raises(BlockingIOError, match="process 17 on node-7"):
            unlearner_for(uninterrupted)
    finally:
        lock.unlink()
    unlearner = unlearner_for(tmp_path / "clean")
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / LOCK_NAME).write_text("17\nnode-7\n")
    with pytest.raises(BlockingIOError, match="process 17 on node-7"):
        unlearner.preview()
