# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import base64
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import transformers.utils.hub
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_api,
    hf_hub_download,
    hf_hub_url,
    model_info,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, httpx
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from tests.hub import repositories
from tests.hub.client import client_of
from tests.hub.server import PAGE_SIZE, LocalHub
from tests.tiny import bert, image_batch, randomized, text_batch, vit


REPO = "tester/model"
CARD = b"---\nlicense: mit\ntags:\n- test\n---\n# A card\n"
WEIGHTS = bytes(range(256)) * 8
# Failures that a client may try again after.
TRANSIENT = [*({"status": status} for status in (408, 429, 500, 502, 503, 504)), {"drop": True}]

# The client sends files in a way that its HTTP library no longer recommends.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def add(files):
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def commit(hub, operations, **kwargs):
    return HfApi(token=hub.token).create_commit(REPO, operations, commit_message="A change", **kwargs)


def logits(model, batch):
    with torch.no_grad():
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


def received(hub, method, path):
    return sum(request.method == method and bool(re.search(path, request.path)) for request in hub.requests)


@pytest.fixture
def old(hub):
    """A Hub with a private repository of one commit on top of the first."""
    hub.seed(REPO, {"README.md": CARD, "model.safetensors": WEIGHTS, "logs/old.txt": b"old"})
    return hub


def test_a_new_repository_is_as_private_as_it_was_asked_for_and_is_made_once(hub):
    api = HfApi(token=hub.token)
    assert api.create_repo("model", private=True) == f"{hub.endpoint}/{REPO}"
    api.create_repo("other/model", private=False)
    assert hub.repo(REPO).private and not hub.repo("other/model").private
    assert [commit.title for commit in hub.commits(REPO)] == ["initial commit"]
    assert hub.files(REPO).keys() == {".gitattributes"}
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo(REPO)
    api.delete_repo(REPO)
    assert hub.repo(REPO) is None
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(REPO)


def test_a_commit_is_one_whatever_it_holds_and_what_is_downloaded_is_what_was_uploaded(old, tmp_path):
    config, weights = b'{"a": "\xc3\xa9"}', os.urandom(3000)
    operations = [*add({"config.json": config, "model.safetensors": weights}), CommitOperationDelete("logs/")]
    head = commit(old, operations).oid
    assert [(entry.id, entry.title) for entry in old.commits(REPO)][0] == (head, "A change")
    assert len(old.commits(REPO)) == 3
    folder = snapshot_download(REPO, token=old.token, cache_dir=tmp_path)
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}
    expected = {"README.md": CARD, "config.json": config, "model.safetensors": weights}
    assert {path: content for path, content in there.items() if path != ".gitattributes"} == expected
    assert old.files(REPO) == there
    lfs = {path for path, file in old.commits(REPO)[0].files.items() if file.lfs}
    assert lfs == {"model.safetensors"}


def test_files_that_have_not_changed_make_no_commit(old):
    head = old.commits(REPO)[0].id
    assert commit(old, add({"README.md": CARD, "model.safetensors": WEIGHTS})).oid == head
    assert received(old, "POST", "/commit/") == received(old, "PUT", "/lfs/") == 0
    assert old.commits(REPO)[0].id == head


def test_a_file_is_in_lfs_by_its_name_its_size_or_as_it_is_no_text(old, monkeypatch):
    monkeypatch.setattr(repositories, "MAX_REGULAR_SIZE", 3000)
    text = ("a" + "\u00e9" * 600).encode()
    commit(old, add({"a.txt": text, "b.safetensors": text, "c.png": b"\x89PNG", "d.dat": b"\0", "e.txt": 3 * text}))
    regular = {path for path, file in old.commits(REPO)[0].files.items() if not file.lfs}
    assert regular == {".gitattributes", "README.md", "logs/old.txt", "a.txt"}
    commit(old, add({".gitattributes": b"*.txt filter=lfs diff=lfs merge=lfs -text\n"}))
    commit(old, add({"f.txt": b"f", "f.bin": b"f"}))
    files = old.commits(REPO)[0].files
    assert files["f.txt"].lfs and not files["f.bin"].lfs and not files["a.txt"].lfs


