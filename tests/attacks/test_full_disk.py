# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, or fail in other ways, in every writer."""

import errno
import functools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from hf_deepclean import FisherDiagonal
from hf_deepclean.data.sources import load_splits
from hf_deepclean.fisher import kept_files
from hf_deepclean.publishing.commitment import ForgetCommitment
from hf_deepclean.publishing.folder import Publication, write_card
from hf_deepclean.publishing.plots import save_plots
from hf_deepclean.runtime.files import remove_folder, staged, temporary_folder
from tests import tiny
from tests.publishing.reports import report
from tests.tokenizers import byte_tokenizer

from .test_signals import unlearner_for


ROWS = Dataset.from_dict({"text": ["a row"] * 3})
PROMISE = "a full disk is one clear error, with nothing half-written"


def fisher():
    return FisherDiagonal({"a": torch.zeros(3000), "b": torch.zeros(3000)}, 3, "empirical", {}, "0")


def read_local_rows(folder):
    rows = folder.parent / "rows.jsonl"
    tempfile.tempdir = str(folder)
    load_splits(str(rows), {"train": "train"})


def save_all_in(folder, save):
    with staged(folder) as made:
        save(made / "content")
        os.replace(made / "content", folder / "content")


def move_away(folder):
    (folder / "state").mkdir()
    (folder / "state" / "file").write_text("")
    remove_folder(folder / "state")


def write_words(folder):
    tempfile.tempdir = str(folder)
    with temporary_folder() as made:
        (made / "words").write_text("x" * 20000)


WRITERS = {
    "report": lambda folder: report().save(folder / "report.json"),
    "commitment": lambda folder: ForgetCommitment.of(ROWS).save(folder / "commitment.json"),
    "plots": lambda folder: save_plots(report(), folder),
    "Fisher, one file": lambda folder: fisher().save(folder / "fisher.safetensors"),
    "Fisher, shards": lambda folder: fisher().save_pretrained(folder, max_shard_size="13KB"),
    "model": lambda folder: save_all_in(folder, tiny.vit(num_labels=10).save_pretrained),
    "tokenizer": lambda folder: save_all_in(folder, byte_tokenizer().save_pretrained),
    "torch": lambda folder: save_all_in(folder, functools.partial(torch.save, torch.zeros(9000))),
    "a cache of rows": read_local_rows,
    "words of a push": write_words,
    "card": lambda folder: write_card(folder, Publication()),
}


def limited(writer, folder, num_bytes, told):
    """Calls a writer. More than `num_bytes` in a file fail, in whatever language it is written."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if num_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    try:
        WRITERS[writer](folder)
    except Exception as error:
        told.send(f"{type(error).__name__} {error}")
    else:
        told.send(None)


def told_by(target, *arguments):
    """The error in a forked process, or `None`."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    told = receiver.recv()
    process.join()
    return told


def is_clear(told, folder):
    return told is not None and re.search(
        rf"Writing to {re.escape(str(folder))}.* failed \(.*[\d.]+ MiB are free\).*(Free|Raise|Make|put it back)", told
    )


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def prepared(writer, folder):
    folder.mkdir(parents=True)
    if writer == "a cache of rows":
        (folder.parent / "rows.jsonl").write_text('{"text": "a row of text"}\n' * 2000)
    if writer == "card":
        report().save(folder / "report.json")
    return contents(folder)


@pytest.mark.parametrize(
    "writers", [WRITERS.keys() - {"plots"}, pytest.param({"plots"}, marks=pytest.mark.slow)], ids=["most", "plots"]
)
def test_a_file_that_cannot_grow_is_a_clear_error_in_every_writer_with_nothing_half_written(tmp_path, attack, writers):
    went = {}
    for writer in sorted(writers):
        for num_bytes in (0, 1000):
            folder = tmp_path / f"{writer} {num_bytes}"
            before = prepared(writer, folder)
            told = told_by(limited, writer, folder, num_bytes)
            # A commitment is shorter than that.
            is_whole = told is None and (writer, num_bytes) == ("commitment", 1000)
            went[folder.name] = not (is_whole or is_clear(told, folder) and contents(folder) == before)
            went[folder.name] |= bool(list(folder.glob(".incomplete-*")))
    assert attack(PROMISE, went) == []


ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOENT)


