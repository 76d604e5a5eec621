# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Splits texts into words of letters and digits, and hashes runs of words. Case, accents, punctuation, white space,
emphasis and hyphens make no difference.

The hash of a run is a polynomial of its letters modulo 2^64, so the hash of any run in a text is a difference of two
prefix sums. The time of a search is proportional to the text, however many needles there are.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from urllib.parse import unquote

import numpy as np


# Number of words, or token ids, in a row that are looked for.
NUM_IN_A_ROW = 8
# Separates independent texts.
BREAK = "\x1e"

_MULTIPLIER = 0x9E3779B97F4A7C15
_BLOCK_CHARACTERS = 2**20
_OVERLAP_CHARACTERS = 2**11

_LETTER, _IDEOGRAPH, _DIGIT = 1, 2, 3
# Beyond these are no letters. The last ones are ideographs alone.
_NUM_CHARACTERS, _FIRST_RARE_IDEOGRAPH = 0x323C0, 0x20000
# Letters that are written without their accents too: Latin, Greek, Cyrillic and Arabic. Some do not decompose.
_ACCENTED = (*range(0x00C0, 0x0530), *range(0x0620, 0x0700), *range(0x1E00, 0x2000))
_PLAIN_LETTERS = dict(zip("øłđħıىةی", "oldhiيهي", strict=True))
# Thai and Lao, Burmese, Khmer, and Chinese and Japanese: scripts without spaces between words.
_UNSPACED = ((0x0E00, 0x1000), (0x1000, 0x10A0), (0x1780, 0x1800), (0x2E80, 0xA000), (0xF900, 0xFB00))

# Invisible characters, accents that belong to no letter, the points of Hebrew and Arabic, and the Arabic stroke.
_INVISIBLE = re.compile(
    "[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0640\u064b-\u065f\u0670\u200b-\u200f\u2060\u2066-\u2069\ufeff]"
)
_FORMATTING = re.compile(r"</?(?:b|i|u|em|strong|mark|code|br|p|span|sub|sup)\s*/?>", re.I)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Words:
    """
    The words of a text, with the hash of any run of its letters and digits.

    In a script without spaces every letter is a word. Accents make no difference.

    Args:
        text (`str`):
            The text. [`BREAK`] divides it into pieces.

    Attributes:
        positions (`np.ndarray`): The place in the text of every letter or digit.
        starts (`np.ndarray`): The indices of the letters that begin a word; at the end, the number of letters.
        pieces (`np.ndarray`): For every word, the index of its piece.
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
        """Hashes of the letters from `first` up to `last`, which is not included."""
        return (self._sums[last] - self._sums[first]) * self._inverses[first]

    def runs(self, num_words: int) -> np.ndarray:
        """The first words of all runs of `num_words` words within a piece."""
        return np.flatnonzero(self.pieces[: max(0, len(self) - num_words + 1)] == self.pieces[num_words - 1 :])


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """For every character its kind, 0 for punctuation and the like, and its lower case without accents."""
    kinds, folded = np.zeros(_NUM_CHARACTERS, np.uint8), np.arange(_NUM_CHARACTERS, dtype=np.uint64)
    for code in range(0x1F000):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            kinds[code] = _DIGIT if category == "Nd" else _LETTER
            small = chr(code).casefold()
            folded[code] = ord(small) if len(small) == 1 else code
    for first, last in _UNSPACED:
        kinds[first:last][kinds[first:last] == _LETTER] = _IDEOGRAPH
    for code in _ACCENTED:
        base, *marks = unicodedata.normalize("NFD", chr(code).casefold())
        if all(map(unicodedata.combining, marks)):
            folded[code] = ord(_PLAIN_LETTERS.get(base, base))
    kinds[_FIRST_RARE_IDEOGRAPH:-1] = _IDEOGRAPH
    return kinds, folded


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers of the multiplier and of its inverse, modulo 2^64."""
    return _powers_of_two(max(12, (size - 1).bit_length()))


@cache
def _powers_of_two(num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    factors = np.ones((2, 2**num_bits), np.uint64)
    factors[0, 1:], factors[1, 1:] = _MULTIPLIER, pow(_MULTIPLIER, -1, 2**64)
    powers, inverses = np.cumprod(factors, axis=1)
    return powers, inverses


def hashes_of_ids(ids: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Hashes of the eight token ids in a row that begin at each place in `first`."""
    powers, _ = _powers(NUM_IN_A_ROW)
    hashes = np.zeros(len(first), np.uint64)
    for place in range(NUM_IN_A_ROW):
        hashes += (ids[first + place].astype(np.uint64) + np.uint64(1)) * powers[place + 1]
    return hashes


def hash_of_bytes(content: bytes) -> int:
    """A hash of 64 bits."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def mixed(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Hashes of pairs of a hash and a number."""
    return hashes + others.astype(np.uint64) * np.uint64(_MULTIPLIER)


def table_of(hashes: np.ndarray) -> np.ndarray:
    """A table of the leading bits that occur. A look-up in it costs a tenth of a search among the hashes."""
    table = np.zeros(2 ** min(26, max(16, 4 + len(hashes).bit_length())), bool)
    table[_leading_bits(hashes, table)] = True
    return table


def _leading_bits(hashes: np.ndarray, table: np.ndarray) -> np.ndarray:
    # Multiplied once more, because raw bytes of files are looked up too.
    return (hashes * np.uint64(_MULTIPLIER)) >> np.uint64(65 - len(table).bit_length())


def look_up(known: np.ndarray, table: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Finds hashes among known hashes.

    Args:
        known (`np.ndarray`):
            The known hashes, sorted, `uint64`.
        table (`np.ndarray`):
            Their table, made by [`table_of`].
        hashes (`np.ndarray`):
            The hashes to find, `uint64`.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The indices of the hashes that are known, and their indices in `known`.
    """
    hits = np.flatnonzero(table[_leading_bits(hashes, table)])
    if not len(hits):
        return hits, hits
    found = np.minimum(np.searchsorted(known, hashes[hits]), len(known) - 1)
    equal = known[found] == hashes[hits]
    return hits[equal], found[equal]


def runs_of(marks: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """The places from which `length` entries in a row, `stride` apart, are marked."""
    width = 1
    while width < length:
        step = min(width, length - width)
        marks = marks[: max(0, len(marks) - step * stride)] & marks[step * stride :]
        width += step
    return np.flatnonzero(marks)


def plain_text(text: str) -> str:
    """Decodes entities, escapes and percent-encoding; removes formatting tags, invisible characters and points."""
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
    """Cuts a text into parts that overlap. Yields the place where each begins, and the part."""
    for start in range(0, max(1, len(text) - _OVERLAP_CHARACTERS), _BLOCK_CHARACTERS):
        yield start, text[start : start + _BLOCK_CHARACTERS + _OVERLAP_CHARACTERS]