def test_an_object_that_is_there_is_not_uploaded_again(old):
    commit(old, add({"copy.safetensors": WEIGHTS}))
    assert received(old, "PUT", "/lfs/") == 0
    assert old.files(REPO)["copy.safetensors"] == WEIGHTS


@pytest.mark.parametrize(
    ("tiny", "batch", "auto"),
    [
        (bert, text_batch(), AutoModelForSequenceClassification),
        (vit, image_batch(dtype=torch.float32), AutoModelForImageClassification),
    ],
)
@pytest.mark.parametrize("max_shard_size", ["50GB", "8KB"])
def test_a_pulled_model_computes_what_the_pushed_one_does(hub, tmp_path, tiny, batch, auto, max_shard_size):
    model = randomized(tiny(), torch.float32)
    model.push_to_hub(REPO, private=True, token=hub.token, max_shard_size=max_shard_size)
    shards = [path for path in hub.files(REPO) if path.endswith(".safetensors")]
    assert (len(shards) == 1) == (max_shard_size == "50GB")
    pulled = auto.from_pretrained(REPO, token=hub.token, cache_dir=tmp_path)
    assert torch.equal(logits(pulled.eval(), batch), logits(model, batch))


def test_a_pulled_adapter_computes_what_the_pushed_one_does(hub, tmp_path):
    base, batch = randomized(bert(), torch.float32), text_batch()
    base.push_to_hub("tester/base", token=hub.token)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    model = get_peft_model(base, config).eval()
    model.push_to_hub(REPO, private=True, token=hub.token)
    assert "adapter_model.safetensors" in hub.files(REPO)
    fresh = AutoModelForSequenceClassification.from_pretrained("tester/base", token=hub.token, cache_dir=tmp_path)
    pulled = PeftModel.from_pretrained(fresh, REPO, token=hub.token, cache_dir=tmp_path).eval()
    assert torch.equal(logits(pulled, batch), logits(model, batch))


def test_a_pull_request_leaves_main_as_it_was(old):
    before = old.commits(REPO)
    requests = [commit(old, add({"model.safetensors": os.urandom(900)}), create_pr=True) for _ in range(2)]
    assert [request.pr_revision for request in requests] == ["refs/pr/1", "refs/pr/2"]
    assert old.commits(REPO) == before
    assert old.commits(REPO, "refs/pr/2") == [old.commits(REPO, requests[1].oid)[0], *before]
    refs = HfApi(token=old.token).list_repo_refs(REPO, include_pull_requests=True)
    assert [ref.target_commit for ref in refs.pull_requests] == [request.oid for request in requests]


def test_a_commit_on_top_of_another_parent_is_refused_and_changes_nothing(old):
    api, base = HfApi(token=old.token), old.commits(REPO)[0].id
    newer = api.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id=REPO, parent_commit=base).oid
    before = old.commits(REPO), old.files(REPO)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as raised:
        commit(old, add({"late.txt": b"late"}), parent_commit=base)
    assert raised.value.response.status_code == 412
    assert (old.commits(REPO), old.files(REPO)) == before
    # A pull request begins at the commit that is given.
    request = commit(old, add({"a.txt": b"a"}), parent_commit=base, create_pr=True)
    assert old.commits(REPO, request.oid)[0].parent == base
    assert commit(old, add({"late.txt": b"late"}), parent_commit=newer).oid == old.commits(REPO)[0].id


def test_commits_at_the_same_time_follow_one_another(old):
    def one(number):
        commit(old, add({f"{number}.txt": str(number).encode()}))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"{number}.txt" for number in range(8)} < old.files(REPO).keys()
    assert len(old.commits(REPO)) == 2 + 8


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
    # Neither is asked again which commit a branch is at.
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
    # Who then asks for the same again is told of the commit that is there.
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


