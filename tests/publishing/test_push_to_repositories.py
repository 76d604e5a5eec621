# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pushes to existing repositories, to other branches and as pull requests, and the history afterwards."""

import pytest
from huggingface_hub import ModelCard

from hf_deepclean import UnlearningCard, find_old_weights, squash_history
from tests.publishing.pushing import ALLOWED, OLD, REPO, head_files, push


def test_an_existing_repository_is_only_changed_when_asked_and_then_loses_its_old_weights(runs, hub, api, caplog):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    with pytest.raises(FileExistsError, match="exist_ok=True"):
        push(runs["classifier"], api)
    assert hub.repo(REPO) == before
    result = push(runs["classifier"], api, exist_ok=True)
    assert len(hub.commits(REPO)) == len(before.commits) + 1
    files = hub.files(REPO)
    # Hand-written files stay as they were, and the card goes beside them.
    assert files["README.md"] == OLD["README.md"] and files["notes.txt"] == b"mine"
    assert UnlearningCard.is_generated(files["UNLEARNING.md"].decode())
    assert set(result.deleted) == {"pytorch_model.bin", "checkpoint-5/optimizer.pt", "training_args.bin"}
    assert head_files(hub) == ALLOWED["classifier"] | {"UNLEARNING.md", "notes.txt"}
    # The old weights are one revision away, and the owner is warned.
    assert result.history.old_commits and "squash_history" in caplog.text
    assert "new_version" in str(result) or result.base_model is None
    assert "old revisions" in str(result)


def test_a_second_push_replaces_the_generated_card_and_changes_nothing_without_a_change(runs, hub, api):
    push(runs["classifier"], api)
    first = hub.repo(REPO)
    push(runs["classifier"], api, exist_ok=True)
    assert hub.repo(REPO) == first
    push(runs["classifier"], api, exist_ok=True, forget_disclosure="size")
    assert "UNLEARNING.md" not in hub.files(REPO)
    assert b"disclosure: size" in hub.files(REPO)["README.md"]


def test_a_public_repository_is_only_pushed_to_as_such(runs, hub, api):
    hub.seed(REPO, {"config.json": b"{}"}, private=False)
    before = hub.repo(REPO)
    with pytest.raises(ValueError, match="is public"):
        push(runs["classifier"], api, exist_ok=True)
    assert hub.repo(REPO) == before
    push(runs["classifier"], api, exist_ok=True, private=False)
    push(runs["classifier"], api, repo="tester/open", private=False)
    assert not hub.repo("tester/open").private


def test_a_pull_request_leaves_the_branch_as_it_was(runs, hub, api):
    hub.seed(REPO, OLD)
    before = hub.commits(REPO)
    result = push(runs["classifier"], api, create_pr=True)
    assert hub.commits(REPO) == before
    assert result.commit.pr_url
    assert "pytorch_model.bin" not in hub.files(REPO, "refs/pr/1")
    assert result.history is None


def test_another_branch_and_a_gate(runs, hub, api):
    hub.seed(REPO, {"notes.txt": b"mine"})
    with pytest.raises(ValueError, match="no branch 'clean'"):
        push(runs["classifier"], api, revision="clean", exist_ok=True)
    api.create_branch(REPO, branch="clean")
    before = hub.commits(REPO)
    push(runs["classifier"], api, revision="clean", exist_ok=True, gated="manual", gated_prompt="Say who you are.")
    assert hub.commits(REPO) == before
    assert hub.repo(REPO).gated == "manual"
    card = ModelCard(hub.files(REPO, "clean")["README.md"].decode())
    assert card.data["extra_gated_prompt"] == "Say who you are."
    hub.seed("tester/other", {"notes.txt": b"mine"})
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(ConnectionError):
        push(runs["classifier"], api, repo="tester/other", exist_ok=True, gated="auto")
    assert not hub.repo("tester/other").gated


def test_a_push_whose_history_cannot_be_looked_through_has_succeeded(runs, hub, api, caplog):
    hub.fail("GET", "/commits/", status=500, times=50)
    result = push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2 and result.history is None
    assert "could not be found out" in caplog.text


def test_a_squash_is_a_dry_run_first_and_then_leaves_no_old_weights(runs, hub, api):
    hub.seed(REPO, OLD)
    api.create_branch(REPO, branch="backup")
    push(runs["classifier"], api, exist_ok=True)
    before = hub.repo(REPO)
    found = squash_history(REPO, api=api)
    assert hub.repo(REPO) == before
    assert found.holds_old_weights and not found.squashed
    assert found.other_refs == ("backup",)
    done = squash_history(REPO, dry_run=False, api=api)
    assert done.squashed and done.num_commits == 1 and done.old_commits == ()
    assert done.other_refs == ("backup",) and "delete these branches" in str(done)
    api.delete_branch(REPO, branch="backup")
    clean = find_old_weights(REPO, api=api)
    assert not clean.holds_old_weights and "no revision holds" in str(clean)
    assert head_files(hub) >= ALLOWED["classifier"] - {"README.md"}
