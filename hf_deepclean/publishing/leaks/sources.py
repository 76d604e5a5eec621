# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes needles of a data set and of this machine."""

import getpass
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
from huggingface_hub import get_token
from transformers.utils import logging

from ...data.digests import dataset_fingerprint
from ...data.streams import is_stream
from ...runtime.random_state import all_seeded
from .classes import ClassNames
from .collector import NeedleCollector
from .identifiers import WORD, has_several_words, is_capitalised_word, is_telling
from .needles import Code, Kind, Needles
from .words import NUM_IN_A_ROW


logger = logging.get_logger(__name__)

T = TypeVar("T")

_NUM_BATCH_ROWS, _NUM_RETAIN_ROWS = 1000, 500

_STANDARD_SPLITS = frozenset("train training test validation valid dev eval forget retain unseen holdout all".split())

# Common names of users and hosts, as in images, containers and services.
COMMON_ACCOUNTS = frozenset(
    "root user users admin administrator ubuntu debian fedora centos localhost localdomain local jovyan runner docker "
    "container guest nobody colab vscode model models student default server worker workspace hadoop build builder "
    "python azureuser test home".split()
)


def needles_of_dataset(
    dataset: Any,
    *,
    tokenizer: Any = None,
    names: Iterable[str] = (),
    class_names: Mapping[int, str] | None = None,
    retain_dataset: Any = None,
) -> Needles:
    """
    Makes needles of a data set: what would be a trace of its rows in a published file.

    These are traces:

    - eight words in a row of a text, and shorter texts as a whole;
    - e-mail addresses, URLs, numbers of six digits or more, and codes of letters and digits;
    - two or more capitalised words in a row;
    - every cell of a column whose name says that it holds names, telephone numbers, birth dates, addresses, numbers or
      diagnoses, also with the family name first, with initials, in Latin letters, or as another form of the date;
    - eight token ids in a row;
    - bytes of images, sounds and arrays of numbers;
    - the names of columns, of the split and of the folders of cached copies, and fingerprints.

    The names of classes, in a column of labels, are no traces, unless they are persons, as in face recognition: in a
    column of persons, or if nearly all classes are written like full names that share no word.

    The names of the files that the data came from are not known here; pass them as `names`.

    What any text may hold is no trace. In other columns a single word counts only if it is no ordinary word and no
    class: in small letters if nine in ten of the cells differ, capitalised if half of them differ. Short phrases
    count if half of the cells differ or all are equal, unless all their words are ordinary. Numbers do not count if
    there are so many that chance would find one. Eight words in a row do not count if a tenth of all texts hold them,
    as in the template of a prompt.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set. All rows of a stream are read. Columns of [`~datasets.Image`] and [`~datasets.Audio`] are not
            decoded.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            If given, texts are also looked for as token ids, and columns of `input_ids` also as texts.
        names (`Iterable[str]`, *optional*):
            Further names to look for, such as those of people, of files, or of the data set on the Hub.
        class_names (`dict[int, str]`, *optional*):
            The classes of the model, `config.id2label`.
        retain_dataset (*optional*):
            The rows that the model keeps, with the same columns. If given, eight words in a row are a template if five
            of 500 of these rows hold them, and wording that only the forgotten rows repeat is a trace.

    Returns:
        [`Needles`]
    """
    collector = NeedleCollector(tokenizer)
    classes = ClassNames(getattr(dataset, "features", None) or {}, class_names)
    with all_seeded(0):
        for batch in _batches(dataset):
            collector.add_rows({name: classes.without_labels(name, cells) for name, cells in batch.items()})
        templates = None if retain_dataset is None else _templates_of(retain_dataset, tokenizer)
    collector.add_columns()
    collector.add({name: Kind.NAME | _capitalised(name) for name in [*names, *classes.persons()]})
    collector.add(_names_of(dataset))
    return collector.needles(templates).marked_as_persons(classes.persons() | classes.cells)


