# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Model repositories on disk: contents by their SHA-256, and a JSON record of each repository."""

import hashlib
import json
import os
from codecs import getincrementaldecoder
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path


MAIN = "refs/heads/main"

# Size in bytes; larger files go to LFS.
MAX_REGULAR_SIZE = 10_000_000
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
).split()
# The content of `.gitattributes` in a new repository.
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The pointer that git holds instead of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_lfs(path: str, size: int, sample: bytes, git_attributes: bytes) -> bool:
    """
    Whether a file is stored in LFS: because of the repository's `.gitattributes`, its size, or because it is no text.

    Args:
        path (`str`):
            Path in the repository.
        size (`int`):
            Size in bytes.
        sample (`bytes`):
            The first bytes of the file.
        git_attributes (`bytes`):
            The content of `.gitattributes`.
    """
    for line in git_attributes.decode().splitlines():
        pattern, *attributes = line.split()
        if "filter=lfs" in attributes and (fnmatchcase(path, pattern) or fnmatchcase(Path(path).name, pattern)):
            return True
    if size > MAX_REGULAR_SIZE or b"\0" in sample:
        return True
    try:
        # The sample may end within a character.
        getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return False


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid` is git's hash of the file, or of the pointer of an LFS file."""

    size: int
    sha256: str
    oid: str
    lfs: bool

    @classmethod
    def regular(cls, content: bytes) -> "File":
        return cls(len(content), hashlib.sha256(content).hexdigest(), git_oid(content), False)

    @classmethod
    def in_lfs(cls, sha256: str, size: int) -> "File":
        return cls(size, sha256, git_oid(lfs_pointer(sha256, size)), True)


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    message: str
    date: str
    files: dict[str, File]

    @classmethod
    def new(cls, parent: str | None, title: str, message: str, files: dict[str, File], date: str = "") -> "Commit":
        commit = cls("", parent, title, message, date or now(), files)
        return replace(commit, id=hashlib.sha1(json.dumps(asdict(commit), sort_keys=True).encode()).hexdigest())


@dataclass(frozen=True)
class LfsObject:
    """An object in LFS. It has no file name until a commit names it."""

    size: int
    pushed_at: str
    filename: str | None = None


@dataclass(frozen=True)
class Repository:
    """
    The record of a repository. It is immutable: a change makes another record.

    Args:
        id (`str`):
            Namespace and name.
        private (`bool`):
            Whether the repository is hidden without a token.
        gated (`str` or `bool`):
            `"auto"`, `"manual"` or `False`.
        refs (`dict[str, str]`):
            Commit ids by `refs/heads/BRANCH`, `refs/tags/TAG` and `refs/pr/NUMBER`.
        commits (`dict[str, Commit]`):
            Commits by id, only those that a ref leads to.
        lfs (`dict[str, LfsObject]`):
            Objects by their SHA-256. An object stays until it is deleted, even if no commit has it.
    """

    id: str
    private: bool
    gated: str | bool
    refs: dict[str, str]
    commits: dict[str, Commit]
    lfs: dict[str, LfsObject]

    @classmethod
    def from_record(cls, record: dict) -> "Repository":
        commits = {
            key: Commit(**{**value, "files": {path: File(**file) for path, file in value["files"].items()}})
            for key, value in record["commits"].items()
        }
        lfs = {key: LfsObject(**value) for key, value in record["lfs"].items()}
        return cls(**{**record, "commits": commits, "lfs": lfs})

    def ref(self, revision: str) -> str | None:
        """The full name of a ref by its full or short name."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def commit(self, revision: str) -> Commit | None:
        """The commit of a ref, or of the first digits of a commit id."""
        if ref := self.ref(revision):
            return self.commits[self.refs[ref]]
        found = [key for key in self.commits if key.startswith(revision)] if len(revision) >= 7 else []
        return self.commits[found[0]] if len(found) == 1 else None

    def history(self, commit: Commit) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        commits = [commit]
        while commits[-1].parent:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def with_commit(self, ref: str, commit: Commit) -> "Repository":
        """The repository in which a ref leads to a new commit."""
        named = {file.sha256: path for path, file in commit.files.items() if file.lfs}
        lfs = {key: replace(value, filename=value.filename or named.get(key)) for key, value in self.lfs.items()}
        commits = {**self.commits, commit.id: commit}
        return replace(self, commits=commits, lfs=lfs).with_refs({**self.refs, ref: commit.id})

    def with_refs(self, refs: dict[str, str]) -> "Repository":
        """The repository with these refs, and only with the commits that they lead to."""
        reached = {commit.id: commit for key in refs.values() for commit in self.history(self.commits[key])}
        return replace(self, refs=refs, commits=reached)

    def without_lfs(self, deleted: Collection[str], rewrite_history: bool) -> "Repository":
        """The repository without some LFS objects, and without their files if its history is rewritten."""
        lfs = {key: value for key, value in self.lfs.items() if key not in deleted}
        if not rewrite_history:
            return replace(self, lfs=lfs)
        rewritten = {}

        def rewrite(commit: Commit) -> Commit:
            files = {path: file for path, file in commit.files.items() if not (file.lfs and file.sha256 in deleted)}
            parent = rewritten[commit.parent].id if commit.parent else None
            return Commit.new(parent, commit.title, commit.message, files, commit.date)

        for head in self.refs.values():
            for commit in reversed(self.history(self.commits[head])):
                if commit.id not in rewritten:
                    rewritten[commit.id] = rewrite(commit)
        commits = {commit.id: commit for commit in rewritten.values()}
        refs = {name: rewritten[key].id for name, key in self.refs.items()}
        return replace(self, refs=refs, commits=commits, lfs=lfs)


class Repositories:
    """
    Repositories in a folder. A record is replaced as a whole.

    Args:
        folder (`Path`):
            The folder of the `blobs`, by their SHA-256, and of the `records` of the repositories.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._records = folder / "records"
        for path in (self._blobs, self._records):
            path.mkdir(parents=True, exist_ok=True)

    def _record(self, repo_id: str) -> Path:
        return self._records / f"{repo_id.replace('/', '--')}.json"

    def read(self, repo_id: str) -> Repository | None:
        path = self._record(repo_id)
        return Repository.from_record(json.loads(path.read_bytes())) if path.exists() else None

    def write(self, repository: Repository) -> None:
        path = self._record(repository.id)
        path.with_suffix(".new").write_text(json.dumps(asdict(repository)))
        os.replace(path.with_suffix(".new"), path)
        self._remove_unreferenced()

    def create(self, repo_id: str, private: bool) -> Repository:
        """Makes a repository of one commit."""
        self.store(GIT_ATTRIBUTES)
        commit = Commit.new(None, "initial commit", "", {".gitattributes": File.regular(GIT_ATTRIBUTES)})
        repository = Repository(repo_id, private, False, {MAIN: commit.id}, {commit.id: commit}, {})
        self.write(repository)
        return repository

    def git_attributes(self, repository: Repository, commit: Commit) -> bytes:
        """The content of the commit's `.gitattributes`, empty if it has none."""
        file = commit.files.get(".gitattributes")
        return self.content(repository, file) if file else b""

    def delete(self, repo_id: str) -> None:
        self._record(repo_id).unlink()
        self._remove_unreferenced()

    def store(self, content: bytes) -> str:
        """Stores a content and returns its SHA-256. The record that names it must be written next."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self._blobs / sha256).write_bytes(content)
        return sha256

    def content(self, repository: Repository, file: File) -> bytes | None:
        """The content of a file, or None if its LFS object was deleted."""
        return None if file.lfs and file.sha256 not in repository.lfs else (self._blobs / file.sha256).read_bytes()

    def _remove_unreferenced(self) -> None:
        """Removes the contents that no repository names."""
        kept = set()
        for path in self._records.glob("*.json"):
            repository = Repository.from_record(json.loads(path.read_bytes()))
            files = (file for commit in repository.commits.values() for file in commit.files.values())
            kept |= repository.lfs.keys() | {file.sha256 for file in files if not file.lfs}
        for path in self._blobs.iterdir():
            if path.name not in kept:
                path.unlink()
