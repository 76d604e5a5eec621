# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads splits of a data set from files, folders or the Hub."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from pyarrow import ArrowInvalid

from ..runtime.files import NO_ROOM, explain_write_errors, incomplete_folder, number_of_write_error
from .arguments import DataArguments
from .filters.forget_rows import split_forget_rows
from .progress_bars import progress_bars_on_main_process


_FORMATS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
    ".arrow": ("arrow", {}),
}


def load_unlearning_datasets(arguments: DataArguments) -> dict[str, Dataset]:
    """
    Loads the data sets of an unlearning run.

    No copy of local rows stays on the disk. Files are read into memory through a temporary cache, which only this user
    can read and which is deleted before this returns or a signal ends the process; after `kill -9` the next call
    deletes it. Folders written by `save_to_disk` are read into memory directly. A data set from the Hub stays
    where `datasets` and `huggingface_hub` keep downloads. Delete it there if the rows to forget must not stay on this
    machine.

    Args:
        arguments ([`DataArguments`]):
            Which data to load.

    Returns:
        `dict[str, Dataset]`: The data sets `"forget"` and `"retain"`, and if given `"eval"` and `"unseen"`.

    Raises:
        `FileNotFoundError`: If the file or data set does not exist, or the Hub cannot be reached.
        `ValueError`: If a split or column does not exist, or if no row or every row is to be forgotten.
    """
    if arguments.dataset_name is None:
        raise ValueError("`dataset_name` is missing: a Hub id, a folder or a file.")
    names = {"eval": arguments.eval_split, "unseen": arguments.unseen_split}
    if arguments.forget_split is not None:
        names |= {"forget": arguments.forget_split, "retain": arguments.retain_split}
    else:
        names["train"] = arguments.train_split
    wanted = {part: name for part, name in names.items() if name is not None}
    splits = load_splits(arguments.dataset_name, wanted, arguments.dataset_config_name)
    if "train" in splits:
        splits["forget"], splits["retain"] = split_forget_rows(splits.pop("train"), arguments)
    return {part: splits[part] for part in ("forget", "retain", "eval", "unseen") if part in splits}


def load_splits(name: str, splits: Mapping[str, str], config_name: str | None = None) -> dict[str, Dataset]:
    """
    Loads splits of a data set, as [`load_unlearning_datasets`] does.

    Args:
        name (`str`):
            See `dataset_name` of [`DataArguments`].
        splits (`dict[str, str]`):
            The split, or slice of a split, for every key of the result.
        config_name (`str`, *optional*):
            Configuration of a data set on the Hub.

    Returns:
        `dict[str, Dataset]`: The splits, by the keys of `splits`.

    Raises:
        `FileNotFoundError`: If the file or data set does not exist, or the Hub cannot be reached.
        `ValueError`: If a split does not exist.
    """
    path = Path(name)
    if path.is_dir() and any((path / marker).exists() for marker in ("dataset_dict.json", "state.json")):
        saved = datasets.load_from_disk(name, keep_in_memory=True)
        saved = saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})
        _check_splits(name, saved, splits)
        return {part: _slice(saved, split) for part, split in splits.items()}
    files = [file for file in sorted(glob(name)) if Path(file).is_file()]
    if not files and not path.is_dir():
        return _load_hub_splits(name, splits, config_name)
    temporary = Path(tempfile.gettempdir())
    with incomplete_folder(temporary) as cache, progress_bars_on_main_process():
        if files:
            kind, options = _format(name, files)
            builder = datasets.load_dataset_builder(kind, data_files=files, cache_dir=str(cache), **options)
        else:
            builder = datasets.load_dataset_builder(name, config_name, cache_dir=str(cache))
        return _prepare(builder, name, splits, temporary, in_memory=True)


def _load_hub_splits(name: str, splits: Mapping[str, str], config_name: str | None) -> dict[str, Dataset]:
    if Path(name).suffix in _FORMATS or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"`dataset_name` is {name!r}, but there is no such file or folder. Check the path.")
    try:
        builder = datasets.load_dataset_builder(name, config_name)
        with progress_bars_on_main_process():
            return _prepare(builder, name, splits, Path(datasets.config.HF_DATASETS_CACHE), in_memory=False)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        offline = "; offline mode is on (HF_HUB_OFFLINE)" if datasets.config.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"`dataset_name` is {name!r}: there is no such file or folder, and it could not be loaded from the Hub"
            f"{offline} ({type(error).__name__}). Check the name and the network, or pass a file or a folder."
        ) from None


def _prepare(
    builder: Any, name: str, splits: Mapping[str, str], folder: Path, *, in_memory: bool
) -> dict[str, Dataset]:
    try:
        with _telling_of_no_room(folder):
            builder.download_and_prepare()
    except (datasets.exceptions.DatasetGenerationError, ArrowInvalid) as error:
        # The cause may quote rows.
        raise ValueError(
            f"The files of {name!r} could not be read ({type(error.__cause__ or error).__name__}): one of them is "
            "damaged, or its rows do not all have the same columns."
        ) from None
    _check_splits(name, builder.info.splits, splits)
    return {part: builder.as_dataset(split=split, in_memory=in_memory) for part, split in splits.items()}


@contextmanager
def _telling_of_no_room(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Other errors may be those of reading the files.
        if number_of_write_error(error) not in NO_ROOM:
            raise
        with explain_write_errors(folder):
            raise


def _format(pattern: str, files: list[str]) -> tuple[str, dict[str, str]]:
    suffixes = {Path(file).suffix for file in files}
    if len(suffixes) > 1 or not suffixes <= _FORMATS.keys():
        raise ValueError(
            f"`dataset_name` is {pattern!r}, and files of the formats {', '.join(sorted(suffixes)) or 'none'} were "
            f"found. Pass files of a single format, one of {', '.join(_FORMATS)}."
        )
    return _FORMATS[suffixes.pop()]


def _check_splits(name: str, known: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    for split in wanted.values():
        for part in split.split("+"):
            if part.partition("[")[0] not in known:
                raise ValueError(
                    f"The data set {name!r} has no split {split!r}; it has {', '.join(known)}. Name one of these."
                )


def _slice(splits: DatasetDict, split: str) -> Dataset:
    if split in splits:
        return splits[split]
    sizes = {name: len(dataset) for name, dataset in splits.items()}
    parts = []
    for part in datasets.ReadInstruction.from_spec(split).to_absolute(sizes):
        end = sizes[part.splitname] if part.to is None else part.to
        parts.append(splits[part.splitname].select(range(part.from_ or 0, end), keep_in_memory=True))
    return datasets.concatenate_datasets(parts)
