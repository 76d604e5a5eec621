# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import re
import signal
import socket
import time

import psutil
import pytest

from hf_deepclean.runtime.lock import LOCK_NAME, FolderLock, check_not_held, holder_of


def hold(folder, is_held):
    with FolderLock(folder):
        is_held.set()
        time.sleep(60)


@pytest.fixture
def process(tmp_path):
    """Another process, which holds the folder."""
    context = multiprocessing.get_context("fork")
    is_held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, is_held))
    process.start()
    assert is_held.wait(30)
    yield process
    process.kill()
    process.join()


def test_a_folder_that_another_process_holds_is_refused_by_who_holds_it_and_since_when(tmp_path, process):
    who = rf"held by another run: process {process.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d "
    start = time.monotonic()
    for refused in (FolderLock(tmp_path).acquire, lambda: check_not_held(tmp_path)):
        with pytest.raises(BlockingIOError, match=rf"{who}.* stop it \(`kill {process.pid}`\)"):
            refused()
    assert time.monotonic() - start < 1


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, process):
    process.kill()
    process.join()
    assert holder_of(tmp_path) is None and (tmp_path / LOCK_NAME).exists()
    check_not_held(tmp_path)
    with FolderLock(tmp_path):
        assert holder_of(tmp_path).process == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


def test_the_lock_of_a_killed_process_that_its_parent_has_not_asked_for_is_taken_over(tmp_path, process):
    os.kill(process.pid, signal.SIGKILL)
    # Waits for its end, and leaves it as it is.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    check_not_held(tmp_path)
    with FolderLock(tmp_path):
        assert holder_of(tmp_path).process == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", ["1\n", ""], ids=["with its start", "without its start"])
def test_the_lock_of_a_process_whose_number_another_process_has_now_is_taken_over(tmp_path, start):
    lock = tmp_path / LOCK_NAME
    lock.write_text(f"{os.getppid()}\n{socket.gethostname()}\n{start}")
    os.utime(lock, (1, 1))
    assert holder_of(tmp_path) is None
    with FolderLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(os.devnull)])
def test_what_is_no_file_in_place_of_a_lock_is_refused_and_nothing_waits_for_it(tmp_path, make):
    make(tmp_path / LOCK_NAME)
    assert holder_of(tmp_path) is None
    with pytest.raises(BlockingIOError, match=f"a process that is not named.* delete .*{LOCK_NAME} if no run"):
        FolderLock(tmp_path).acquire()


def test_the_lock_of_another_container_of_the_same_name_is_refused(tmp_path):
    host = f"{socket.gethostname()}?pidns-f0000001"
    (tmp_path / LOCK_NAME).write_text(f"4000000\n{host}\n1\n")
    for refused in (FolderLock(tmp_path).acquire, lambda: check_not_held(tmp_path)):
        with pytest.raises(BlockingIOError, match="process 4000000 on .* delete .* if it is dead"):
            refused()


def test_a_lock_of_another_machine_is_refused_with_what_to_delete(tmp_path):
    lock = tmp_path / LOCK_NAME
    lock.write_text("17\nnode-7\n")
    with pytest.raises(BlockingIOError, match=rf"process 17 on node-7, since .* delete {lock} if it is dead"):
        FolderLock(tmp_path).acquire()
    lock.unlink()
    with FolderLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", f"-5\n{socket.gethostname()}\n"])
def test_a_lock_that_names_nobody_is_refused_with_what_to_delete(tmp_path, content):
    (tmp_path / LOCK_NAME).write_text(content)
    with pytest.raises(BlockingIOError, match=f"that is not named.* delete {tmp_path / LOCK_NAME} if no run"):
        FolderLock(tmp_path).acquire()


def test_an_error_in_the_block_gives_the_folder_free(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path / "new"):
        raise KeyError
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be_made_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written .*Choose another `output_dir`, or make it writable"):
        FolderLock(tmp_path / "file" / "clean").acquire()