def test_what_is_private_is_read_and_anything_is_written_only_with_the_token(old):
    old.seed("tester/public", {"README.md": CARD}, private=False)
    without, wrong = HfApi(token=False), HfApi(token="hf_another")
    for api in (without, wrong):
        for read in (api.model_info, api.list_repo_refs, api.list_repo_commits, api.list_repo_files):
            with pytest.raises(HfHubHTTPError) as raised:
                read(REPO)
            assert raised.value.response.status_code == 401
        with pytest.raises(HfHubHTTPError):
            api.hf_hub_download(REPO, "README.md")
        with pytest.raises(HfHubHTTPError):
            api.create_commit("tester/public", add({"a": b"a"}), commit_message="A change")
        with pytest.raises(HfHubHTTPError):
            api.create_repo("new")
    # Whether it is private or not there at all is not said.
    for repo_id in (REPO, "tester/nothing"):
        with pytest.raises(RepositoryNotFoundError):
            without.model_info(repo_id)
    assert Path(without.hf_hub_download("tester/public", "README.md")).read_bytes() == CARD
    assert len(old.commits("tester/public")) == 2 and old.repo("tester/new") is None
    HfApi(token=old.token).update_repo_settings(REPO, private=False, gated="manual")
    assert without.model_info(REPO).gated == "manual"
    with pytest.raises(GatedRepoError):
        without.hf_hub_download(REPO, "README.md")


def test_what_is_not_there_is_an_error_of_its_own(old):
    api = HfApi(token=old.token)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("tester/nothing")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("nothing")
    for use in (api.model_info, api.list_repo_commits, api.list_repo_files):
        with pytest.raises(RevisionNotFoundError):
            use(REPO, revision="nothing")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "nothing.txt")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "nothing"))
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        commit(old, [CommitOperationDelete("nothing.txt")])
    assert not api.file_exists(REPO, "nothing.txt") and api.file_exists(REPO, "README.md")
    assert not api.repo_exists("tester/nothing") and not api.revision_exists(REPO, "nothing")


def test_a_long_history_is_listed_as_a_whole_newest_first(old):
    for number in range(PAGE_SIZE + 1):
        old.seed(REPO, {"number.txt": str(number).encode()}, title=f"commit {number}")
    listed = HfApi(token=old.token).list_repo_commits(REPO)
    assert [(entry.commit_id, entry.title) for entry in listed] == [(c.id, c.title) for c in old.commits(REPO)]
    assert [entry.parent for entry in old.commits(REPO)] == [*[entry.commit_id for entry in listed[1:]], None]
    assert received(old, "GET", "/commits/") == 2
    assert len({entry.commit_id for entry in listed}) == PAGE_SIZE + 3


def test_a_tree_tells_what_each_file_is_and_which_commit_changed_it_last(old):
    commit(old, add({"sub/deep/model.bin": WEIGHTS}))
    api = HfApi(token=old.token)
    entries = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True, expand=True)}
    head, before, first = old.commits(REPO)
    assert entries["sub"].last_commit.oid == entries["sub/deep/model.bin"].last_commit.oid == head.id
    assert entries["README.md"].last_commit.oid == before.id and entries[".gitattributes"].last_commit.oid == first.id
    assert entries["model.safetensors"].lfs.sha256 == head.files["sub/deep/model.bin"].sha256
    assert entries["model.safetensors"].size == len(WEIGHTS) and entries["README.md"].lfs is None
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub")] == ["sub/deep"]
    assert [entry.path for entry in api.get_paths_info(REPO, ["sub", "nothing"])] == ["sub"]
    siblings = api.model_info(REPO, files_metadata=True).siblings
    assert {entry.rfilename: entry.size for entry in siblings} == {p: len(c) for p, c in old.files(REPO).items()}
    assert api.model_info(REPO).card_data.license == "mit"


def test_branches_and_tags_are_revisions_until_they_are_deleted(old):
    api, base = HfApi(token=old.token), old.commits(REPO)[0].id
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="feature/a", revision="v1")
    newer = commit(old, add({"a": b"a"}), revision="feature/a").oid
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": base, "feature/a": newer}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": base}
    with pytest.raises(HfHubHTTPError, match="on top of a branch"):
        commit(old, add({"a": b"a"}), revision="v1")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_branch(REPO, branch="feature/a")
    with pytest.raises(HfHubHTTPError, match="main"):
        api.delete_branch(REPO, branch="main")
    api.delete_branch(REPO, branch="feature/a")
    api.delete_tag(REPO, tag="v1")
    for revision in ("feature/a", "v1", newer):
        assert not api.revision_exists(REPO, revision)
    assert old.repo(REPO).refs == {"refs/heads/main": base}


