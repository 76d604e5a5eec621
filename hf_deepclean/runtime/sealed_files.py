# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Files that hold their own digest, so that damage to them, or a file of something else, is refused when read."""

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


logger = logging.getLogger(__name__)

# The manifest of a folder whose files other libraries write.
MANIFEST_NAME = "digests.json"

_DIGEST, _FORMAT, _OWNER = "digest", "format", "owner"
# Files that hold a digest. The format is noted apart from it, so that a lost digest is seen.
_SEALED = "2"
_CHUNK_BYTES = 2**22


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None, *, owner: str = ""
) -> str:
    """
    Writes tensors of any device and any strides to a safetensors file, with a digest of them and of the metadata.

    Args:
        path (`Path`):
            The file.
        tensors (`dict[str, torch.Tensor]`):
            The tensors.
        metadata (`dict[str, str]`, *optional*):
            The metadata of the file.
        owner (`str`, *optional*):
            What the file belongs to. It is read only as that.

    Returns:
        `str`: The digest, 32 hexadecimal digits.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**(metadata or {}), _FORMAT: _SEALED, _OWNER: owner}
    digest = digest_of_tensors(tensors, metadata)
    try:
        save_file(tensors, path, {**metadata, _DIGEST: digest})
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        size = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
        raise OSError(int(found[1]), f"{os.strerror(int(found[1]))}, and {path.name} needs {size:.1f} MiB") from error
    return digest


def read_tensors(
    path: str | os.PathLike[str], *, owner: str = "", remedy: str = "Copy it again, or make it again."
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    Reads the tensors of a safetensors file onto the CPU, and verifies the digest that [`write_tensors`] wrote.

    A file of an earlier version has no digest. A warning says so.

    Args:
        path (`str`):
            The file.
        owner (`str`, *optional*):
            What the file must belong to.
        remedy (`str`, *optional*):
            What to do if the file is damaged.

    Returns:
        `tuple[dict[str, torch.Tensor], dict[str, str]]`: The tensors by name, and the metadata of the file.

    Raises:
        `ValueError`: If the file is damaged, is no safetensors file, or belongs to something else.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or is not a safetensors file ({error}). {remedy}") from None
    if not {_DIGEST, _FORMAT} & metadata.keys():
        warn_of_no_digest(path)
        return tensors, metadata
    digest = metadata.pop(_DIGEST, None)
    if digest != digest_of_tensors(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content does not have the digest that it was written with. {remedy}")
    check_owner(path, metadata[_OWNER], owner, remedy)
    return tensors, {**metadata, _DIGEST: digest}


def has_digest(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a safetensors file, or a record, were written with a digest."""
    return _DIGEST in metadata


def check_owner(path: str | os.PathLike[str], found: str, expected: str, remedy: str) -> None:
    """
    Refuses a file that belongs to something else.

    Raises:
        `ValueError`: If it does.
    """
    if found != expected:
        raise ValueError(f"{path} is whole, but belongs to another run, or to another place in this one. {remedy}")


def warn_of_no_digest(path: str | os.PathLike[str]) -> None:
    """Warns that a file of an earlier version cannot be verified."""
    logger.warning(
        f"{path} was written by an earlier version of hf_deepclean, without a digest. It is used as it is: damage to "
        "it would go unseen. Make it again to have it verified."
    )


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Adds its digest to a record of JSON types."""
    return {**record, _DIGEST: digest_of_json(record)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    Verifies the digest of a record, if it has one, and leaves it out.

    Raises:
        `ValueError`: If the digest is not that of the record.
    """
    if not has_digest(record):
        return dict(record)
    content = {name: value for name, value in record.items() if name != _DIGEST}
    if record[_DIGEST] != digest_of_json(content):
        raise ValueError("its content does not have the digest that it was written with, so it is damaged or edited")
    return content


def digest_of_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of contiguous tensors on the CPU and of what is said of them, 32 hexadecimal digits."""
    digest = xxhash.xxh3_128(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_of_json(record: Mapping[str, Any]) -> str:
    """A digest of a record of JSON types, 32 hexadecimal digits. The order of the fields does not matter."""
    return xxhash.xxh3_128_hexdigest(json.dumps(record, sort_keys=True).encode())


def write_manifest(folder: Path, owner: str) -> None:
    """
    Writes the digests of all files in a folder, after all of them.

    Args:
        folder (`Path`):
            The folder, which nothing writes to any more.
        owner (`str`):
            What the folder belongs to.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    record = {_OWNER: owner, "files": {name: digest_of_file(folder / name) for name in names}}
    (folder / MANIFEST_NAME).write_text(json.dumps(sealed(record), indent=2) + "\n")


def check_manifest(folder: Path, owner: str, remedy: str) -> None:
    """
    Verifies the files of a folder that [`write_manifest`] has listed. Others do not matter.

    Args:
        folder (`Path`):
            The folder.
        owner (`str`):
            What it must belong to.
        remedy (`str`):
            What to do if something is wrong.

    Raises:
        `ValueError`: If a file, or the manifest, is missing or damaged, or the folder belongs to something else.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise ValueError(f"{path} is missing: without it the files beside it cannot be verified. {remedy}")
    try:
        record = json.loads(path.read_bytes())
        if not has_digest(record):
            raise ValueError("it has no digest")
        record = unsealed(record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}). {remedy}") from None
    for name, digest in record["files"].items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing. {remedy}")
        if digest_of_file(folder / name) != digest:
            raise ValueError(
                f"{folder / name} is damaged, or is a file of another folder: it does not have the digest in "
                f"{MANIFEST_NAME}. {remedy}"
            )
    check_owner(folder, record[_OWNER], owner, remedy)


def digest_of_file(path: Path) -> str:
    """A digest of the bytes of a file, 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
