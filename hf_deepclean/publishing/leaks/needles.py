# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Needles: what a search looks for, as hashes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from functools import cached_property

import numpy as np

from .words import (
    BREAK,
    NUM_IN_A_ROW,
    Words,
    blocks,
    hash_of_bytes,
    hashes_of_ids,
    look_up,
    plain_text,
    runs_of,
    table_of,
)


# Among bytes there are no reliable word boundaries: needles are found by their first 7 letters, up to 256 letters.
_NUM_ANCHOR_LETTERS, _MAX_LETTERS = 7, 256
# Emphasis and hyphens may cut eight words into at most this many parts.
_MAX_PARTS = NUM_IN_A_ROW + 2
# Number of bytes of an image, a sound or an array that are compared.
NUM_BLOB_BYTES = 48


class Kind(IntEnum):
    """What a needle is a trace of. If two needles have the same letters, the smaller kind counts."""

    TOKEN = 0
    PATH = 1
    USER = 2
    HOST = 3
    RUN = 4
    IDENTIFIER = 5
    NAME = 6
    TEXT = 7
    WORDS = 8
    COLUMN = 9
    SPLIT = 10
    FINGERPRINT = 11
    TOKEN_IDS = 12
    BLOB = 13

    def __str__(self) -> str:
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Kind.TOKEN: "an access token",
    Kind.PATH: "a local path",
    Kind.USER: "a user name",
    Kind.HOST: "a host name",
    Kind.RUN: "the name of the run or of its folder",
    Kind.IDENTIFIER: "an identifier in the data to forget",
    Kind.NAME: "a name in the data to forget",
    Kind.TEXT: "a text of the data to forget",
    Kind.WORDS: "8 words in a row of the data to forget",
    Kind.COLUMN: "a column name of the data to forget",
    Kind.SPLIT: "the name of a split of the data to forget",
    Kind.FINGERPRINT: "a fingerprint of the data to forget",
    Kind.TOKEN_IDS: "8 token ids in a row of the data to forget",
    Kind.BLOB: "bytes of an image, a sound or an array of the data to forget",
}


class Code(IntFlag):
    """The bits of a needle's code: its kind, and flags that say where it counts."""

    KIND = 15
    SEVERAL_WORDS = 16
    # Counts in vocabularies too, which hold all common words.
    IN_VOCABULARIES = 32
    # Counts only if it begins with a capital letter.
    CAPITALISED = 64
    # Is so short that it counts only if its words are written apart from each other and from what surrounds them.
    APART = 128
    # The name of a person: counts as the name of a class and as an entry of a vocabulary too.
    PERSON = 256