def test_squashing_leaves_one_commit_and_deleting_objects_the_bytes_nowhere(old, tmp_path):
    api = HfApi(token=old.token)
    before, weights = old.commits(REPO)[0].id, os.urandom(900)
    commit(old, add({"model.safetensors": weights}))
    files = old.files(REPO)
    api.super_squash_history(REPO, commit_message="All in one")
    assert [entry.title for entry in old.commits(REPO)] == ["All in one"]
    assert old.files(REPO) == files
    assert not api.revision_exists(REPO, before)
    sizes = {entry.size for entry in api.list_lfs_files(REPO)}
    assert sizes == {len(WEIGHTS), len(weights)}
    stored = {path.read_bytes() for path in (old.folder / "blobs").iterdir()}
    assert {WEIGHTS, weights} <= stored
    api.permanently_delete_lfs_files(REPO, [f for f in api.list_lfs_files(REPO) if f.size == len(WEIGHTS)])
    assert {entry.size for entry in api.list_lfs_files(REPO)} == {len(weights)}
    assert old.files(REPO) == files
    assert WEIGHTS not in {path.read_bytes() for path in (old.folder / "blobs").iterdir()}


def test_a_commit_that_another_ref_leads_to_outlives_a_squash(old):
    api, before = HfApi(token=old.token), old.commits(REPO)
    api.create_tag(REPO, tag="v1")
    api.super_squash_history(REPO)
    assert len(old.commits(REPO)) == 1 and old.commits(REPO, "v1") == before
    with pytest.raises(HfHubHTTPError, match="Only the history of a branch"):
        api.super_squash_history(REPO, branch="v1")


@pytest.mark.parametrize("rewrite_history", [True, False])
def test_a_deleted_object_is_in_no_commit_that_can_be_downloaded(old, rewrite_history):
    api, base = HfApi(token=old.token), old.commits(REPO)[0].id
    new = os.urandom(900)
    commit(old, add({"model.safetensors": new}))
    doomed = [entry for entry in api.list_lfs_files(REPO) if entry.size == len(WEIGHTS)]
    assert Path(api.hf_hub_download(REPO, "model.safetensors", revision=base)).read_bytes() == WEIGHTS
    api.permanently_delete_lfs_files(REPO, doomed, rewrite_history=rewrite_history)
    assert old.files(REPO)["model.safetensors"] == new
    assert [entry.title for entry in old.commits(REPO)] == ["A change", "Upload files", "initial commit"]
    assert api.revision_exists(REPO, base) is not rewrite_history
    older = old.commits(REPO)[1]
    assert ("model.safetensors" in older.files) is not rewrite_history
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "model.safetensors", revision=older.id, force_download=True)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("- a\n- list", "must be a mapping"),
        ("tags: [", "no YAML"),
        ("value: !!python/object/apply:numpy.float64 [1]", "no YAML"),
        ("license: MIT License", "license"),
        ("license: 3", "license"),
        ("tags: one", "tags"),
        ("tags: [1]", "tags"),
        ("language: English", "language"),
        ("base_model: /home/me/model", "base_model"),
        ("base_model: [a/b/c]", "base_model"),
        ("base_model_relation: unlearned", "base_model_relation"),
        ("pipeline_tag: unlearning", "pipeline_tag"),
        ("model-index: none", "model-index"),
        ("model-index: [{results: []}]", r"model-index\[0\].name"),
        ("model-index: [{name: a, results: [{}]}]", r"results\[0\].task.type"),
        (
            "model-index: [{name: a, results: [{task: {type: b}, dataset: {type: c, name: d}, "
            "metrics: [{type: e, value: f}]}]}]",
            r"metrics\[0\].value",
        ),
    ],
)
def test_a_card_with_bad_metadata_is_refused_before_and_at_the_commit(old, metadata, said):
    card, before = f"---\n{metadata}\n---\n", old.commits(REPO)
    with pytest.raises(ValueError, match=said):
        commit(old, add({"README.md": card.encode()}))
    assert received(old, "POST", "/preupload/") == 0
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    body = b'{"key": "header", "value": {"summary": "", "description": ""}}\n'
    body += b'{"key": "file", "value": {"path": "README.md", "content": "%s"}}' % base64.b64encode(card.encode())
    answer = session.post(f"{old.endpoint}/api/models/{REPO}/commit/main", content=body, headers=headers)
    assert answer.status_code == 400
    assert old.commits(REPO) == before