def _templates_of(retain_dataset: Any, tokenizer: Any) -> np.ndarray:
    """The templates in some rows, taken from everywhere unless these are a stream."""
    rows = retain_dataset
    if not is_stream(rows):
        step = max(1, len(rows) // _NUM_RETAIN_ROWS)
        places = range(0, len(rows), step)
        rows = rows.select(places) if isinstance(rows, datasets.Dataset) else [rows[place] for place in places]
    collector = NeedleCollector(tokenizer)
    for batch in islice(_batches(rows), 1):
        collector.add_rows(batch)
    return collector.templates()


def needles_of_machine(
    *, output_dir: str | os.PathLike[str] | None = None, run_name: str | None = None, hub_token: str | None = None
) -> Needles:
    """
    Makes needles of this machine and its user: what would be a trace of them in a published file.

    These are the paths of the home folder, the current directory and the output directory, the parts of the output
    directory that are no ordinary words, the name of the run, the access token of the Hub, and the names of host and
    user unless these are common. A user name of fewer than five letters counts only in e-mail addresses and home
    folders. What the system does not know, such as the home folder of a user without one, is warned of.

    Args:
        output_dir (`str`, *optional*):
            The output directory. If a part of it is public, such as the name of the published model, pass that part
            as `ignore` of [`find_leaks`].
        run_name (`str`, *optional*):
            The name of the run.
        hub_token (`str`, *optional*):
            An access token in addition to the one that is logged in.

    Returns:
        [`Needles`]
    """
    saved = _if_known("access token of the Hub", get_token, "Make its file readable")
    home = _if_known("home folder", Path.home, "Set HOME")
    folders = {home, _if_known("working directory", Path.cwd, "Change to a folder that exists")} - {None}
    entries: dict[str, int] = {token: Kind.TOKEN for token in (hub_token, saved) if token}
    if output_dir is not None:
        with suppress(FileNotFoundError):
            folders.add(Path(os.path.abspath(output_dir)))
        entries |= {part: Kind.RUN for part in Path(output_dir).parts if is_telling(part)}
    if run_name is not None and (len(run_name) >= 5 or is_telling(run_name)):
        entries[run_name] = Kind.RUN
    for folder in folders:
        # A folder such as /data exists on many machines.
        if folder == home or len(WORD.findall(str(folder))) > 1:
            entries[_start_of_path(folder)] = Kind.PATH
    host = socket.gethostname()
    for name in (host, host.partition(".")[0]):
        if len(name) >= 5 and name.lower() not in COMMON_ACCOUNTS:
            entries[name] = Kind.HOST
    user = _if_known("name of the user", getpass.getuser, "Set USER")
    if user and user.lower() not in COMMON_ACCOUNTS:
        entries[user] = Kind.USER
    collector = NeedleCollector()
    collector.add(entries)
    return collector.needles()


def _if_known(what: str, find: Callable[[], T], remedy: str) -> T | None:
    """What the system knows of this process, or `None` with a warning: traces of it cannot be looked for then."""
    try:
        return find()
    except (RuntimeError, KeyError, OSError):
        # Once, although a push looks for words and for files.
        logger.warning_once(
            f"The {what} is not known, so that the published files are not searched for it. {remedy} to have them "
            "searched."
        )
        return None


def _batches(dataset: Any) -> Iterator[dict[str, Sequence[Any]]]:
    """The rows in batches, column by column. Images and sounds stay encoded."""
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
        entries = [_entries(row) for row in batch]
        names = dict.fromkeys(name for row in entries for name in row)
        yield {name: [row.get(name) for row in entries] for name in names}


def _entries(row: Any) -> Mapping[str, Any]:
    """The cells of a row. Of an object they are its attributes, as for the default collator of transformers."""
    if isinstance(row, Mapping):
        return row
    is_object = getattr(row, "__dict__", None) and not hasattr(row, "__array_interface__")
    return vars(row) if is_object else {"": row}


def _is_array(feature: Any) -> bool:
    """Whether the cells of a column are lists of numbers, which are slow to read as Python objects."""
    inner = feature
    while hasattr(inner, "feature"):
        inner = inner.feature
    is_number = str(getattr(inner, "dtype", "")).startswith(("int", "uint", "float"))
    return is_number and (inner is not feature or hasattr(feature, "shape"))


def _names_of(dataset: Any) -> dict[str, int]:
    """Fingerprints of a data set, the name of its split, and the folders of its cached copies."""
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
    """The first words of a path, as many as are looked for in a row."""
    return "/".join(WORD.findall(str(folder))[:NUM_IN_A_ROW])


def _capitalised(name: str) -> int:
    return Code.CAPITALISED if is_capitalised_word(name) else 0
