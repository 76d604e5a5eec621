# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Repositories of the local Hub: access, lists, branches, tags and history."""

import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.endpoints import PAGE_SIZE
from tests.hub.use import CARD, REPO, WEIGHTS, add, commit, received


# huggingface_hub sends files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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
    # The answer does not tell a private repository from a missing one.
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
