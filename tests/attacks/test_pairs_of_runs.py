# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two processes that want one folder at random moments: started afresh, resumed, or sent back to a queue."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from functools import partial

import pytest
import torch

from hf_deepclean import answer_requests
from hf_deepclean.runtime.files import STATE_FOLDER
from hf_deepclean.runtime.interruption import Interruption
from hf_deepclean.runtime.lock import LOCK_NAME
from hf_deepclean.state.directory import check_output_directory
from hf_deepclean.state.run_state import RunState
from tests import tiny
from tests.launched.test_interruption import SETTINGS, contents, ended, started, unlearner_for
from tests.launched.worlds import config


PROMISE = "of two runs in one folder one is refused within a second, and one ends in the bits of a single run"
SHORT = {"random_mask_control": False, "gamma_sweep": None, "relearning_steps": 0}
REFUSED, FAILED = 3, 4


def watched(folder, step, call):
    """Calls a function, and writes down the error and the seconds of work until it, however busy the machine is."""
    start = time.process_time()
    try:
        return call()
    except BaseException as error:
        record = {"step": step, "seconds": time.process_time() - start, "error": f"{type(error).__name__} {error}"}
        folder.with_name(f"{folder.name}-{os.getpid()}").write_text(json.dumps(record))
        if isinstance(error, Exception):
            raise SystemExit(REFUSED if isinstance(error, (BlockingIOError, FileExistsError)) else FAILED) from None
        raise


def run(folder, resume, **kwargs):
    unlearner = watched(folder, "constructor", lambda: unlearner_for(folder, **(SHORT | kwargs)))
    watched(folder, "unlearn", lambda: unlearner.unlearn(resume_from_checkpoint=resume))


def answer(folder, resume):
    """Two requests at once."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = tiny.digits()
    watched(
        folder,
        "requests",
        lambda: answer_requests(
            tiny.randomized(tiny.vit(num_labels=10), torch.float32),
            config(folder, **(SETTINGS | SHORT)),
            train_dataset=digits.select(range(90)),
            requests={"a": range(10), "b": range(10, 20)},
            resume_from_checkpoint=resume,
            unseen_dataset=digits.select(range(90, 110)),
        ),
    )


def contents_of_requests(folder):
    reports = [json.loads((folder / f"request-{number:05d}.json").read_text()) for number in range(2)]
    for report in reports:
        del report["seconds"], report["digest"]
    return contents(folder) | {"requests": reports}


def why_refused(folder, process):
    """What is wrong about the end of a process that was refused, or nothing."""
    record = json.loads(folder.with_name(f"{folder.name}-{process.pid}").read_text())
    named = "is held by another run" in record["error"] or "already holds" in record["error"]
    # A call for several requests makes its unlearner first.
    is_quick = record["seconds"] < 1 or record["step"] == "requests"
    return "" if named and is_quick else f"{record}"


def pair(target, read, folder, expected, delay, resume):
    """A second run while the first one is under way, or has just begun or ended."""
    first = started(target, folder, resume=None)
    time.sleep(delay)
    second = started(target, folder, resume=resume)
    first.join()
    second.join()
    refused = [process for process in (first, second) if process.exitcode == REFUSED]
    # A call for several requests that is continued after its end finds nothing to do, and is not refused.
    if first.exitcode + second.exitcode != REFUSED and not (target is answer and resume and not refused):
        return f"exit codes {first.exitcode}, {second.exitcode}"
    return "".join(why_refused(folder, process) for process in refused) or differences(read, folder, expected)


def requeue(target, read, folder, expected, delay, number, pause):
    """The first run is killed or asked to stop, and the second one starts a little after that, or before."""
    first = started(target, folder, resume=None)
    time.sleep(delay)
    second = started(target, folder, resume=True) if pause < 0 else None
    time.sleep(max(-pause, 0))
    with suppress(ProcessLookupError):
        os.kill(first.pid, number)
    time.sleep(max(pause, 0))
    second = second or started(target, folder, resume=True)
    second.join()
    first.join()
    if second.exitcode == REFUSED and (why := why_refused(folder, second)):
        return why
    # It may have been refused because the first one was alive, or had ended before the signal.
    if 0 not in (first.exitcode, second.exitcode) and (status := ended(target, folder, resume=True)):
        return f"exit codes {first.exitcode}, {second.exitcode}, {status}"
    return differences(read, folder, expected)


def differences(read, folder, expected):
    left = [name for name in (STATE_FOLDER, LOCK_NAME) if (folder / name).exists()]
    return f"{left} is left" if left else "" if read(folder) == expected else "other bits"


def single(target, read, folder):
    """The result of a run that nothing disturbs, and its seconds."""
    start = time.monotonic()
    assert ended(target, folder, resume=None) == 0
    return read(folder), time.monotonic() - start


def pairs(target, read, tmp_path, number, seed):
    """Pairs of every kind in turn, by their names; the value is what is wrong, or nothing."""
    expected, seconds = single(target, read, tmp_path / "single")
    draw, found = random.Random(seed), {}
    for place in range(number):
        folder, delay = tmp_path / str(place) / "clean", seconds * 1.2 * draw.random()
        kind = ("started", "resumed", "killed and requeued", "stopped and requeued")[place % 4]
        if place % 4 < 2:
            found[f"{kind} after {delay:.2f} s"] = pair(target, read, folder, expected, delay, place % 4 == 1 or None)
        else:
            signal_number, pause = (signal.SIGKILL, signal.SIGTERM)[place % 2], draw.uniform(-0.3, 0.3)
            found[f"{kind} after {delay:.2f} {pause:+.2f} s"] = requeue(
                target, read, folder, expected, delay, signal_number, pause
            )
    return found


def failures(found):
    return {f"{name}: {why}" if why else name: bool(why) for name, why in found.items()}


def begin_and_end(folder, number):
    """What runs do with an output directory before and after their work, again and again."""
    draw = random.Random(number)
    for _ in range(100):
        time.sleep(draw.random() / 1000)
        watched(folder, number, lambda: begin(folder))


def begin(folder):
    try:
        check_output_directory(folder, resuming=True)
        state = RunState(str(folder), 0, Interruption())
        with state.held(resuming=False):
            pass
    except BlockingIOError:
        pass


def test_runs_that_begin_and_end_at_once_are_refused_for_no_other_reason(tmp_path, attack):
    folder = tmp_path / "deep" / "clean"
    processes = [started(begin_and_end, folder, number) for number in range(3)]
    for process in processes:
        process.join()
    wrong = {path.read_text(): True for path in (tmp_path / "deep").glob("clean-*")}
    assert attack(PROMISE, {f"process {number}": False for number in range(3)} | wrong) == []
    assert [process.exitcode for process in processes] == [0, 0, 0] and not folder.exists()


@pytest.mark.slow
def test_of_forty_six_pairs_of_runs_one_each_ends_in_the_bits_of_a_single_run(tmp_path, attack):
    whole = partial(run, **{name: SETTINGS[name] for name in SHORT})
    assert attack(PROMISE, failures(pairs(whole, contents, tmp_path, 46, seed=1))) == []


@pytest.mark.slow
def test_of_pairs_of_calls_for_several_requests_one_each_ends_in_the_bits_of_a_single_call(tmp_path, attack):
    assert attack(PROMISE, failures(pairs(answer, contents_of_requests, tmp_path, 20, seed=2))) == []
