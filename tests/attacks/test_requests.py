# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Calls that continue with other requests, data, settings or files than those that are there, and calls killed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback, ViTForImageClassification, default_data_collator

from hf_deepclean import UnlearningReport
from hf_deepclean.runtime.files import STATE_FOLDER
from tests.launched.launch import environment

from .requests_calls import (
    NUM_ROWS,
    REQUESTS,
    Heavy,
    call,
    call_and_be_killed,
    kept_fisher,
    model,
    result_of,
    rows,
    stop_before_the_last_result,
    without_heavy_work,
)


RECORD = "_requests.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def kept():
    return kept_fisher()


@pytest.fixture(scope="module")
def finished(folder, kept):
    """The output directories of calls that nothing stops, by their mode."""
    for mode in ("sequential", "batched"):
        call(folder / mode, mode=mode, resume=False, kept_fisher=kept)
    return {mode: folder / mode for mode in ("sequential", "batched")}


def own_collator(batch):
    return default_data_collator(batch)


class OwnCallback(TrainerCallback):
    pass


def other_rows(number, places):
    names = list(REQUESTS)
    return REQUESTS | {names[number]: places}


def other_weights():
    start = model()
    with torch.no_grad():
        start.classifier.bias[0] += 1e-6
    return start


def renamed(number):
    return {("Eve Adams" if place == number else name): rows for place, (name, rows) in enumerate(REQUESTS.items())}


# What a call is continued with. The functions are called late, since a run changes a model in place.
OTHER_CALLS = {
    "other rows": lambda: {"requests": other_rows(0, [5, 6])},
    "other rows of the last request": lambda: {"requests": other_rows(1, [17, 8, 10])},
    "a row fewer": lambda: {"requests": other_rows(1, [17, 8])},
    "a row more": lambda: {"requests": other_rows(0, [3, 4, 5])},
    "rows in another order": lambda: {"requests": other_rows(1, [8, 17, 9])},
    "rows moved to another request": lambda: {"requests": {"Ada Smith": [3, 4, 17], "Bob Jones": [8, 9]}},
    "another name": lambda: {"requests": renamed(0)},
    "another name of the last request": lambda: {"requests": renamed(1)},
    "a request removed": lambda: {"requests": {"Ada Smith": [3, 4]}},
    "the first request removed": lambda: {"requests": {"Bob Jones": [17, 8, 9]}},
    "requests in another order": lambda: {"requests": dict(reversed(REQUESTS.items()))},
    "a request put first": lambda: {"requests": {"Eve Adams": [20]} | REQUESTS},
    "other training data": lambda: {"dataset": rows(range(40, 40 + NUM_ROWS)), "kept_fisher": None},
    "one other retained row": lambda: {"dataset": rows([*range(NUM_ROWS - 1), 60]), "kept_fisher": None},
    "retained rows in another order": lambda: {"dataset": rows([*range(28), 29, 28])},
    "another learning rate": lambda: {"learning_rate": 1e-3},
    "another share to reset": lambda: {"reset_fraction": 0.3},
    "another rule": lambda: {"reset_fraction": None, "gamma": 2.0},
    "another seed": lambda: {"seed": 7},
    "other weights": lambda: {"start": model(1), "kept_fisher": None},
    "almost the same weights": lambda: {"start": other_weights(), "kept_fisher": None},
    "another activation": lambda: {"start": model(hidden_act="relu")},
    "no kept Fisher": lambda: {"kept_fisher": None},
    "unseen data": lambda: {"unseen": rows(range(40, 50))},
    "another collator": lambda: {"data_collator": own_collator},
    "another callback": lambda: {"callbacks": [OwnCallback()]},
    "the other mode": lambda: {"mode": None},
}


def is_accepted(folder, kept, mode, changes):
    arguments = {"mode": mode, "kept_fisher": kept} | changes
    if arguments["mode"] is None:
        arguments["mode"] = "sequential" if mode == "batched" else "batched"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        call(folder, **arguments)
    except (ValueError, FileExistsError) as refusal:
        assert "output_dir" in str(refusal) or "unchanged" in str(refusal)
        assert not any(name in str(refusal) for name in ("Ada", "Bob", "Eve"))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return False
    return True


@pytest.mark.parametrize("mode", ["sequential", "batched"])
def test_a_finished_call_is_continued_only_with_what_it_was_started_with(monkeypatch, attack, finished, kept, mode):
    without_heavy_work(monkeypatch)
    attempts = {name: is_accepted(finished[mode], kept, mode, changes()) for name, changes in OTHER_CALLS.items()}
    doubled = replace(kept, sums={name: 2 * total for name, total in kept.sums.items()})
    attempts["another kept Fisher"] = is_accepted(finished[mode], kept, mode, {"kept_fisher": doubled})
    assert attack(f"requests are continued as they were begun ({mode})", attempts) == []


