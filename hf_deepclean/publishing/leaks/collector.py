# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Collects the needles of the rows of a data set."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .columns import Holds, full_names, holds, is_common, is_part_of_name
from .identifiers import (
    WORD,
    has_several_words,
    identifiers_in,
    is_capitalised_word,
    is_date,
    is_one_number,
    names_in,
    phone_numbers,
)
from .needles import NUM_BLOB_BYTES, Code, Kind, Needles, anchors_of_words, join_needles, needles_of_words
from .variants import dates_in_cell, days_in_cell, names_in_cell, values_in_cell
from .words import BREAK, NUM_IN_A_ROW, Words, blocks, hash_of_bytes, hashes_of_ids, mixed, plain_text, runs_of


# Eight words in a row that are in a tenth of all texts, and in at least five, are a template and tell of no text.
_TEMPLATE_SHARE, _MIN_TEMPLATE_TEXTS = 0.1, 5
# At most this share of all numbers with the same number of digits, or of all days of a century, may be needles. If
# there were more, any file would hold one by chance.
_MAX_NUMBER_SHARE, _NUM_DAYS = 1e-3, 36_525

# A column whose name has only such words may be in any data set.
_STANDARD_WORDS = frozenset(
    "a answer attention b chosen chunk class completion context data decoder document end features file id ids image "
    "index input instruction label labels length level mask message messages name ner num output path pixel pos "
    "position positions prompt query question rejected response score sentence source special start summary tags "
    "target test text texts title token tokens train type url user values".split()
)

# If nine in ten different cells of a column of names or identifiers are as short as this, its name is believed.
_MAX_CELL_WORDS, _MAX_CELL_CHARACTERS, _SHORT_SHARE = 8, 120, 0.9
# The days on which people were born. Files that are published tell of later days.
_LAST_BIRTH_YEAR = 2010
# More family names are those of many other people too, and more days of birth those of any other event.
_MAX_FAMILIES, _MAX_BIRTHS = 1000, 365
# Shorter numbers are in any file. Multiples of these are sizes.
_SIZES = (64, 100)
_MIN_DIGITS = 5
_IDENTIFYING = (Holds.NAMES, Holds.PHONES, Holds.BIRTHS, Holds.IDENTIFIERS, Holds.PRIVATE)

_NUM_BATCH_CHARACTERS = 2**20
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass
class _Column:
    """The cells of a column so far. Which of them count is known at the end."""

    num_cells: int = 0
    seen: set[int] = field(default_factory=set)
    # In a column of names or identifiers, its cells of a few words.
    short: list[str] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)
    phrases: dict[str, int] = field(default_factory=dict)


