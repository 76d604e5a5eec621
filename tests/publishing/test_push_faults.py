# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pushes during which the Hub or the connection fails."""

import logging
import multiprocessing
import os
import re
import signal
import sys
import time

import pytest
from datasets import Dataset

from hf_deepclean import needles_of_dataset, push_folder_to_hub
from hf_deepclean.runtime.lock import LOCK_NAME
from tests.publishing.pushing import OLD, REPO, head_files, output, push


FAULTS = [{"status": 429}, {"status": 500}, {"drop": True}]
UPLOAD = [("POST", "/preupload/"), ("POST", "objects/batch"), ("PUT", "/lfs/"), ("POST", "/verify")]


@pytest.mark.parametrize(("method", "path"), UPLOAD)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_during_the_upload_is_overcome(runs, hub, api, method, path, fault):
    hub.fail(method, path, **fault, times=2)
    push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2
    assert sum(r.method == method and re.search(path, r.path) is not None for r in hub.requests) >= 3


@pytest.mark.parametrize(("method", "path"), [*UPLOAD, ("POST", "/commit/")])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_that_lasts_leaves_the_repository_as_it_was(runs, hub, api, method, path, fault):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    hub.fail(method, path, **fault, times=500)
    with pytest.raises(ConnectionError, match="No commit was made: 'main' is at"):
        push(runs["classifier"], api, exist_ok=True)
    assert (hub.repo(REPO).refs, hub.repo(REPO).commits) == (before.refs, before.commits)
    assert list(output(runs["classifier"]).glob(".incomplete*")) == []


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": True}], ids=["500", "drop"])
def test_a_commit_whose_answer_was_lost_is_found(runs, hub, api, fault):
    hub.fail("POST", "/commit/", **fault, after=True)
    result = push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2
    assert result.commit.oid == hub.commits(REPO)[0].id


@pytest.mark.parametrize("path", ["/api/repos/create", "/api/models/"])
def test_a_fault_before_the_upload_is_a_clear_error(runs, hub, api, path):
    hub.fail("POST" if "create" in path else "GET", path, status=500, times=50)
    with pytest.raises(ConnectionError, match="Nothing was committed to 'main'"):
        push(runs["classifier"], api)


def test_after_a_push_that_failed_the_empty_repository_takes_the_next_one(runs, hub, api):
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(ConnectionError, match="No commit was made"):
        push(runs["classifier"], api)
    assert head_files(hub) == set()
    push(runs["classifier"], api)
    assert head_files(hub) >= {"model.safetensors", "README.md"}


def test_somebody_elses_commit_in_between_is_not_overwritten(runs, hub, api, monkeypatch):
    hub.seed(REPO, {"notes.txt": b"mine"})
    create_commit = api.create_commit

    def interrupted(*args, **kwargs):
        hub.seed(REPO, {"notes.txt": b"theirs"})
        return create_commit(*args, **kwargs)

    monkeypatch.setattr(api, "create_commit", interrupted)
    with pytest.raises(ConnectionError, match="somebody else has pushed"):
        push(runs["classifier"], api, exist_ok=True)
    assert hub.files(REPO)["notes.txt"] == b"theirs"
    assert "model.safetensors" not in hub.files(REPO)


def started_push(hub, runs, api, request):
    """A push in a process of its own that waits for the answer to a request."""
    arguments = {"needles": needles_of_dataset(Dataset.from_dict({"text": ["nothing of the kind"]}))}
    arguments |= {"exist_ok": True, "api": api}
    # Before the fork: the first use makes the run.
    folder = output(runs["classifier"])

    def pushed():
        logging.getLogger("hf_deepclean").addHandler(logging.StreamHandler(sys.__stderr__))
        push_folder_to_hub(folder, REPO, **arguments)

    # Forked, because a new process would import all libraries again.
    process = multiprocessing.get_context("fork").Process(target=pushed)
    process.start()
    deadline = time.monotonic() + 60
    # The one request that is under way then is the delayed one.
    while not any(request in f"{found.method} {found.path}" for found in hub.requests):
        assert time.monotonic() < deadline and process.is_alive(), process.exitcode
        time.sleep(0.05)
    return process


def test_a_process_that_is_killed_during_the_push_leaves_no_partial_commit(runs, hub, api):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    hub.fail("PUT", "/lfs/", delay=60)
    process = started_push(hub, runs, api, "PUT")
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (hub.repo(REPO).refs, hub.repo(REPO).commits) == (before.refs, before.commits)
    folder = output(runs["classifier"])
    assert len(list(folder.glob(".incomplete*"))) == 1
    # It goes with the next push, even one that is refused.
    with pytest.raises(FileExistsError):
        push(runs["classifier"], api)
    assert list(folder.glob(".incomplete*")) == []


@pytest.mark.parametrize(
    ("request_path", "number", "status"), [("PUT /lfs/", signal.SIGTERM, 143), ("/commit/", signal.SIGINT, 1)]
)
def test_a_signal_during_the_push_ends_it_with_a_word_of_where_it_stands_and_leaves_nothing_behind(
    runs, hub, api, capfd, request_path, number, status
):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    hub.fail("PUT" if "PUT" in request_path else "POST", request_path.split()[-1], delay=2)
    process = started_push(hub, runs, api, request_path)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == status
    assert f"The push to {REPO} was interrupted." in capfd.readouterr().err
    now = hub.repo(REPO)
    assert now.commits == before.commits or "model.safetensors" in hub.files(REPO)
    assert list(output(runs["classifier"]).glob(".incomplete*")) == []
    assert not (output(runs["classifier"]) / LOCK_NAME).exists()
