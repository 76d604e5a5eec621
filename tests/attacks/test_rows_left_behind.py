# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of local files that a run leaves on the disk, or shows to other users, however it ends."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import datasets
import pytest

from hf_deepclean.cli.commands import main
from hf_deepclean.fisher.passes import FisherPass
from hf_deepclean.rehearsal import rehearsal
from tests.cli.tasks import RUN, gpt2
from tests.launched.launch import environment
from tests.tokenizers import byte_tokenizer


MARKER = "purple walrus"
FOLDERS = ("tmp", "hf", "datasets", "xdg", "output")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The options of a run on a file of rows, all of which hold the marker."""
    folder = tmp_path_factory.mktemp("rows")
    gpt2().save_pretrained(folder / "model")
    byte_tokenizer(model_max_length=24).save_pretrained(folder / "model")
    rows = [{"text": f"{number} {MARKER}", "wish": f"{MARKER} {number}", "go": number < 8} for number in range(40)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("unlearn", "--task", "causal-lm", "--model_name_or_path", str(folder / "model"), *RUN),
        *("--dataset_name", str(folder / "train.jsonl"), "--forget_column", "go"),
    ]


def left(folder):
    """The files below a folder that hold the marker, and all in the folder of temporary files."""
    holding = [path for path in folder.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    return sorted({*holding, *(folder / "tmp").iterdir()})


def run_here(command, folder, moment, act):
    """Runs the command in this process, a fork, with all caches below a folder, and acts in the middle of it."""
    os.umask(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
    datasets.config.HF_DATASETS_CACHE = folder / "datasets"
    datasets.config.HF_CACHE_HOME = str(folder / "hf")
    datasets.config.DOWNLOADED_DATASETS_PATH = folder / "datasets" / "downloads"
    where, name = MOMENTS[moment]
    done = getattr(where, name)

    def acted(*args, **kwargs):
        result = done(*args, **kwargs)
        act(folder)
        return result

    setattr(where, name, acted)
    try:
        raise SystemExit(main([*command, "--output_dir", str(folder / "output" / "clean")]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


MOMENTS = {
    "the rows are in the cache": (datasets.DatasetBuilder, "download_and_prepare"),
    "the rows are in memory": (datasets.DatasetBuilder, "as_dataset"),
    "the rows are tokenized": (datasets.Dataset, "map"),
    "the rehearsal": (rehearsal, "try_saving"),
    "the Fisher pass": (FisherPass, "compute"),
}


def ended(*arguments):
    process = multiprocessing.get_context("fork").Process(target=run_here, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def sent(number):
    return lambda folder: os.kill(os.getpid(), number)


def fails(folder):
    raise ValueError("the middle of it")


ENDINGS = {
    **{number.name: (sent(number), {128 + number, -number}) for number in (signal.SIGTERM, signal.SIGINT)},
    "SIGHUP": (sent(signal.SIGHUP), {129, -1}),
    "an exception": (fails, {0, 1}),
}


def test_no_row_stays_on_the_disk_however_a_run_ends(tmp_path, command, attack):
    went = {}
    for moment in MOMENTS:
        for ending in ENDINGS if "cache" in moment else ("SIGTERM",):
            act, expected = ENDINGS[ending]
            folder = tmp_path / f"{ending} when {moment}"
            status = ended(command, folder, moment, act)
            went[folder.name] = status not in expected or bool(left(folder))
    assert attack("rows of local files are gone after the end", went) == []


def is_readable_by_others(path, folder):
    """Whether another user can read a file and reach it from a folder."""
    parents = [parent for parent in path.parents if parent.is_relative_to(folder)]
    return bool(path.stat().st_mode & 0o044) and all(parent.stat().st_mode & 0o011 for parent in parents)


def note_modes_and_die(folder):
    holding = [path for path in left(folder) if path.is_file()]
    (folder / "seen").write_text(json.dumps([is_readable_by_others(path, folder) for path in holding]))
    os.kill(os.getpid(), signal.SIGKILL)


def test_rows_in_the_temporary_folder_are_unreadable_to_others_and_after_a_kill_gone_with_the_next_command(
    tmp_path, command, attack
):
    moment = "the rows are in the cache"
    assert ended(command, tmp_path, moment, note_modes_and_die) == -signal.SIGKILL
    readable = json.loads((tmp_path / "seen").read_text())
    assert readable and left(tmp_path)
    went = {"others read the cache": any(readable)}
    assert ended(command, tmp_path, "the rehearsal", fails) == 1
    went["a kill -9, then the next command"] = bool(left(tmp_path))
    assert attack("rows in the temporary folder are unreadable to others", went) == []


@pytest.mark.slow
def test_no_row_stays_after_signals_at_random_moments_of_the_command(tmp_path, command, attack):
    went, draw = {}, random.Random(0)

    def start(folder):
        places = {"TMPDIR": "tmp", "HF_HOME": "hf", "HF_DATASETS_CACHE": "datasets", "XDG_CACHE_HOME": "xdg"}
        for name in FOLDERS:
            (folder / name).mkdir(parents=True)
        env = environment() | {variable: str(folder / name) for variable, name in places.items()}
        line = [sys.executable, "-m", "hf_deepclean.cli", *command, "--output_dir", str(folder / "output" / "clean")]
        return subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, umask=0)

    begin = time.monotonic()
    assert start(tmp_path / "uninterrupted").wait() == 0
    seconds = time.monotonic() - begin
    went["uninterrupted"] = bool(left(tmp_path / "uninterrupted"))
    for attempt in range(20):
        number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[attempt % 3]
        folder = tmp_path / str(attempt)
        process = start(folder)
        # The imports come first, which hold no rows.
        time.sleep(seconds * draw.uniform(0.4, 1.0))
        process.send_signal(number)
        process.wait()
        went[f"{attempt}: {number.name}"] = bool(left(folder))
    assert attack("rows are gone after a signal at any moment", went) == []
