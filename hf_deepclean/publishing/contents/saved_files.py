# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of what a run saves, and whether a folder still holds it."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ...runtime.sealed_files import digest_of_file


logger = logging.getLogger(__name__)

# The entry for all tensors. No file has this name: one in the folder would have a suffix.
WEIGHTS = "weights"

_SUFFIX = ".safetensors"
_MAX_HEADER_BYTES = 2**28
_CHUNK_BYTES = 2**22


def digests_of_result(folder: Path) -> dict[str, str]:
    """
    Takes the digests of what a run has saved.

    Args:
        folder (`Path`):
            A folder that holds the model, its tokenizer or processor and its code, and nothing else.

    Returns:
        `dict[str, str]`: The digest of all tensors under `"weights"`, and those of the other files by their names.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    weights = [name for name in names if name.endswith(_SUFFIX)]
    # The index of shards is compared with the shards instead, which may be divided otherwise later.
    others = [name for name in names if name not in (*weights, SAFE_WEIGHTS_INDEX_NAME)]
    return {WEIGHTS: digest_of_weights(folder, weights)} | {name: digest_of_file(folder / name) for name in others}


def digest_of_weights(folder: Path, names: Iterable[str]) -> str:
    """
    Takes the digest of all tensors in safetensors files: names, dtypes, shapes and bytes. How they are divided among
    the files, and the metadata of the files, do not matter. A few megabytes are in memory at a time.

    Args:
        folder (`Path`):
            The folder of the files.
        names (`Iterable[str]`):
            Their names.

    Returns:
        `str`: 32 hexadecimal digits.

    Raises:
        `ValueError`: If a file is damaged, or not in this format.
    """
    tensors = sorted((*tensor, name) for name in names for tensor in _tensors_of(folder / name))
    digest = xxhash.xxh3_128()
    for tensor, dtype, shape, begin, size, name in tensors:
        digest.update(json.dumps([tensor, dtype, shape, size]).encode())
        with (folder / name).open("rb") as file:
            file.seek(begin)
            while size and (chunk := file.read(min(size, _CHUNK_BYTES))):
                digest.update(chunk)
                size -= len(chunk)
        if size:
            raise ValueError(f"{folder / name} is damaged: it ends within `{tensor}`. Restore it, or run again.")
    return digest.hexdigest()


def check_saved_weights(folder: Path, names: Iterable[str], saved: Mapping[str, str], origin: Path) -> None:
    """
    Refuses weights that are not those that a run has saved.

    Args:
        folder (`Path`):
            The folder that will be published.
        names (`Iterable[str]`):
            The names of its files.
        saved (`dict[str, str]`):
            What [`digests_of_result`] returned for the run. Empty for a run of an earlier version, which is warned of.
        origin (`Path`):
            The output directory, for messages.

    Raises:
        `ValueError`: If the weights differ, or the index of the shards does not describe them.
    """
    weights = [name for name in names if name.endswith(_SUFFIX)]
    if (folder / SAFE_WEIGHTS_INDEX_NAME).exists():
        _check_index(folder, weights, origin)
    if WEIGHTS not in saved:
        logger.warning(
            f"Whether the weights in {origin} are those that the run has saved cannot be told: its report comes from "
            "an earlier version of hf_deepclean, without their digest. Compare them with your own record of that run, "
            "or run again."
        )
    elif digest_of_weights(folder, weights) != saved[WEIGHTS]:
        raise ValueError(
            f"The weights in {origin} are not those that the run has saved, so nothing is published: its report and "
            "its card are about other weights. The original model was copied there, a later training or conversion "
            "was saved there, or a file is damaged. Restore the weights, or run again. Merged, quantised or otherwise "
            "converted weights are another model than the one that was measured: publish them by `hf upload`, under a "
            "card of their own."
        )


def warn_of_changed_files(origin: Path, names: Iterable[str], saved: Mapping[str, str]) -> None:
    """
    Warns of published files besides the weights that were edited since the run has saved them, or added. An owner may
    edit them; but they decide how the model answers, and the report is about the answers of before.

    Args:
        origin (`Path`):
            The output directory.
        names (`Iterable[str]`):
            The published names.
        saved (`dict[str, str]`):
            As for [`check_saved_weights`].
    """
    if not saved:
        return
    others = [name for name in names if not name.endswith(_SUFFIX) and name != SAFE_WEIGHTS_INDEX_NAME]
    edited = [name for name in others if name in saved and digest_of_file(origin / name) != saved[name]]
    added = [name for name in others if name not in saved and not name.startswith("LICENSE")]
    gone = [name for name in saved if name != WEIGHTS and name not in others]
    changes = {"edited": edited, "added": added, "taken away": gone}
    if edited or added or gone:
        told = "; ".join(f"{how}: {', '.join(sorted(found))}" for how, found in changes.items() if found)
        logger.warning(
            f"Since the run, files in {origin} were changed that decide how the model answers ({told}). The figures "
            "of the report are about the files that the run has saved. Restore them, if that was not meant."
        )


def _tensors_of(path: Path) -> list[tuple[str, str, list[int], int, int]]:
    """Name, dtype, shape, first byte and number of bytes of every tensor in a file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
        start = 8 + length
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        return [
            (name, entry["dtype"], entry["shape"], start + begin, end - begin)
            for name, entry in entries
            for begin, end in [entry["data_offsets"]]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged, or is not a safetensors file. Restore it, or run again.") from None


def _check_index(folder: Path, weights: Iterable[str], origin: Path) -> None:
    named = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))["weight_map"]
    found = sorted((tensor[0], name) for name in weights for tensor in _tensors_of(folder / name))
    if sorted(named.items()) != found:
        raise ValueError(
            f"{SAFE_WEIGHTS_INDEX_NAME} in {origin} does not tell in which file each tensor is, so nothing is "
            "published: some libraries would load other weights than these files hold. Restore it, or save the model "
            "again."
        )