def test_the_refusal_says_what_differs_by_the_number_of_the_request(finished, kept):
    for changes, message in (
        ({"requests": other_rows(1, [17, 8, 10])}, "request number 1: other rows than the run that is there"),
        ({"requests": renamed(0)}, "request number 0: another name than the run that is there"),
        ({"requests": {"Ada Smith": [3, 4]}}, "1 requests instead of 2"),
        ({"learning_rate": 1e-3}, "settings: learning_rate 0.01, now 0.001"),
    ):
        for mode, folder in finished.items():
            with pytest.raises(ValueError, match=message):
                call(folder, mode=mode, kept_fisher=kept, **changes)


def test_nothing_is_overwritten_where_nothing_is_continued(monkeypatch, attack, finished, kept):
    without_heavy_work(monkeypatch)
    attempts = {
        f"{mode} in the folder of {other}": is_accepted(finished[other], kept, mode, {"resume": False})
        for mode in finished
        for other in finished
    }
    assert attack("answers to requests are not overwritten", attempts) == []


def test_a_finished_call_gives_its_reports_again_without_any_work(monkeypatch, finished, kept):
    without_heavy_work(monkeypatch)
    for mode, folder in finished.items():
        before = result_of(folder)
        reports = call(folder, mode=mode, kept_fisher=kept)
        paths = sorted(folder.glob("request-*.json" if mode == "batched" else "*/report.json"))
        assert list(reports.values()) == [UnlearningReport.load(path) for path in paths] and len(paths) == 2
        assert list(reports) == list(REQUESTS)
        assert result_of(folder) == before


def test_what_is_missing_of_a_finished_call_is_written(monkeypatch, tmp_path, finished, kept):
    without_heavy_work(monkeypatch)
    folder = shutil.copytree(finished["batched"], tmp_path / "clean")
    (folder / "request-00001.json").unlink()
    call(folder, mode="batched", kept_fisher=kept)
    assert result_of(folder) == result_of(finished["batched"])


def test_a_request_that_becomes_known_later_continues_after_the_others(tmp_path, finished, kept):
    folder = shutil.copytree(finished["sequential"], tmp_path / "clean")
    # Only the model of the last run is needed.
    (folder / "00000" / "model.safetensors").unlink()
    reports = call(folder, mode="sequential", requests=REQUESTS | {"Eve Adams": [20]}, kept_fisher=kept)
    assert [report.num_fisher_examples["retain"] for report in reports.values()] == [28, 25, 24]
    start = ViTForImageClassification.from_pretrained(folder / "00001")
    alone = rows([row for row in range(NUM_ROWS) if row not in (3, 4, 17, 8, 9)])
    # The rows of the third request by their places in what the first two have left.
    call(tmp_path / "alone", mode="batched", requests={"Eve Adams": [15]}, dataset=alone, start=start)
    weights = [(one / "model.safetensors").read_bytes() for one in (folder / "00002", tmp_path / "alone")]
    assert weights[0] == weights[1]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def exchange(folder, first, second):
    (folder / first).rename(folder / "aside")
    (folder / second).rename(folder / first)
    (folder / "aside").rename(folder / second)


def without_record(folder, *names):
    (folder / RECORD).unlink()
    for name in names:
        (folder / name).unlink()


