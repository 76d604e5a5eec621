# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The operations of a commit, and the lists of its files."""

import base64
import hashlib
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from tests.hub.messages import Refusal
from tests.hub.repositories import Commit, File, LfsObject, Repository, lfs_pointer


def apply(
    operations: list[dict[str, Any]], files: dict[str, File], lfs: dict[str, LfsObject]
) -> tuple[dict[str, File], dict[str, bytes]]:
    """
    Applies the operations of a commit. Returns the files after them, and the contents of new regular files.

    Args:
        operations (`list[dict[str, Any]]`):
            The operations, without the header.
        files (`dict[str, File]`):
            The files of the parent commit.
        lfs (`dict[str, LfsObject]`):
            The objects that were uploaded.

    Raises:
        `Refusal`: If an operation is not possible.
    """
    files, contents = dict(files), {}
    for operation in operations:
        kind, value = operation["key"], operation["value"]
        path = value["path"]
        if kind == "file":
            contents[path] = base64.b64decode(value["content"])
            files[path] = File.regular(contents[path])
        elif kind == "lfsFile":
            uploaded = lfs.get(value["oid"])
            if uploaded is None or uploaded.size != value.get("size", uploaded.size):
                raise Refusal(HTTPStatus.BAD_REQUEST, "An LFS pointer pointed to a file that does not exist")
            files[path] = File.in_lfs(value["oid"], uploaded.size)
        elif kind in ("deletedFile", "deletedFolder"):
            below = f"{path.rstrip('/')}/"
            doomed = [name for name in files if (name == path if kind == "deletedFile" else name.startswith(below))]
            if not doomed:
                raise Refusal(HTTPStatus.NOT_FOUND, "A file with this name doesn't exist", "EntryNotFound")
            for name in doomed:
                del files[name]
        else:
            raise Refusal(HTTPStatus.BAD_REQUEST, "This Hub has no such operation")
    return files, contents


def sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    pointer = {"sha256": file.sha256, "size": file.size, "pointerSize": len(lfs_pointer(file.sha256, file.size))}
    sibling = {"rfilename": path, "size": file.size, "blobId": file.oid}
    return {**sibling, "lfs": pointer} if file.lfs else sibling


def entries_of(repository: Repository, commit: Commit, expand: bool) -> dict[str, dict[str, Any]]:
    """The files and folders of a commit by path; expanded, with the last commit that changed each."""
    entries = {}
    for path, file in commit.files.items():
        entries[path] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
        if file.lfs:
            pointer_size = len(lfs_pointer(file.sha256, file.size))
            entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer_size}
        for parent in map(str, PurePosixPath(path).parents[:-1]):
            oids = sorted(_below(commit, parent).items())
            oid = hashlib.sha1(repr(oids).encode()).hexdigest()
            entries[parent] = {"type": "directory", "path": parent, "oid": oid, "size": 0}
    for path, entry in entries.items() if expand else ():
        changed = commit
        for older in repository.history(commit)[1:]:
            if _below(older, path) != _below(commit, path):
                break
            changed = older
        entry["lastCommit"] = {"id": changed.id, "title": changed.title, "date": changed.date}
    return dict(sorted(entries.items()))


def _below(commit: Commit, path: str) -> dict[str, str]:
    """The oids of a file, or of all files of a folder."""
    return {name: file.oid for name, file in commit.files.items() if name == path or name.startswith(f"{path}/")}