class NeedleCollector:
    """
    Makes needles of cells.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            If given, texts also become needles as token ids, and columns of `input_ids` also as texts.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        # By the name of the column and the keys within its cells.
        self._columns: dict[tuple[str, ...], _Column] = {}
        self._found: list[Needles] = []
        # Numbers with their kinds, by their number of digits; dates are under 0.
        self._numbers: dict[int, dict[str, int]] = {}
        # Eight words in a row: their hashes, the hashes of their first letters, and how many texts hold them.
        self._windows: list[tuple[np.ndarray, ...]] = []
        self._num_texts = 0
        self._token_ids: list[np.ndarray] = []
        self._max_token_id = 0
        # The eight windows of the compared bytes of images, sounds and arrays, by the hash of these bytes.
        self._blobs: dict[int, list[int]] = {}

    def add(self, entries: Mapping[str, int]) -> None:
        """Adds texts with the codes of their kinds. A longer text than eight words adds all its runs of eight."""
        if not entries:
            return
        words = Words(BREAK.join(plain_text(text).replace(BREAK, " ") for text in entries))
        codes = np.fromiter(entries.values(), np.uint16, len(entries))
        first, last = (np.searchsorted(words.pieces, np.arange(len(entries)), side) for side in ("left", "right"))
        short = (last > first) & (last - first <= NUM_IN_A_ROW)
        self._found.append(needles_of_words(words, first[short], last[short], codes[short]))
        first = words.runs(NUM_IN_A_ROW)
        first = first[~short[words.pieces[first]]]
        self._found.append(needles_of_words(words, first, first + NUM_IN_A_ROW, codes[words.pieces[first]]))

    def add_rows(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Adds rows, given by their columns."""
        for name, cells in columns.items():
            self._add_cells(name, cells)
        for name, *both in full_names(columns):
            pairs = zip(*both, strict=True)
            self._add_cells(name, [" ".join(pair) for pair in pairs if all(isinstance(part, str) for part in pair)])

    def _add_cells(self, name: str, cells: Sequence[Any]) -> None:
        """Adds cells of a column."""
        texts: dict[tuple[str, ...], dict[str, int]] = {(name,): {}}
        for cell in cells:
            for path, text in self._texts_of((name,), cell):
                found = texts.setdefault(path, {})
                found[text] = found.get(text, 0) + 1
        for path, found in texts.items():
            column = self._columns.setdefault(path, _Column())
            column.num_cells += sum(found.values())
            plain = dict.fromkeys(plain_text(text).replace(BREAK, " ") for text in found)
            new = [text for text in plain if hash(text) not in column.seen]
            column.seen |= set(map(hash, new))
            for batch in _in_batches(new):
                self._add_texts(" ".join(path), column, batch)

    def _texts_of(self, path: tuple[str, ...], cell: Any) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields the texts of a cell, and adds its arrays, images and sounds."""
        if isinstance(cell, torch.Tensor):
            cell = cell.detach().cpu().numpy()
        elif type(cell).__module__.startswith("PIL."):
            cell = np.asarray(cell)
        if isinstance(cell, (np.ndarray, np.generic)) and (cell.ndim == 0 or cell.dtype.kind in "OUS"):
            cell = cell.tolist()
        match cell:
            case str():
                yield path, cell
            case Path():
                yield path, str(cell)
            case bytes():
                self._add_blob(cell)
                # A text may be stored as bytes. Pixels and samples hold control characters.
                with suppress(UnicodeDecodeError):
                    if not _CONTROL.search(text := cell.decode()):
                        yield path, text
            case bool() | None:
                pass
            case date():
                yield path, f"{cell:%Y-%m-%d}"
            case int() | float():
                if math.isfinite(cell) and cell == int(cell) and abs(cell) >= 10_000:
                    yield path, str(abs(int(cell)))
            case np.ndarray():
                self._add_array(path[-1], cell)
                if self.tokenizer is not None and path[-1].endswith("input_ids") and cell.ndim == 1:
                    yield path, self.tokenizer.decode(cell[cell >= 0].tolist(), skip_special_tokens=True)
            case {"bytes": content, "path": file}:
                # An encoded image or sound.
                if file is not None:
                    yield (*path, "file"), Path(file).stem.replace("_", " ")
                if content is None and file is not None and Path(file).is_file():
                    content = Path(file).read_bytes()
                yield from self._texts_of(path, content)
            case Mapping():
                for key, value in cell.items():
                    yield from self._texts_of((*path, str(key)), value)
                for key, given, family in full_names(cell):
                    if isinstance(given, str) and isinstance(family, str):
                        yield (*path, key), f"{given} {family}"
            case [int() | float(), *_] if all(isinstance(item, (int, float)) for item in cell):
                yield from self._texts_of(path, np.asarray(cell))
            case [str(), *_] if all(isinstance(item, str) and " " not in item for item in cell):
                # The words of one text.
                yield path, " ".join(cell)
            case list() | tuple() | set() | frozenset():
                for item in cell:
                    yield from self._texts_of(path, item)

    def _add_array(self, name: str, array: np.ndarray) -> None:
        if array.dtype.kind == "f":
            self._add_blob(array.astype(np.float32).tobytes())
        elif array.dtype.kind in "iu" and array.size and "mask" not in name:
            if array.max() < 256 and not name.endswith("ids"):
                # Pixels, or labels of words.
                self._add_blob(array.astype(np.uint8).tobytes())
            else:
                self._add_token_ids(array.reshape(-1, array.shape[-1]))

    def _add_texts(self, name: str, column: _Column, texts: list[str]) -> None:
        words = Words(BREAK.join(texts))
        self._add_windows(words)
        num_words = np.bincount(words.pieces, minlength=len(texts)).tolist()
        always: dict[str, int] = {}
        if holds(name) in _IDENTIFYING:
            column.short += [
                text for text in texts if len(text) <= _MAX_CELL_CHARACTERS and len(text.split()) <= _MAX_CELL_WORDS
            ]
        for text, number in zip(texts, num_words, strict=True):
            if number > 1:
                always |= {found: Kind.NAME | Code.CAPITALISED * is_common(found) for found in names_in(text)}
            for found, is_number in identifiers_in(text):
                if is_number:
                    self._numbers.setdefault(len(found), {})[found] = Kind.IDENTIFIER
                else:
                    always[found] = Kind.IDENTIFIER
            if number < NUM_IN_A_ROW:
                self._add_short_text(column, text, always)
        self.add(always)
        if self.tokenizer is not None:
            encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            self._add_token_ids([np.asarray(ids, np.int64) for ids in encoded])

    def _add_short_text(self, column: _Column, text: str, always: dict[str, int]) -> None:
        """Adds a text of fewer than eight words, to the needles that count `always` or to those of the column."""
        words = WORD.findall(text)
        letters = "".join(words)
        if not any(map(str.isalpha, letters)):
            if is_date(text.strip()):
                self._numbers.setdefault(0, {})[text] = Kind.TEXT
        # Counted in bytes, so that two ideographs are enough.
        elif len(letters.encode()) < 4:
            pass
        elif len(words) == 1:
            if not is_common(text):
                column.words[text] = Kind.NAME | Code.CAPITALISED if is_capitalised_word(text) else Kind.TEXT
        elif len(words) > 4 and len(letters) >= 20:
            always[text] = Kind.TEXT
        elif not is_common(text) and (len(letters) >= 12 or not any(map(is_common, words)) or not letters.isascii()):
            column.phrases[text] = Kind.TEXT | (Code.APART if len(letters) < 12 else 0)

    def _add_windows(self, words: Words) -> None:
        """Adds all eight words in a row. They count only if they are no template."""
        first = words.runs(NUM_IN_A_ROW)
        last = first + NUM_IN_A_ROW
        self._num_texts += len(np.unique(words.pieces[first]))
        # Rows of digits are data of another kind, and zeros are everywhere.
        num_letters = np.concatenate([[0], np.cumsum(~words.is_digit)])
        lettered = num_letters[words.starts[last]] - num_letters[words.starts[first]] >= NUM_IN_A_ROW
        first, last = first[lettered], last[lettered]
        hashes = words.hashes(words.starts[first], words.starts[last])
        # Each counts once per text.
        _, once = np.unique(mixed(hashes, words.pieces[first]), return_index=True)
        anchors = anchors_of_words(words, first, last)
        self._windows.append(_counted(hashes[once], anchors[once], np.ones(len(once), np.uint32)))
        if len(self._windows) > 100:
            self._windows = [_counted(*map(np.concatenate, zip(*self._windows, strict=True)))]

    def _add_token_ids(self, rows: Iterable[np.ndarray]) -> None:
        gap = np.array([-1])
        ids = np.concatenate([gap, *(part for row in rows for part in (row.astype(np.int64), gap))])
        first = runs_of(ids >= 0, NUM_IN_A_ROW)
        if not len(first):
            return
        runs = np.lib.stride_tricks.sliding_window_view(ids, NUM_IN_A_ROW)[first]
        num_distinct = 1 + (np.diff(np.sort(runs, axis=1), axis=1) > 0).sum(axis=1)
        steps = np.diff(runs, axis=1)
        # Labels or masks of few values, and positions that count up, are no traces.
        telling = (num_distinct > NUM_IN_A_ROW // 2) & (steps != steps[:, :1]).any(axis=1)
        self._token_ids.append(np.unique(hashes_of_ids(ids, first[telling])))
        self._max_token_id = max(self._max_token_id, int(runs[telling].max(initial=0)))

    def _add_blob(self, content: bytes) -> None:
        """Adds bytes from the middle, from a place where they have several values, which edges of images have not."""
        middle, end = len(content) // 2, len(content) - NUM_BLOB_BYTES + 1
        for start in chain(range(middle, end, 16), range(0, min(middle, end), 16)):
            compared = content[start : start + NUM_BLOB_BYTES]
            windows = [compared[offset : offset + 8] for offset in range(8)]
            if min(len(set(window)) for window in windows) > 2:
                self._blobs[hash_of_bytes(compared)] = [int.from_bytes(window, "little") for window in windows]
                return

    def add_columns(self) -> None:
        """Adds the words and phrases of the columns where they count, and the names of the columns."""
        for path, column in self._columns.items():
            name, num_distinct = path[-1], len(column.seen)
            kind = holds(" ".join(path))
            # Others have the same given name, beside another family name.
            are_parts = (*path[:-1], "full name") in self._columns and is_part_of_name(name)
            if kind in _IDENTIFYING and len(column.short) >= _SHORT_SHARE * num_distinct:
                self._add_identifying(kind, column, are_parts)
            # The rows of one person are equal in many columns. So are those of one template, of ordinary words.
            if num_distinct == 1 and column.num_cells > 1 and kind is not Holds.CLASSES:
                self.add(column.phrases)
            elif 2 * num_distinct >= column.num_cells:
                self.add(column.phrases)
                nearly_all = num_distinct >= max(10, 0.9 * column.num_cells)
                if 2 * len(column.words) > num_distinct and kind is not Holds.CLASSES and not are_parts:
                    self.add({word: code for word, code in column.words.items() if nearly_all or not word.islower()})
            if _is_telling_column(name):
                self.add({name: Kind.COLUMN})

    def _add_identifying(self, kind: Holds, column: _Column, are_parts: bool) -> None:
        """Adds every cell of a column that names or identifies, also as somebody else would write it."""
        # A few values in many rows may be classes, whatever the column is called.
        are_classes = 1 < len(column.seen) < column.num_cells / 2
        entries: dict[str, int] = {}
        for text in column.short:
            if kind is Holds.BIRTHS:
                days = days_in_cell(text)
                if not days:
                    continue
                self._numbers.setdefault(0, {})[text] = Kind.TEXT
                if len(column.short) <= _MAX_BIRTHS and all(day.year <= _LAST_BIRTH_YEAR for day in days):
                    entries |= dates_in_cell(text)
            elif is_one_number(text.strip().removeprefix("+")):
                numbers = {"".join(re.findall(r"\d", text))}
                if kind is Holds.PHONES:
                    numbers |= phone_numbers(text.strip())
                for number in numbers:
                    is_short = len(number) == _MIN_DIGITS
                    if len(number) > _MIN_DIGITS or is_short and all(int(number) % size for size in _SIZES):
                        code = Kind.IDENTIFIER | (Code.APART if is_short else 0)
                        self._numbers.setdefault(len(number), {})[number] = code
            elif kind is Holds.NAMES:
                found = names_in_cell(text, are_classes, len(column.short) > _MAX_FAMILIES)
                alone = Code.CAPITALISED | Code.APART if are_parts and text.lower() != text.upper() else 0
                entries |= {name: code | (alone if name.isalpha() else 0) for name, code in found.items()}
            elif kind is not Holds.PRIVATE or not are_classes:
                entries |= values_in_cell(text, are_classes, kind is Holds.PRIVATE)
        self.add(entries)

    def templates(self) -> np.ndarray:
        """The hashes of eight words in a row that several of the texts hold."""
        if not self._windows:
            return np.empty(0, np.uint64)
        hashes, _, counts = _counted(*map(np.concatenate, zip(*self._windows, strict=True)))
        return hashes[counts >= _MIN_TEMPLATE_TEXTS]

    def needles(self, templates: np.ndarray | None = None) -> Needles:
        """The needles of all that was added but the `templates`, or without these what a tenth of all texts hold."""
        for num_digits, numbers in self._numbers.items():
            num_possible = 9 * 10 ** (num_digits - 1) if num_digits else _NUM_DAYS
            if len(numbers) <= _MAX_NUMBER_SHARE * num_possible:
                self.add(numbers)
        if self._windows:
            hashes, anchors, counts = _counted(*map(np.concatenate, zip(*self._windows, strict=True)))
            if templates is None:
                kept = counts < max(_MIN_TEMPLATE_TEXTS, _TEMPLATE_SHARE * self._num_texts)
            else:
                kept = ~np.isin(hashes, templates)
            code = Kind.WORDS | Code.SEVERAL_WORDS | Code.IN_VOCABULARIES
            self._found.append(Needles(hashes[kept], np.full(kept.sum(), code, np.uint16), anchors[kept]))
        blobs = [(part, place, key) for key, parts in self._blobs.items() for place, part in enumerate(parts)]
        windows, offsets, hashes = np.array(blobs, np.uint64).reshape(-1, 3).T
        token_ids = np.concatenate([np.empty(0, np.uint64), *self._token_ids])
        others = Needles(
            token_ids=token_ids,
            max_token_id=self._max_token_id,
            blob_windows=windows,
            blob_offsets=offsets,
            blob_hashes=hashes,
        )
        return join_needles([*self._found, others])


def _in_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Batches of texts of limited size. Long texts are cut into parts that overlap."""
    batch, size = [], 0
    for text in texts:
        for _, block in blocks(text):
            batch.append(block)
            size += len(block)
            if size >= _NUM_BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _counted(hashes: np.ndarray, anchors: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Merges equal hashes and adds their counts."""
    hashes, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    return hashes, anchors[first], np.bincount(which, counts, len(hashes)).astype(np.uint32)


def _is_telling_column(name: str) -> bool:
    words = WORD.findall(re.sub("([a-z])([A-Z])", r"\1 \2", name))
    return has_several_words(name) and not {word.lower() for word in words if word.isalpha()} <= _STANDARD_WORDS
