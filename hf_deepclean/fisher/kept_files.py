# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a kept Fisher diagonal: its sums in one safetensors file, or in several and their index."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards

from ..runtime.files import explain_write_errors, staged
from ..runtime.sealed_files import has_digest, read_tensors, sealed, unsealed, write_tensors


FISHER_NAME = "fisher.safetensors"
FISHER_INDEX_NAME = f"{FISHER_NAME}.index.json"

_REMEDY = "Copy the whole folder again, or compute the Fisher again (`hf-deepclean fisher`)."


def write_sums(
    directory: Path, sums: dict[str, torch.Tensor], metadata: dict[str, str], max_shard_size: int | str
) -> None:
    """
    Writes sums to a folder, whole or not at all. Every file has its digest, and the index has those of the others.

    Args:
        directory (`Path`):
            The folder. It is made if it does not exist.
        sums (`dict[str, torch.Tensor]`):
            The sums by parameter name.
        metadata (`dict[str, str]`):
            What every file says of them.
        max_shard_size (`int` or `str`):
            Size above which the sums are spread over several files.
    """
    split = split_torch_state_dict_into_shards(
        sums, filename_pattern="fisher{suffix}.safetensors", max_shard_size=max_shard_size
    )
    names, moved = split.filename_to_tensors, []
    with explain_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with staged(directory) as staging:
            digests = {
                filename: write_tensors(staging / filename, {name: sums[name] for name in names[filename]}, metadata)
                for filename in names
            }
            if split.is_sharded:
                index = {"metadata": split.metadata | metadata, "weight_map": split.tensor_to_filename}
                (staging / FISHER_INDEX_NAME).write_text(json.dumps(sealed(index | {"digests": digests}), indent=2))
            # The index comes last: without it nothing reads the other files.
            for filename in [*names, *([FISHER_INDEX_NAME] if split.is_sharded else [])]:
                moved.append(directory / filename)
                os.replace(staging / filename, directory / filename)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            directory.rmdir()
        raise


def read_sums(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    Reads the sums that [`write_sums`] wrote, and what the files say of them.

    Args:
        directory (`Path`):
            The folder.

    Raises:
        `FileNotFoundError`: If the folder holds no sums, or a part of them is missing.
        `ValueError`: If a file is damaged, or does not belong to the others.
    """
    index = directory / FISHER_INDEX_NAME
    if not index.exists():
        if not (directory / FISHER_NAME).exists():
            raise FileNotFoundError(
                f"{directory} holds neither {FISHER_NAME} nor {FISHER_INDEX_NAME}. Name the folder that "
                "`FisherDiagonal.save_pretrained` or a `FisherCallback` wrote."
            )
        return read_files([directory / FISHER_NAME])
    names, digests = _read_index(index)
    files = dict.fromkeys(names.values())
    missing = [filename for filename in files if not (directory / filename).exists()]
    if missing:
        raise FileNotFoundError(f"{directory / missing[0]} is missing, which {index.name} names. {_REMEDY}")
    sums, metadata = read_files([directory / filename for filename in files], digests)
    if digests is None and has_digest(metadata):
        raise ValueError(f"{index} has lost the digests of the files that it names. {_REMEDY}")
    if sums.keys() != names.keys():
        raise ValueError(
            f"{index} names {len(names)} parameters but its files hold {len(sums)}. The files do not belong "
            "together; copy the whole folder again."
        )
    return sums, metadata


def read_files(
    paths: Iterable[str | os.PathLike[str]], digests: Mapping[str, str] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    Reads the sums in several files, and what the last of them says of them.

    Args:
        paths (`Iterable[str]`):
            The files.
        digests (`dict[str, str]`, *optional*):
            The digest that every file must have, by its name.

    Raises:
        `ValueError`: If a file holds no sums of a Fisher diagonal, is damaged, or has another digest.
    """
    sums: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    about: list[dict[str, str]] = []
    for path in paths:
        part, metadata = read_tensors(path, remedy=_REMEDY)
        about.append({name: value for name, value in metadata.items() if name != "digest"})
        is_other = digests is not None and metadata.get("digest") != digests.get(Path(path).name)
        if is_other or about[-1] != about[0]:
            raise ValueError(f"{path} is a file of another Fisher diagonal than {FISHER_INDEX_NAME}. {_REMEDY}")
        sums |= part
        if not {"fisher_type", "num_examples", "fallback_parameters"} <= metadata.keys():
            raise ValueError(
                f"{path} holds tensors but not the metadata of a Fisher diagonal; was it written by "
                "`FisherDiagonal.save` or `save_pretrained`?"
            )
    return sums, metadata


def check_no_fisher(directory: str | os.PathLike[str]) -> None:
    """
    Refuses a folder that holds a Fisher diagonal, or a part of one.

    Raises:
        `FileExistsError`: If the folder holds one, or is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file. Choose another folder for the Fisher diagonal.")
    found = sorted(path.name for path in directory.glob("fisher*.safetensors*"))
    if found:
        raise FileExistsError(
            f"{directory} already holds {found[0]}. Nothing is ever overwritten: choose another folder, or move it."
        )


def _read_index(path: Path) -> tuple[dict[str, str], dict[str, str] | None]:
    """The file of every parameter and the digest of every file, of which earlier versions wrote none."""
    try:
        index = json.loads(path.read_text())
        if "digests" in index and not has_digest(index):
            raise ValueError("it has no digest")
        index = unsealed(index)
        return index["weight_map"], index.get("digests")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or no index of a Fisher diagonal ({error}). {_REMEDY}") from None