def test_every_error_of_the_system_says_what_to_do_and_half_of_several_files_is_taken_back(
    tmp_path, monkeypatch, attack
):
    went = {}
    replace = os.replace
    for number in ERRORS:
        for call in (1, 2, 3):
            folder, calls = tmp_path / f"{errno.errorcode[number]} {call}", []
            folder.mkdir()

            def failing(*args, call=call, number=number, calls=calls):
                calls.append(None)
                if len(calls) == call:
                    raise OSError(number, os.strerror(number))
                return replace(*args)

            monkeypatch.setattr(kept_files.os, "replace", failing)
            try:
                fisher().save_pretrained(folder / "fisher", max_shard_size="13KB")
                told = None
            except OSError as error:
                told = str(error) if error.errno == number else None
            monkeypatch.undo()
            went[folder.name] = not is_clear(told, folder) or any(folder.iterdir())
    assert attack(PROMISE, went) == []


def test_a_folder_that_cannot_be_made_renamed_or_found_is_a_clear_error(tmp_path, monkeypatch, attack):
    (tmp_path / "gone").mkdir()

    def vanishes():
        with staged(tmp_path / "gone") as made:
            shutil.rmtree(tmp_path / "gone")
            (made / "file").write_text("")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    went = {}
    for name, call in {"vanishes": vanishes, "rename": lambda: move_away(tmp_path)}.items():
        with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
            if name == "rename":
                patch.setattr(tempfile, "mkdtemp", full)
            call()
        went[name] = not is_clear(str(caught.value), tmp_path)
    went["the folder stays"] = not (tmp_path / "state" / "file").exists()
    assert attack(PROMISE, went) == []


def test_an_error_is_explained_once(tmp_path):
    with pytest.raises(OSError) as caught, staged(tmp_path), staged(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value).count("Writing to") == 1


@contextmanager
def small_disk(folder, size):
    """Mounts a file system of some KiB, or skips the test."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def run_on_small_disk(folder, room, told):
    """A run on a disk with little room, which is made in the course of the run."""
    (folder.parent / "ballast").write_bytes(b"0" * 1024 * room)
    try:
        unlearner = unlearner_for(folder, random_mask_control=True, save_strategy="steps", save_steps=2)
        unlearner.unlearn(resume_from_checkpoint=True)
    except Exception as error:
        told.send(f"{type(error).__name__} {error}")
    else:
        told.send(None)


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up_at_any_write_says_so_and_completes_in_the_same_bits(
    tmp_path, attack, monkeypatch
):
    # Otherwise a disk without room for the whole run is refused before it.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    size, went, expected = 4096, {}, None
    for used in (0, *range(size - 16, size // 2, -192)):
        with small_disk(tmp_path / str(used), size) as disk:
            told = told_by(run_on_small_disk, disk / "clean", used)
            if used == 0:
                expected = (disk / "clean" / "model.safetensors").read_bytes()
                continue
            is_told = told is None or re.search("No space left.*(Free space|Choose another)", told)
            (disk / "ballast").unlink()
            is_clean = not list(disk.rglob(".incomplete-*"))
            again = None if told is None else told_by(run_on_small_disk, disk / "clean", 0)
            is_same = again is None and (disk / "clean" / "model.safetensors").read_bytes() == expected
            went[f"{size - used} KiB free"] = not (is_told and is_clean and is_same)
    assert attack(PROMISE, went) == []


def test_tensors_that_meet_a_full_disk_keep_the_number_of_the_error(tmp_path):
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(OSError, match="No space left") as caught, staged(tmp_path) as made:
        (made / "file").symlink_to(path)
        with (made / "file").open("w") as file:
            file.write("x" * 10)
    assert caught.value.errno == errno.ENOSPC
