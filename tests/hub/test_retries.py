# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of the local Hub, and after which of them the client tries again."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx

from tests.hub.use import CARD, REPO, WEIGHTS, add, commit, received


# huggingface_hub sends files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Failures after which a client may retry.
TRANSIENT = [*({"status": status} for status in (408, 429, 500, 502, 503, 504)), {"drop": True}]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/preupload/"), ("POST", "/objects/batch"), ("PUT", "/lfs/"), ("POST", "/objects/verify")],
)
def test_the_client_tries_again_to_upload(old, tmp_path, method, path):
    for fault in TRANSIENT:
        old.requests.clear()
        old.fail(method, path, **fault, times=2)
        (tmp_path / "file").write_bytes(os.urandom(3000))
        commit(old, [CommitOperationAdd("model.safetensors", tmp_path / "file")])
        assert received(old, method, path) == 3
        assert old.files(REPO)["model.safetensors"] == (tmp_path / "file").read_bytes()


def test_the_client_gives_up_after_the_sixth_failure_and_nothing_has_changed(old):
    before = old.commits(REPO)
    old.fail("PUT", "/lfs/", status=503, times=6)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'model.safetensors'"):
        commit(old, add({"model.safetensors": os.urandom(900)}))
    assert received(old, "PUT", "/lfs/") == 6
    assert old.commits(REPO) == before


@pytest.mark.parametrize(
    ("method", "path", "use"),
    [
        ("GET", "/tree/", lambda api: list(api.list_repo_tree(REPO))),
        ("GET", "/commits/", lambda api: api.list_repo_commits(REPO)),
        ("GET", "/lfs-files", lambda api: list(api.list_lfs_files(REPO))),
    ],
)
def test_the_client_tries_again_to_list(old, method, path, use):
    for fault in TRANSIENT:
        old.requests.clear()
        old.fail(method, path, **fault)
        assert use(HfApi(token=old.token))
        assert received(old, method, path) == 2


@pytest.mark.parametrize(
    ("method", "path", "use"),
    [
        ("GET", "/whoami", lambda api: api.whoami()),
        ("POST", "/repos/create", lambda api: api.create_repo("new")),
        ("DELETE", "/repos/delete", lambda api: api.delete_repo(REPO)),
        ("POST", "/validate-yaml", lambda api: ModelCard(CARD.decode()).validate()),
        ("POST", "/commit/", lambda api: api.create_commit(REPO, add({"a": b"a"}), commit_message="A change")),
        ("GET", f"/api/models/{REPO}$", lambda api: api.model_info(REPO)),
        ("POST", "/paths-info/", lambda api: api.get_paths_info(REPO, "README.md")),
        ("GET", "/refs", lambda api: api.list_repo_refs(REPO)),
        ("POST", "/super-squash/", lambda api: api.super_squash_history(REPO)),
        ("POST", "/lfs-files/", lambda api: api.permanently_delete_lfs_files(REPO, api.list_lfs_files(REPO))),
        ("PUT", "/settings", lambda api: api.update_repo_settings(REPO, private=False)),
        ("POST", "/branch/", lambda api: api.create_branch(REPO, branch="new")),
        ("POST", "/tag/", lambda api: api.create_tag(REPO, tag="new")),
    ],
)
def test_the_client_does_not_try_again_to_change_or_to_ask(old, method, path, use):
    before = old.repo(REPO), old.files(REPO)
    for fault in TRANSIENT:
        old.requests.clear()
        old.fail(method, path, **fault)
        with pytest.raises((HfHubHTTPError, httpx.RemoteProtocolError)):
            use(HfApi(token=old.token))
        assert received(old, method, path) == 1
        assert (old.repo(REPO), old.files(REPO)) == before


def test_the_client_tries_again_to_download_after_some_failures_only(old):
    def downloaded(method, **fault):
        old.fail(method, "/resolve/", **fault)
        with tempfile.TemporaryDirectory() as folder:
            path = hf_hub_download(REPO, "model.safetensors", token=old.token, cache_dir=folder)
            return Path(path).read_bytes()

    for method, fault in [
        *[("HEAD", {"status": status}) for status in (408, 429, 500, 502, 503, 504)],
        *[("GET", fault) for fault in ({"status": 408}, {"status": 429}, {"drop": True})],
    ]:
        assert downloaded(method, **fault) == WEIGHTS
    for method, fault in [("HEAD", {"drop": True}), *[("GET", {"status": status}) for status in (500, 502, 503, 504)]]:
        with pytest.raises((HfHubHTTPError, httpx.RemoteProtocolError)):
            downloaded(method, **fault)
    # The commit of a branch is not asked for again either.
    old.fail("GET", "/revision/", status=503)
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download(REPO, token=old.token)


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 500}])
def test_a_commit_of_which_the_answer_is_lost_is_there_once(old, fault):
    old.fail("POST", "/commit/", **fault, after=True)
    with pytest.raises((HfHubHTTPError, httpx.RemoteProtocolError)):
        commit(old, add({"new.txt": b"new"}))
    assert [entry.title for entry in old.commits(REPO)] == ["A change", "Upload files", "initial commit"]
    assert old.files(REPO)["new.txt"] == b"new"
    # The same commit again returns the commit that exists.
    assert commit(old, add({"new.txt": b"new"})).oid == old.commits(REPO)[0].id


def test_an_answer_that_comes_late_comes(old):
    old.fail("GET", "/refs", delay=0.2)
    begun = time.monotonic()
    assert HfApi(token=old.token).list_repo_refs(REPO).branches
    assert time.monotonic() - begun >= 0.2


def test_a_fault_that_would_do_nothing_or_two_things_is_refused(hub):
    for fault in ({}, {"after": True}, {"status": 500, "drop": True}, {"delay": 1.0, "after": True}):
        with pytest.raises(ValueError, match="fails nothing|fails by one of"):
            hub.fail("GET", "", **fault)
