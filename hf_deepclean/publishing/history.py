# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds and removes old weights in the history of a repository."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from ..runtime.files import matches


# The search stops after this many revisions with old weights.
_MAX_OLD_COMMITS = 10

# A push deletes such files unless it replaces them: old weights may still know the forget data.
WEIGHT_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.h5"),
    *("*.msgpack", "*.onnx", "*.gguf", "*.tflite", "*.pkl", "*.npz"),
)


@dataclass(frozen=True)
class HistoryReport:
    """
    Where a repository still holds old weights.

    Args:
        repo_id (`str`):
            The repository.
        revision (`str`):
            The branch whose history was searched.
        num_commits (`int`):
            Number of commits of the branch.
        old_commits (`tuple[str, ...]`):
            At most ten of its commits, newest first, with weights that the head of the branch does not have.
        other_refs (`tuple[str, ...]`):
            Other branches, tags and pull requests with such weights. Squashing the branch does not change them.
        squashed (`bool`):
            Whether the history of the branch has just been squashed.
    """

    repo_id: str
    revision: str
    num_commits: int
    old_commits: tuple[str, ...]
    other_refs: tuple[str, ...]
    squashed: bool = False

    @property
    def holds_old_weights(self) -> bool:
        """Whether anyone with access can still download old weights by a revision."""
        return bool(self.old_commits or self.other_refs)

    def __str__(self) -> str:
        if not self.holds_old_weights:
            return f"{self.repo_id}: no revision holds other weights than the head of {self.revision}."
        lines = []
        if self.old_commits:
            lines.append(
                f"{self.repo_id}: {len(self.old_commits)} of the {self.num_commits} commits of {self.revision} hold "
                f"other weights than its head, the newest {self.old_commits[0][:8]}. `squash_history(repo_id, "
                "dry_run=False)` makes one commit of the branch, which cannot be undone."
            )
        if self.other_refs:
            lines.append(
                f"Other weights are also in {', '.join(self.other_refs)}: delete these branches and tags. Pull "
                "requests can only be removed by deleting the repository."
            )
        return "\n".join(lines)


def find_old_weights(
    repo_id: str, *, branch: str = "main", token: str | bool | None = None, api: HfApi | None = None
) -> HistoryReport:
    """
    Searches a repository for weights that the head of a branch does not have: in the history of the branch, and in
    other branches, tags and pull requests.

    Args:
        repo_id (`str`):
            The repository.
        branch (`str`, *optional*, defaults to `"main"`):
            The branch.
        token, api:
            As for [`push_folder_to_hub`].

    Returns:
        [`HistoryReport`]
    """
    api = HfApi(token=token) if api is None else api
    commits = [commit.commit_id for commit in api.list_repo_commits(repo_id, revision=branch)]
    present = _weights(api, repo_id, commits[0])
    old: list[str] = []
    for commit in commits[1:]:
        if _weights(api, repo_id, commit) - present:
            old.append(commit)
            if len(old) == _MAX_OLD_COMMITS:
                break
    refs = api.list_repo_refs(repo_id, include_pull_requests=True)
    others = [ref for ref in [*refs.branches, *refs.tags, *(refs.pull_requests or [])] if ref.name != branch]
    other_refs = tuple(ref.name for ref in others if _weights(api, repo_id, ref.target_commit) - present)
    return HistoryReport(repo_id, branch, len(commits), tuple(old), other_refs)


def squash_history(
    repo_id: str,
    *,
    branch: str = "main",
    dry_run: bool = True,
    token: str | bool | None = None,
    api: HfApi | None = None,
) -> HistoryReport:
    """
    Squashes the history of a branch into one commit, so that no revision of the branch holds old weights.

    Args:
        repo_id (`str`):
            The repository.
        branch (`str`, *optional*, defaults to `"main"`):
            The branch.
        dry_run (`bool`, *optional*, defaults to `True`):
            Whether to only report what there is. A squash cannot be undone.
        token, api:
            As for [`push_folder_to_hub`].

    Returns:
        [`HistoryReport`]: The state before the squash in a dry run, else after it.
    """
    api = HfApi(token=token) if api is None else api
    if dry_run:
        return find_old_weights(repo_id, branch=branch, api=api)
    api.super_squash_history(repo_id, branch=branch, commit_message="Squash the history")
    return replace(find_old_weights(repo_id, branch=branch, api=api), squashed=True)


def list_files(api: HfApi, repo_id: str, revision: str) -> Iterator[RepoFile]:
    """All files of a revision, folders left out."""
    for entry in api.list_repo_tree(repo_id, revision=revision, recursive=True):
        if isinstance(entry, RepoFile):
            yield entry


def _weights(api: HfApi, repo_id: str, revision: str) -> set[str]:
    """Hashes of the contents of all weight files."""
    return {
        file.blob_id if file.lfs is None else file.lfs.sha256
        for file in list_files(api, repo_id, revision)
        if matches(file.path, WEIGHT_FILES)
    }