def test_a_card_with_good_metadata_is_taken_and_one_without_is_warned_of(old):
    data = {
        "license": "apache-2.0",
        "language": ["en", "multilingual"],
        "library_name": "transformers",
        "tags": ["machine-unlearning"],
        "base_model": ["google-bert/bert-base-uncased"],
        "base_model_relation": "finetune",
        "pipeline_tag": "text-classification",
        "unlearning": {"method": "fisher"},
        "model-index": [
            {
                "name": "a",
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"name": "b", "type": "c"},
                        "metrics": [{"type": "accuracy", "value": 0.5}],
                    }
                ],
            }
        ],
    }
    ModelCard(f"---\n{yaml.safe_dump(data)}---\n# A card\n").validate()
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(old, add({"README.md": b"# No metadata\n"}))
    assert old.files(REPO)["README.md"] == b"# No metadata\n"


def test_what_was_received_holds_what_was_sent_in_any_way_but_not_the_token(old, tmp_path):
    def planted(place):
        return f"Zweifelsfrei-é-{place}"

    old.seed(REPO, {planted("deleted"): b"x"})
    api = HfApi(token=old.token, headers={"X-Header": "Zweifelsfrei-header"}, user_agent="Zweifelsfrei-agent")
    large = os.urandom(100_000)
    operations = add(
        {
            f"{planted('name')}.txt": planted("regular").encode(),
            "model.safetensors": large + planted("lfs").encode(),
            "README.md": f"---\nlicense: mit\n---\n{planted('card')}".encode(),
        }
    )
    operations.append(CommitOperationDelete(planted("deleted")))
    texts = {"commit_message": planted("title"), "commit_description": planted("description")}
    api.create_commit(REPO, operations, **texts)
    api.create_branch(REPO, branch=planted("branch"))
    api.get_paths_info(REPO, [planted("path")])
    received_bytes = old.received_bytes()
    places = "name regular lfs card deleted title description branch path".split()
    for canary in [*map(planted, places), "Zweifelsfrei-header", "Zweifelsfrei-agent"]:
        assert canary.encode() in received_bytes, canary
    # The sample of a file goes out before the file does, and by itself.
    old.requests.clear()
    old.fail("POST", "/preupload/", status=400)
    with pytest.raises(HfHubHTTPError):
        commit(old, [CommitOperationAdd("other.bin", b"Zweifelsfrei" + large)])
    assert [request.path for request in old.requests] == [f"/api/models/{REPO}/preupload/main"]
    assert b"Zweifelsfrei" in old.received_bytes() and large[:500] in old.received_bytes()
    assert large not in old.received_bytes()
    assert old.token in old.requests[0].headers["authorization"]
    assert old.token.encode() not in old.received_bytes()


