# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells the names of classes that name persons, as in face recognition, from all others, which are public."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .columns import Holds, holds, is_common
from .identifiers import WORD, names_in


# Columns of the classes of a model, unlike those of words.
_LABELS = re.compile(r"label|class|categor|topic|intent|sentiment|emotion|genre|\btags?\b", re.I)
# A longer cell is a text, whatever its column is called.
_MAX_LABEL_WORDS = 4
# If so many of the classes are written like the name of a person, they are persons.
_SHARE_OF_PERSONS = 0.8
# If more of at least four have an ordinary word, as names of departments and subjects do, they are none.
_SHARE_OF_ORDINARY, _MIN_ORDINARY = 0.5, 4
_REST = frozenset("other others unknown none background rest nobody noone noise silence".split())


def class_names_of(folder: Path) -> dict[int, str]:
    """The classes of the model in a folder, by `id2label` of its configuration."""
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return {int(number): name for number, name in names.items() if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class ClassNames:
    """
    Collects the classes of the rows to forget.

    Args:
        features (`Mapping`):
            The features of the data set. [`~datasets.ClassLabel`]s name their classes.
        class_names (`dict[int, str]`, *optional*):
            The classes of the model, `config.id2label`.

    Attributes:
        cells (`set[str]`): The short cells of columns of persons.
    """

    def __init__(self, features: Mapping[str, Any], class_names: Mapping[int, str] | None = None) -> None:
        self.cells: set[str] = set()
        self._names = {name: dict(enumerate(one.names)) for name, one in features.items() if hasattr(one, "names")}
        self._of_model = {int(number): str(name) for number, name in (class_names or {}).items()}
        self._found: dict[str, set[str]] = {}

    def without_labels(self, column: str, cells: Sequence[Any]) -> Sequence[Any]:
        """The cells of a column, with None in place of the names of classes, which are remembered."""
        found, texts = self._found.setdefault(column, set()), {cell for cell in cells if isinstance(cell, str)}
        # A column of breeds need not be called a label.
        is_label = bool(_LABELS.search(column) or texts and texts <= set(self._of_model.values()))
        names = self._names.get(column, self._of_model if is_label else {})
        if names:
            found |= {names[int(cell)] for cell in cells if _is_number(cell) and int(cell) in names}
        short = [isinstance(cell, str) and len(WORD.findall(cell)) <= _MAX_LABEL_WORDS for cell in cells]
        if holds(column) is Holds.NAMES:
            self.cells.update(cell for cell, is_short in zip(cells, short, strict=True) if is_short)
        elif is_label:
            found.update(cell for cell, is_short in zip(cells, short, strict=True) if is_short)
            return [None if is_short else cell for cell, is_short in zip(cells, short, strict=True)]
        return cells

    def persons(self) -> set[str]:
        """The names of the classes that are persons: of a column of persons, or if nearly all are written so."""
        persons: set[str] = set()
        for column, found in self._found.items():
            names = set(self._names.get(column, {}).values()) | found
            if found <= set(self._of_model.values()):
                names |= set(self._of_model.values())
            if _are_persons(names):
                persons |= set(filter(_is_person, found))
            elif holds(column) is Holds.NAMES:
                persons |= {name for name in found if _is_person(name) or _is_one_name(name)}
        return persons


def _is_number(cell: Any) -> bool:
    return getattr(cell, "ndim", 0) == 0 and hasattr(cell, "__index__")


def _is_one_name(name: str) -> bool:
    """Whether a class in a column of persons may be a name of one word, such as a surname."""
    return not is_common(name) and len(name.encode()) >= 4 and (name[0].isupper() or not name.isascii())


def _are_persons(names: Iterable[str]) -> bool:
    """Whether classes are persons: nearly all have given and family names, which are no ordinary words and differ."""
    names = [name for name in names if name.lower() not in _REST]
    words = Counter(word for name in names if "@" not in name for word in set(WORD.findall(name)))
    shared = len(names) > 1 and max(words.values(), default=0) > len(names) / 2
    persons = list(filter(_is_person, names))
    num_ordinary = sum(any(len(word) > 1 and is_common(word) for word in WORD.findall(name)) for name in persons)
    if shared or len(persons) >= _MIN_ORDINARY and num_ordinary > _SHARE_OF_ORDINARY * len(persons):
        return False
    return bool(names) and len(persons) >= _SHARE_OF_PERSONS * len(names)


def _is_person(name: str) -> bool:
    """Whether a class is written like the name of a person, or is an e-mail address."""
    last, _, first = re.sub(r"[_\s]+", " ", name).partition(",")
    plain = re.sub(r"\b([A-Z])(?= )", r"\1.", f"{first} {last}".strip())
    return plain in names_in(plain) or re.fullmatch(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", name) is not None