def copy_into(folder, source, name):
    shutil.copy(folder / source / name, folder / "00001" / name)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SEQUENTIAL_DAMAGES = {
    "a damaged start model": (lambda folder: flip(folder / "00001" / "model.safetensors"), {}),
    "the model of another run": (lambda folder: copy_into(folder, "00000", "model.safetensors"), {}),
    "another configuration of the model": (
        lambda folder: edit(folder / "00001" / "config.json", hidden_act="relu"),
        {},
    ),
    "the report of another run": (lambda folder: copy_into(folder, "00000", "report.json"), {}),
    "the commitment of another run": (lambda folder: copy_into(folder, "00000", "forget_commitment.json"), {}),
    "no commitment": (lambda folder: (folder / "00000" / "forget_commitment.json").unlink(), {}),
    "a damaged report": (lambda folder: flip(folder / "00000" / "report.json"), {}),
    "exchanged runs": (lambda folder: exchange(folder, "00000", "00001"), {}),
    "no first run": (lambda folder: shutil.rmtree(folder / "00000"), {}),
    "a run after a gap": (lambda folder: (folder / "00001").rename(folder / "00002"), {}),
    "a damaged record": (lambda folder: flip(folder / RECORD), {}),
    "an edited record": (lambda folder: edit(folder / RECORD, call={}), {}),
    "no record, other rows": (without_record, {"requests": other_rows(1, [17, 8, 10])}),
    "no record, a request removed": (without_record, {"requests": {"Ada Smith": [3, 4]}}),
    "no record, another learning rate": (without_record, {"learning_rate": 1e-3}),
    "no record and no commitment": (lambda folder: without_record(folder, "00000/forget_commitment.json"), {}),
}
BATCHED_DAMAGES = {
    "a damaged report": (lambda folder: flip(folder / "report.json"), {}),
    "a damaged record": (lambda folder: flip(folder / RECORD), {}),
    "no record": (without_record, {}),
    "no record, other rows": (without_record, {"requests": other_rows(0, [5, 6])}),
}


def test_damage_to_what_a_call_has_left_is_refused_before_any_work(monkeypatch, tmp_path, attack, finished, kept):
    without_heavy_work(monkeypatch)
    attempts = {}
    for mode, damages in (("sequential", SEQUENTIAL_DAMAGES), ("batched", BATCHED_DAMAGES)):
        for name, (damage, changes) in damages.items():
            folder = shutil.copytree(finished[mode], tmp_path / f"{mode} {name}")
            damage(folder)
            if "requests" not in changes:
                changes = changes | ({"requests": REQUESTS | {"Eve Adams": [20]}} if mode == "sequential" else {})
            try:
                attempts[f"{name} ({mode})"] = is_accepted(folder, kept, mode, changes)
            except Heavy:
                attempts[f"{name} ({mode})"] = True
    assert attack("damage to the answers to requests is seen", attempts) == []


def test_runs_of_an_earlier_version_are_used_with_one_warning(monkeypatch, tmp_path, finished, kept, caplog):
    without_heavy_work(monkeypatch)
    folder = shutil.copytree(finished["sequential"], tmp_path / "clean")
    (folder / RECORD).unlink()
    call(folder, mode="sequential", kept_fisher=kept)
    assert len([message for message in caplog.messages if "made by an earlier version" in message]) == 1
    assert json.loads((folder / RECORD).read_text())["requests"]


def ended(target, *args, **kwargs):
    process = multiprocessing.get_context("fork").Process(target=target, args=args, kwargs=kwargs)
    process.start()
    process.join()
    return process.exitcode


def finish_without_heavy_work(folder, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        without_heavy_work(patch)
        call(folder, **kwargs)


def kill_at(operations, tmp_path, monkeypatch, attack, finished, kept, mode):
    """Kills a call before each of the file operations from its last result on, and finishes it."""
    arguments = {"mode": mode, "kept_fisher": kept}
    stop_before_the_last_result(monkeypatch, tmp_path / "stopped", **arguments)
    expected, attempts = result_of(finished[mode]), {}
    for operation in operations:
        folder = shutil.copytree(tmp_path / "stopped", tmp_path / str(operation))
        status = ended(call_and_be_killed, folder, operation, **arguments)
        assert status in (0, -signal.SIGKILL)
        is_whole = ended(finish_without_heavy_work, folder, **arguments) == 0 and result_of(folder) == expected
        attempts[f"before operation {operation}"] = not is_whole or bool(list(folder.rglob(STATE_FOLDER)))
        shutil.rmtree(folder)
        if status == 0:
            break
    assert attack(f"a call that is killed near its end loses nothing ({mode})", attempts) == []
    return status


def test_a_call_that_is_killed_near_its_end_loses_nothing(tmp_path, monkeypatch, attack, finished, kept):
    kill_at([12], tmp_path, monkeypatch, attack, finished, kept, "batched")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sequential", "batched"])
def test_a_call_that_is_killed_at_any_file_operation_near_its_end_loses_nothing(
    tmp_path, monkeypatch, attack, finished, kept, mode
):
    assert kill_at(range(500), tmp_path, monkeypatch, attack, finished, kept, mode) == 0


@pytest.mark.slow
def test_two_processes_refuse_and_continue_alike(tmp_path):
    script = Path(__file__).with_name("requests_in_two_processes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    said = {(tmp_path / f"{index}.txt").read_text() for index in range(2)}
    assert len(said) == 1 and "request number 1: other rows" in said.pop()
    assert os.listdir(tmp_path / "sequential" / "00002")