def test_a_body_in_chunks_is_read_as_a_whole_and_a_range_is_a_part(old):
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    chunks = [b'{"content": "a', b"b" * 70_000, b'"}']
    assert session.post(f"{old.endpoint}/api/validate-yaml", content=iter(chunks)).status_code == 200
    assert old.requests[-1].body == b"".join(chunks)
    assert old.requests[-1].headers["transfer-encoding"] == "chunked"
    url = hf_hub_url(REPO, "model.safetensors")
    for wanted, expected in (("3-9", WEIGHTS[3:10]), ("2000-", WEIGHTS[2000:]), ("0-99999", WEIGHTS)):
        answer = session.get(url, headers={**headers, "Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.content) == (206, expected)
    assert session.get(url, headers={**headers, "Range": "bytes=99999-"}).status_code == 416
    metadata = get_hf_file_metadata(url, token=old.token)
    newest = old.commits(REPO)[0]
    assert (metadata.size, metadata.commit_hash) == (len(WEIGHTS), newest.id)
    assert metadata.etag == newest.files["model.safetensors"].sha256


def test_an_object_that_was_not_uploaded_as_it_is_named_is_no_part_of_a_commit(old):
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    missing = {"oid": "0" * 64, "size": 3}
    batch = f"{old.endpoint}/{REPO}.git/info/lfs/objects/batch"
    wanted = {"operation": "upload", "objects": [missing]}
    actions = session.post(batch, json=wanted, headers=headers).json()["objects"][0]["actions"]
    assert session.put(actions["upload"]["href"], content=b"abc").status_code == 400
    assert session.put(actions["upload"]["href"].split("?")[0], content=b"abc").status_code == 403
    assert session.post(actions["verify"]["href"], json=missing, headers=headers).status_code == 422
    before = old.commits(REPO)
    header = {"key": "header", "value": {"summary": "", "description": ""}}
    for oid, size in (("0" * 64, 3), (before[0].files["model.safetensors"].sha256, 3)):
        file = {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": oid, "size": size}}
        text = {"key": "file", "value": {"path": "b.txt", "content": "YQ==", "encoding": "base64"}}
        body = "\n".join(map(json.dumps, [header, text, file]))
        answer = session.post(f"{old.endpoint}/api/models/{REPO}/commit/main", content=body, headers=headers)
        assert (answer.status_code, "does not exist" in answer.text) == (400, True)
    assert old.commits(REPO) == before


def test_what_a_hub_has_stored_another_one_on_the_same_folder_has(tmp_path):
    with LocalHub(tmp_path) as first:
        head = first.seed(REPO, {"README.md": CARD, "model.safetensors": WEIGHTS}, private=False, title="Old")
        first.seed(REPO, {"README.md": b"newer"})
        assert first.requests == []
    with LocalHub(tmp_path) as second:
        assert second.commits(REPO) == first.commits(REPO) and len(second.commits(REPO)) == 3
        assert second.files(REPO, head)["README.md"] == CARD
        assert second.files(REPO)["model.safetensors"] == WEIGHTS
        assert not second.repo(REPO).private and second.token != first.token
    with pytest.raises(KeyError, match="no v2 of"):
        second.files(REPO, "v2")


def test_what_a_hub_cannot_process_is_an_error_at_its_end(tmp_path):
    with pytest.raises(RuntimeError, match="could not process a request") as raised:
        with LocalHub(tmp_path) as hub, client_of(hub):
            answer = get_session().post(f"{hub.endpoint}/api/validate-yaml", content=b"no JSON")
            assert (answer.status_code, "JSONDecodeError" in answer.text) == (501, True)
    assert isinstance(raised.value.__cause__, json.JSONDecodeError)


def test_another_process_uses_the_hub_by_its_environment(old):
    code = (
        "from huggingface_hub import HfApi, hf_hub_download\n"
        f"HfApi().upload_file(path_or_fileobj=b'{{}}', path_in_repo='config.json', repo_id='{REPO}')\n"
        f"print(hf_hub_download('{REPO}', 'model.safetensors'))\n"
    )
    environment = {**os.environ, **old.environment()}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    path = Path(run.stdout.strip().splitlines()[-1])
    assert path.read_bytes() == WEIGHTS and path.is_relative_to(old.environment()["HF_HOME"])
    assert old.files(REPO)["config.json"] == b"{}"


def test_nothing_but_the_hub_on_this_machine_can_be_reached(hub):
    for reach in (
        lambda: get_session().get("https://huggingface.co/api/models"),
        lambda: HfApi(endpoint="http://192.0.2.1").model_info(REPO),
        lambda: socket.create_connection(("192.0.2.1", 80)),
        lambda: socket.socket().connect(("192.0.2.1", 80)),
    ):
        with pytest.raises(RuntimeError, match="Only the Hub on this machine"):
            reach()


def test_afterwards_the_client_is_offline_again_and_as_it_was(tmp_path):
    def state():
        settings = {name: value for name, value in vars(constants).items() if name.isupper()}
        functions = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex
        return settings, dict(os.environ), functions, hf_api.api.endpoint, transformers.utils.hub._hf_api

    before = state()
    assert constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "1"
    with LocalHub(tmp_path) as hub, client_of(hub):
        hub.seed(REPO, {"README.md": CARD})
        assert not constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "0"
        # However the client is asked: by an address, without one, or by a function of the module.
        api, plain = HfApi(endpoint=hub.endpoint, token=hub.token), HfApi(token=hub.token)
        assert api.model_info(REPO).sha == plain.model_info(REPO).sha == model_info(REPO, token=hub.token).sha
        assert HfApi().token is None and get_token() is None
    assert state() == before
    with pytest.raises(OfflineModeIsEnabled):
        HfApi().model_info(REPO)