def _no_hashes() -> np.ndarray:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False, repr=False)
class Needles:
    """
    What a search looks for. [`needles_of_dataset`] and [`needles_of_machine`] make needles, and `|` joins them.

    They hold hashes of 64 bits, from which nothing can be read. But a guess can be checked against them, so needles
    must not be published either.

    Args:
        hashes (`np.ndarray`, *optional*):
            Hashes of words in a row, sorted, `uint64`.
        codes (`np.ndarray`, *optional*):
            The [`Code`] of each hash: its kind, and where it counts. `uint16`.
        anchors (`np.ndarray`, *optional*):
            Hashes of their first seven letters, sorted, `uint64`.
        token_ids (`np.ndarray`, *optional*):
            Hashes of eight token ids in a row, sorted, `uint64`.
        max_token_id (`int`, *optional*, defaults to `0`):
            The largest of these ids.
        blob_windows (`np.ndarray`, *optional*):
            Windows of eight bytes of images, sounds and arrays, sorted, `uint64`. There are eight windows per image,
            at successive bytes, so that one of them is at a multiple of eight in any file.
        blob_offsets (`np.ndarray`, *optional*):
            The offset of every window in the bytes that are compared.
        blob_hashes (`np.ndarray`, *optional*):
            The hash of the bytes that are compared, for every window.
    """

    hashes: np.ndarray = field(default_factory=_no_hashes)
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint16))
    anchors: np.ndarray = field(default_factory=_no_hashes)
    token_ids: np.ndarray = field(default_factory=_no_hashes)
    max_token_id: int = 0
    blob_windows: np.ndarray = field(default_factory=_no_hashes)
    blob_offsets: np.ndarray = field(default_factory=_no_hashes)
    blob_hashes: np.ndarray = field(default_factory=_no_hashes)

    def __repr__(self) -> str:
        return (
            f"Needles({len(self.hashes):,} texts, {len(self.token_ids):,} runs of token ids, "
            f"{len(self.blob_hashes) // 8:,} images, sounds or arrays)"
        )

    def __or__(self, other: "Needles") -> "Needles":
        return join_needles([self, other])

    def without(self, texts: Iterable[str], *, but_persons: bool = False) -> "Needles":
        """
        The needles that do not occur in public texts.

        Args:
            texts (`Iterable[str]`):
                The public texts.
            but_persons (`bool`, *optional*, defaults to `False`):
                Whether names, identifiers and traces of the machine stay, although they occur in the texts.
        """
        public = np.zeros(len(self.hashes), bool)
        for text in texts:
            for _, block in blocks(plain_text(text)):
                for _, _, found in self.find_words(Words(block)):
                    public[found] = True
        if but_persons:
            public &= (self.codes & Code.KIND > Kind.NAME) & (self.codes & Code.PERSON == 0)
        return replace(self, hashes=self.hashes[~public], codes=self.codes[~public])

    def marked_as_persons(self, names: Iterable[str]) -> "Needles":
        """The needles, those marked as persons that are one of the names."""
        words = Words(BREAK.join(plain_text(name).replace(BREAK, " ") for name in names))
        pieces = np.unique(words.pieces)
        first, last = (np.searchsorted(words.pieces, pieces, side) for side in ("left", "right"))
        _, found = look_up(self.hashes, self._table, words.hashes(words.starts[first], words.starts[last]))
        codes = self.codes.astype(np.uint16)
        codes[found] |= np.uint16(Code.PERSON)
        return replace(self, codes=codes)

    def find_words(self, words: Words) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Finds runs of whole words that are needles. Yields the first letters, the ends, and the needles' indices."""
        for num_words in range(1, min(_MAX_PARTS, len(words)) + 1):
            first = words.runs(num_words)
            begins, ends = words.starts[first], words.starts[first + num_words]
            hits, found = look_up(self.hashes, self._table, words.hashes(begins, ends))
            yield begins[hits], ends[hits], found

    def find_letters(self, words: Words) -> Iterator[tuple[int, int, int]]:
        """Finds runs of seven letters or more that are needles, within words too. Yields begin, end and needle."""
        num_letters = int(words.starts[-1])
        first = np.arange(max(0, num_letters - _NUM_ANCHOR_LETTERS + 1))
        hits, _ = look_up(self.anchors, self._anchor_table, words.hashes(first, first + _NUM_ANCHOR_LETTERS))
        for begin in hits.tolist():
            ends = np.arange(begin + _NUM_ANCHOR_LETTERS, min(num_letters, begin + _MAX_LETTERS) + 1)
            matches, found = look_up(self.hashes, self._table, words.hashes(np.full_like(ends, begin), ends))
            for end, needle in zip(ends[matches].tolist(), found.tolist(), strict=True):
                yield begin, end, needle

    def find_token_ids(self, ids: np.ndarray) -> np.ndarray:
        """Finds the places in an array of integers where eight token ids that are a needle begin."""
        if not len(self.token_ids):
            return np.empty(0, np.intp)
        # Without their sign, negative numbers are large.
        first = runs_of(ids.view(f"u{ids.itemsize}") <= self.max_token_id, NUM_IN_A_ROW)
        return first[look_up(self.token_ids, self._token_id_table, hashes_of_ids(ids, first))[0]]

    def find_blobs(self, content: np.ndarray) -> Iterator[int]:
        """Finds the places in an array of bytes where compared bytes of an image, a sound or an array begin."""
        if not len(self.blob_windows):
            return
        windows = content[: len(content) // 8 * 8].view("<u8")
        hits, _ = look_up(self.blob_windows, self._blob_table, windows)
        for hit in hits.tolist():
            first, last = (int(np.searchsorted(self.blob_windows, windows[hit], side)) for side in ("left", "right"))
            for index in range(first, last):
                begin = 8 * hit - int(self.blob_offsets[index])
                compared = content[max(0, begin) : begin + NUM_BLOB_BYTES].tobytes()
                if hash_of_bytes(compared) == self.blob_hashes[index]:
                    yield begin

    @cached_property
    def _table(self) -> np.ndarray:
        return table_of(self.hashes)

    @cached_property
    def _anchor_table(self) -> np.ndarray:
        return table_of(self.anchors)

    @cached_property
    def _token_id_table(self) -> np.ndarray:
        return table_of(self.token_ids)

    @cached_property
    def _blob_table(self) -> np.ndarray:
        return table_of(self.blob_windows)


def join_needles(parts: Sequence[Needles]) -> Needles:
    """Joins needles and removes duplicates."""

    def every(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    hashes, codes, windows = every("hashes"), every("codes"), every("blob_windows")
    order = np.lexsort((codes & (Code.KIND | Code.CAPITALISED | Code.APART), hashes))
    hashes, codes, by_window = hashes[order], codes[order], np.argsort(windows, kind="stable")
    once = np.ones(len(hashes), bool)
    once[1:] = hashes[1:] != hashes[:-1]
    if len(codes):
        codes[once] |= np.bitwise_or.reduceat(codes & np.uint16(Code.PERSON), np.flatnonzero(once))
    return Needles(
        hashes[once],
        codes[once],
        np.unique(every("anchors")),
        np.unique(every("token_ids")),
        max(part.max_token_id for part in parts),
        windows[by_window],
        every("blob_offsets")[by_window],
        every("blob_hashes")[by_window],
    )


def needles_of_words(words: Words, first: np.ndarray, last: np.ndarray, codes: np.ndarray) -> Needles:
    """
    Makes needles of runs of words.

    Args:
        words ([`Words`]):
            The words of a text.
        first, last (`np.ndarray`):
            The first word of every run, and the word after its end.
        codes (`np.ndarray`):
            The kinds of the runs, with [`Code.CAPITALISED`] and [`Code.APART`] where these hold.
    """
    begins, ends = words.starts[first], words.starts[last]
    kinds, num_letters, several_words = codes & Code.KIND, ends - begins, last - first > 1
    in_vocabularies = (kinds == Kind.NAME) & several_words
    in_vocabularies |= (kinds <= Kind.IDENTIFIER) & (num_letters >= 8)
    in_vocabularies |= (num_letters >= 12) & (several_words | (codes & Code.CAPITALISED > 0))
    in_vocabularies &= codes & Code.APART == 0
    codes = codes | Code.SEVERAL_WORDS * several_words | Code.IN_VOCABULARIES * in_vocabularies
    return Needles(words.hashes(begins, ends), codes.astype(np.uint16), anchors_of_words(words, first, last))


def anchors_of_words(words: Words, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Hashes of the first seven letters of those runs that have at least seven."""
    begins = words.starts[first][words.starts[last] - words.starts[first] >= _NUM_ANCHOR_LETTERS]
    return words.hashes(begins, begins + _NUM_ANCHOR_LETTERS)
