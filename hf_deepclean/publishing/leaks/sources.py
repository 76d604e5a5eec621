# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a data set, and the machine it was used on, would leave behind in a file."""

import getpass
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import get_token

from ...data.digests import dataset_fingerprint
from ...data.streams import is_stream
from ...runtime.random_state import all_seeded
from .collector import NeedleCollector
from .identifiers import WORD, has_several_words, is_capitalised_word, is_telling
from .needles import Code, Kind, Needles
from .words import NUM_IN_A_ROW


_NUM_BATCH_ROWS = 1000

_STANDARD_SPLITS = frozenset("train training test validation valid dev eval forget retain unseen holdout all".split())

# Users and hosts of images, containers and services.
_COMMON_ACCOUNTS = frozenset(
    "root user users admin administrator ubuntu debian fedora centos localhost localdomain local jovyan runner docker "
    "container guest nobody colab vscode model models student default server worker workspace hadoop build builder "
    "python azureuser test home".split()
)


def needles_of_dataset(dataset: Any, *, tokenizer: Any = None, names: Iterable[str] = ()) -> Needles:
    """
    What in a published file would be a trace of a data set.

    These are eight words in a row of a text, and shorter texts as a whole; e-mail addresses, URLs, numbers of six
    digits or more, and codes of letters and digits; two or more capitalised words in a row; eight token ids in a row;
    bytes of images, sounds and arrays of numbers; the names of columns, the split and folders of cached copies; and
    fingerprints. The names of the files that the data came from are not known here.

    What any text may hold is none. A single word counts only in a column of single words that are no classes: in small
    letters if nine in ten of its cells differ, and capitalised if half of them do or it is a column of names. Short
    phrases in small letters count if half of the cells differ. Numbers of which there are so many that chance would
    find one, and eight words in a row that stand in a tenth of all texts, as those of a prompt's template do, do not
    count.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set; of a stream all rows are read. Columns of [`~datasets.Image`] and [`~datasets.Audio`] are not
            decoded.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            If given, texts are also looked for as its token ids, and columns of `input_ids` as texts.
        names (`Iterable[str]`, *optional*):
            More to look for as it is, such as the names of people, of files, or of the data set on the Hub.

    Returns:
        [`Needles`]
    """
    collector = NeedleCollector(tokenizer)
    with all_seeded(0):
        for batch in _batches(dataset):
            for name, cells in batch.items():
                collector.add_cells(name, cells)
    collector.add_columns()
    collector.add({name: Kind.NAME | _capitalised(name) for name in names})
    collector.add(_names_of(dataset))
    return collector.needles()


def needles_of_machine(
    *, output_dir: str | os.PathLike[str] | None = None, run_name: str | None = None, hub_token: str | None = None
) -> Needles:
    """
    What in a published file would be a trace of this machine and its user.

    These are the home folder, the current directory and the output directory, the parts of the latter that are no
    ordinary words, the name of the run, the access token of the Hub, and the names of host and user unless they are
    common ones. A user name of less than five letters counts only in e-mail addresses and home folders.

    Args:
        output_dir (`str`, *optional*):
            The output directory. A part of it that is public, such as the name that the model is published under,
            belongs in `ignore` of [`find_leaks`].
        run_name (`str`, *optional*):
            The name of the run.
        hub_token (`str`, *optional*):
            An access token beside the one that is logged in.

    Returns:
        [`Needles`]
    """
    folders = {Path.home(), Path.cwd()}
    entries: dict[str, int] = {token: Kind.TOKEN for token in (hub_token, get_token()) if token}
    if output_dir is not None:
        folders.add(Path(os.path.abspath(output_dir)))
        entries |= {part: Kind.RUN for part in Path(output_dir).parts if is_telling(part)}
    if run_name is not None and (len(run_name) >= 5 or is_telling(run_name)):
        entries[run_name] = Kind.RUN
    for folder in folders:
        # A folder such as /data is on every machine.
        if folder == Path.home() or len(WORD.findall(str(folder))) > 1:
            entries[_start_of_path(folder)] = Kind.PATH
    host = socket.gethostname()
    for name in (host, host.partition(".")[0]):
        if len(name) >= 5 and name.lower() not in _COMMON_ACCOUNTS:
            entries[name] = Kind.HOST
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    if user.lower() not in _COMMON_ACCOUNTS:
        entries[user] = Kind.USER
    collector = NeedleCollector()
    collector.add(entries)
    return collector.needles()


def _batches(dataset: Any) -> Iterator[dict[str, Sequence[Any]]]:
    """Rows of a data set, many at a time, column by column; images and sounds as they are stored."""
    features = getattr(dataset, "features", None) or {}
    for name, feature in features.items():
        if isinstance(feature, (datasets.Audio, datasets.Image)):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    if isinstance(dataset, datasets.Dataset):
        arrays = [name for name, feature in features.items() if _is_array(feature)]
        others = [name for name in features if name not in arrays]
        parts = [
            dataset.select_columns(names).with_format(kind)
            for names, kind in ((arrays, "numpy"), (others, None))
            if names
        ]
        for start in range(0, len(dataset), _NUM_BATCH_ROWS):
            yield {name: cells for part in parts for name, cells in part[start : start + _NUM_BATCH_ROWS].items()}
        return
    rows = iter(dataset) if is_stream(dataset) else (dataset[index] for index in range(len(dataset)))
    while batch := list(islice(rows, _NUM_BATCH_ROWS)):
        columns: dict[str, list[Any]] = {}
        for row in batch:
            for name, cell in (row if isinstance(row, Mapping) else {"": row}).items():
                columns.setdefault(name, []).append(cell)
        yield columns


def _is_array(feature: Any) -> bool:
    """Whether the cells of a column are lists of numbers, which are slow to read as objects of Python."""
    inner = feature
    while hasattr(inner, "feature"):
        inner = inner.feature
    is_number = str(getattr(inner, "dtype", "")).startswith(("int", "uint", "float"))
    return is_number and (inner is not feature or hasattr(feature, "shape"))


def _names_of(dataset: Any) -> dict[str, int]:
    """Fingerprints of a data set, the name of its split, and the folders of its copies in a cache."""
    names: dict[str, int] = {dataset_fingerprint(dataset): Kind.FINGERPRINT}
    if getattr(dataset, "_fingerprint", None):
        names[dataset._fingerprint] = Kind.FINGERPRINT
    split = str(getattr(dataset, "split", None) or "").partition("[")[0]
    if split.lower() not in _STANDARD_SPLITS and has_several_words(split):
        names[split] = Kind.SPLIT
    for file in (Path(cached["filename"]) for cached in getattr(dataset, "cache_files", [])):
        names[_start_of_path(file.parent)] = Kind.PATH
    return names


def _start_of_path(folder: Path) -> str:
    """As much of a path as is looked for in a row."""
    return "/".join(WORD.findall(str(folder))[:NUM_IN_A_ROW])


def _capitalised(name: str) -> int:
    return Code.CAPITALISED if is_capitalised_word(name) else 0
