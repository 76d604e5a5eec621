# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Texts as runs of letters and digits, whatever stands between them: case, punctuation, white space, emphasis and hyphens
make no difference.

The hash of a run is a polynomial of its letters modulo 2^64, so that the hash of any run in a text is a difference of
two prefix sums, and a search takes time in proportion to the text however much is looked for.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from urllib.parse import unquote

import numpy as np


# Words, or token ids, in a row that are looked for.
NUM_IN_A_ROW = 8
# Between two texts that have nothing to do with each other.
BREAK = "\x1e"

_MULTIPLIER = 0x9E3779B97F4A7C15
_BLOCK_CHARACTERS = 2**20
_OVERLAP_CHARACTERS = 2**11

_LETTER, _IDEOGRAPH, _DIGIT = 1, 2, 3
# Thai and Lao, Burmese, Khmer, and Chinese and Japanese: scripts without spaces between words.
_UNSPACED = ((0x0E00, 0x1000), (0x1000, 0x10A0), (0x1780, 0x1800), (0x2E80, 0xA000), (0xF900, 0xFB00))

_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_FORMATTING = re.compile(r"</?(?:b|i|u|em|strong|mark|code|br|p|span|sub|sup)\s*/?>", re.I)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Words:
    """
    The words of a text, and the hash of any run of its letters and digits.

    A letter of a script without spaces is a word of its own. Characters beyond U+FFFF count as punctuation.

    Args:
        text (`str`):
            The text; words on two sides of a [`BREAK`] are in different pieces of it.

    Attributes:
        positions (`np.ndarray`): Places of the letters and digits in the text.
        starts (`np.ndarray`): Which of them begin a word, and their number.
        pieces (`np.ndarray`): For every word, in which piece it is.
        is_digit (`np.ndarray`): For every letter or digit, whether it is a digit.
    """

    def __init__(self, text: str) -> None:
        kinds, folded = _characters()
        codes = np.minimum(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"), len(kinds) - 1)
        self.positions = np.flatnonzero(kinds[codes])
        letters = codes[self.positions]
        is_ideograph = kinds[letters] == _IDEOGRAPH
        begins = np.ones(len(letters), bool)
        begins[1:] = (np.diff(self.positions) > 1) | is_ideograph[1:] | is_ideograph[:-1]
        self.starts = np.append(np.flatnonzero(begins), len(letters))
        self.pieces = np.searchsorted(np.flatnonzero(codes == ord(BREAK)), self.positions[self.starts[:-1]])
        self.is_digit = kinds[letters] == _DIGIT
        powers, self._inverses = _powers(len(letters) + 1)
        self._sums = np.zeros(len(letters) + 1, np.uint64)
        np.cumsum(folded[letters] * powers[: len(letters)], out=self._sums[1:])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def hashes(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Hashes of the letters from `first` up to `last`."""
        return (self._sums[last] - self._sums[first]) * self._inverses[first]

    def runs(self, num_words: int) -> np.ndarray:
        """First words of all runs of so many words within a piece."""
        return np.flatnonzero(self.pieces[: max(0, len(self) - num_words + 1)] == self.pieces[num_words - 1 :])


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Of every character up to U+FFFF the kind, 0 for punctuation and the like, and it in small."""
    kinds, folded = np.zeros(2**16, np.uint8), np.arange(2**16, dtype=np.uint64)
    for code in range(2**16):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            kinds[code] = _DIGIT if category == "Nd" else _LETTER
            small = chr(code).casefold()
            folded[code] = ord(small) if len(small) == 1 else code
    for first, last in _UNSPACED:
        kinds[first:last][kinds[first:last] == _LETTER] = _IDEOGRAPH
    return kinds, folded


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the multiplier, and of its inverse modulo 2^64."""
    return _powers_of_two(max(12, (size - 1).bit_length()))


@cache
def _powers_of_two(num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    factors = np.ones((2, 2**num_bits), np.uint64)
    factors[0, 1:], factors[1, 1:] = _MULTIPLIER, pow(_MULTIPLIER, -1, 2**64)
    powers, inverses = np.cumprod(factors, axis=1)
    return powers, inverses


def hashes_of_ids(ids: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Hashes of eight token ids in a row, from each of the places in `first` on."""
    powers, _ = _powers(NUM_IN_A_ROW)
    hashes = np.zeros(len(first), np.uint64)
    for place in range(NUM_IN_A_ROW):
        hashes += (ids[first + place].astype(np.uint64) + np.uint64(1)) * powers[place + 1]
    return hashes


def hash_of_bytes(content: bytes) -> int:
    """64 bits."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def mixed(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Hashes of pairs."""
    return hashes + others.astype(np.uint64) * np.uint64(_MULTIPLIER)


def table_of(hashes: np.ndarray) -> np.ndarray:
    """Which leading bits occur; a look-up in it costs a tenth of a search among the hashes."""
    table = np.zeros(2 ** min(26, max(16, 4 + len(hashes).bit_length())), bool)
    table[_leading_bits(hashes, table)] = True
    return table


def _leading_bits(hashes: np.ndarray, table: np.ndarray) -> np.ndarray:
    # Multiplied once more, because bytes of files stand here too.
    return (hashes * np.uint64(_MULTIPLIER)) >> np.uint64(65 - len(table).bit_length())


def look_up(known: np.ndarray, table: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Finds hashes among known ones.

    Args:
        known (`np.ndarray`):
            The known hashes, sorted.
        table (`np.ndarray`):
            What [`table_of`] makes of them.
        hashes (`np.ndarray`):
            The hashes to find.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Which of the hashes are known, and where they stand among the known ones.
    """
    hits = np.flatnonzero(table[_leading_bits(hashes, table)])
    if not len(hits):
        return hits, hits
    found = np.minimum(np.searchsorted(known, hashes[hits]), len(known) - 1)
    equal = known[found] == hashes[hits]
    return hits[equal], found[equal]


def runs_of(marks: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """Places from which on so many entries, one in a stride, are marked."""
    width = 1
    while width < length:
        step = min(width, length - width)
        marks = marks[: max(0, len(marks) - step * stride)] & marks[step * stride :]
        width += step
    return np.flatnonzero(marks)


def plain_text(text: str) -> str:
    """A text without HTML entities, Unicode escapes, percent-encoding, formatting tags and invisible characters."""
    if "\\u" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if "&" in text:
        text = html.unescape(text)
    if "%" in text:
        text = unquote(text)
    if "<" in text:
        text = _FORMATTING.sub(" ", text)
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return text


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Parts of a text that overlap, with the places where they begin."""
    for start in range(0, max(1, len(text) - _OVERLAP_CHARACTERS), _BLOCK_CHARACTERS):
        yield start, text[start : start + _BLOCK_CHARACTERS + _OVERLAP_CHARACTERS]
