# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the texts within files of several formats."""

import base64
import json
import os
import pickletools
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from .encodings import OF_ONE_BYTE, WITH_HIGH_LETTERS
from .words import BREAK, NUM_IN_A_ROW, runs_of


# Longer texts are searched as bytes.
MAX_TEXT_BYTES = 2**28
PNG = b"\x89PNG\r\n\x1a\n"

# Shorter texts among bytes occur by chance.
_MIN_ASCII_BYTES, _MIN_UTF8_BYTES, _MIN_WIDE_LETTERS = 8, 12, 6

_VOCABULARY_NAME = re.compile(
    r"(?:.*[._-])?(?:vocab|vocabulary|merges)(?:[._-].*)?\.(?:txt|json|bpe)|.*\.(?:spm|tiktoken|vocab)|bpe\.codes|dict\.txt|"
    r"(?:.*[._-])?(?:tokenizer|spiece|bpe)\.model"
)

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


class Label(str):
    """A part of a field's name that does not come from the file."""


# A place in a file: keys and names from the file, positions in lists, and labels.
Field = tuple[str | int, ...]


def is_vocabulary(name: str) -> bool:
    """Whether a file with this name is the vocabulary of a tokenizer."""
    return _VOCABULARY_NAME.fullmatch(name) is not None


def parsed(text: str) -> Any:
    """
    Parses JSON. Objects become tuples of pairs, so that no key is lost that occurs twice.

    Raises:
        `ValueError`: If the text is no JSON object or list, or is nested too deeply.
    """
    if not text.lstrip().startswith(("{", "[")):
        raise ValueError("neither an object nor a list")
    try:
        return json.loads(text, object_pairs_hook=tuple)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def leaves(value: Any) -> Iterator[tuple[Field, str | list[int]]]:
    """Yields the keys, texts, long numbers, and lists of at least eight integers in a value of [`parsed`]."""
    stack: list[tuple[Field, Any]] = [((), value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, tuple):
            for key, item in value:
                yield (*path, key), key
                stack.append(((*path, key), item))
        elif isinstance(value, list):
            if len(value) >= NUM_IN_A_ROW and all(type(item) is int for item in value):
                yield path, value
            stack += [((*path, place), item) for place, item in enumerate(value)]
        elif isinstance(value, str):
            yield path, value
        elif isinstance(value, int) and abs(value) >= 10_000:
            yield path, str(abs(value))


def safetensors_header(content: np.ndarray) -> tuple[int, Any] | None:
    """Where the tensors of a safetensors file begin, and its header. None for other files."""
    size = int.from_bytes(content[:8].tobytes(), "little")
    try:
        header = parsed(content[8 : 8 + min(size, MAX_TEXT_BYTES)].tobytes().decode())
        if all(name == "__metadata__" or dict(entry)["data_offsets"][0] >= 0 for name, entry in header):
            return 8 + size, header
    except (ValueError, KeyError, TypeError, IndexError):
        pass
    return None


def png_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yields the kinds and texts of the text chunks of a PNG file."""
    file.read(len(PNG))
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            file.seek(size + 4, os.SEEK_CUR)
            continue
        content = file.read(size)
        file.seek(4, os.SEEK_CUR)
        keyword, _, text = content.partition(b"\0")
        if kind == b"zTXt":
            content = keyword + b"\0" + _inflated(text[1:])
        elif kind == b"iTXt" and text[:1] == b"\1":
            language, translated, text = text[2:].split(b"\0", 2)
            content = b"\0".join([keyword, language, translated, _inflated(text)])
        yield kind.decode(), content.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _inflated(content: bytes) -> bytes:
    return zlib.decompressobj().decompress(content, MAX_TEXT_BYTES)


def pickled_texts(file: BinaryIO) -> Iterator[str]:
    """Yields the texts and long numbers of successive pickles, without executing them."""
    # Other data may follow, such as tensors.
    with suppress(ValueError, IndexError, OverflowError, struct.error):
        while True:
            for _, argument, _ in pickletools.genops(file):
                if isinstance(argument, str):
                    yield argument
                elif isinstance(argument, int) and not isinstance(argument, bool) and abs(argument) >= 10_000:
                    yield str(abs(argument))


@cache
def _bytes_of_characters() -> dict[str, int]:
    """The bytes by the characters that byte-level tokenizers write for them since GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def text_of_token(entry: str) -> str:
    """The text of an entry of a vocabulary. Only spaces within the entry divide it."""
    entry = entry.replace("</w>", " ")
    if entry.isascii():
        return entry
    table = _bytes_of_characters()
    try:
        return bytes(table[character] for character in entry if character != " ").decode()
    except (KeyError, UnicodeDecodeError):
        return entry


def entry_in_line(line: str) -> str:
    """
    The entry in a line of a vocabulary: what stands before its count, score or number, the two parts of a merge as
    one, or what a line in base64 spells.
    """
    parts = line.rsplit(maxsplit=1)
    if len(parts) < 2:
        return line
    first, last = parts
    if not _NUMBER.fullmatch(last):
        return first + last if " " not in first.strip() else line
    with suppress(ValueError):
        return base64.b64decode(first, validate=True).decode()
    return first


def pieces_of_sentencepiece(content: bytes) -> list[tuple[str, bool]] | None:
    """
    Reads the pieces of a sentencepiece model, and whether they belong to its vocabulary, as pieces do that the owner
    has not added. None for other files.
    """
    pieces, place = [], 0
    try:
        while place < len(content) and content[place] == 0x0A:
            size, place = _varint(content, place + 1)
            piece, place = content[place : place + size], place + size
            if piece[0] != 0x0A:
                return None
            length, begin = _varint(piece, 1)
            # The type follows the score; 3 and 4 are of the owner.
            added = piece[begin + length :].endswith((b"\x18\3", b"\x18\4"))
            pieces.append((piece[begin : begin + length].decode(), not added))
    except (IndexError, UnicodeDecodeError):
        return None
    return pieces or None


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number in the encoding of protocol buffers, and the place after it."""
    number = shift = 0
    while True:
        number |= (content[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if content[place - 1] < 0x80:
            return number, place


def texts_in_bytes(chunk: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """
    Finds texts among bytes: at least eight bytes of ASCII, twelve of UTF-8 or of an encoding of one byte per letter,
    or eight letters below U+1000 in UTF-16 or UTF-32.

    Args:
        chunk (`np.ndarray`):
            The bytes, `uint8`.

    Yields:
        `tuple[str, np.ndarray]`: All texts of one encoding, with [`BREAK`] between them, and the places where they
        begin.
    """
    printable = (chunk - np.uint8(32) < np.uint8(95)) | (chunk - np.uint8(9) < np.uint8(5))
    yield _joined(chunk, runs_of(printable, _MIN_ASCII_BYTES), _MIN_ASCII_BYTES, "utf-8")
    follows = chunk.view(np.int8) < np.int8(-64)
    leads = chunk >= np.uint8(0xC2)
    utf8 = printable.copy()
    utf8[:-1] |= leads[:-1] & follows[1:]
    utf8[1:] |= follows[1:] & (leads | follows)[:-1]
    yield _joined(chunk, runs_of(utf8, _MIN_UTF8_BYTES), _MIN_UTF8_BYTES, "utf-8")
    groups = chunk[: len(chunk) // 4 * 4].view("<u4")
    # Seven letters in a row hold four at a multiple of four, and letters have this bit. Weights rarely have it.
    if ((groups & np.uint32(0x40404040)) == 0x40404040).any():
        letters = ((chunk & np.uint8(0x40)) != 0) | (chunk - np.uint8(32) < np.uint8(16))
        starts = runs_of(letters, _MIN_UTF8_BYTES)
        for encoding in WITH_HIGH_LETTERS if len(starts) else ():
            yield _joined(chunk, starts, _MIN_UTF8_BYTES, encoding)
    # Of eight letters in UTF-16 every second byte is small in twelve bytes from a multiple of four.
    for mask in (0xF000F000, 0x00F000F0):
        small = (groups & np.uint32(mask)) == 0
        if (small[:-2] & small[1:-1] & small[2:]).any():
            yield from _wide_texts(chunk)
            return


def _wide_texts(chunk: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Texts in UTF-16 and UTF-32 in both orders of bytes: in the other one, the small byte is of the next letter."""
    small = chunk < np.uint8(16)
    pairs = (chunk[:-1] != 0) & small[1:]
    for width, marks in ((2, pairs), (4, pairs[:-2] & small[2:-1] & small[3:])):
        starts = runs_of(marks, _MIN_WIDE_LETTERS, width)
        starts = starts[np.argsort(starts % width, kind="stable")]
        for order in ("le", "be") if len(starts) else ():
            yield _joined(chunk, starts, _MIN_WIDE_LETTERS, f"utf-{8 * width}-{order}", width)


def _joined(
    chunk: np.ndarray, starts: np.ndarray, length: int, encoding: str, width: int = 1
) -> tuple[str, np.ndarray]:
    """Joins overlapping runs of `length` letters of `width` bytes, which begin at `starts`, to texts."""
    first = np.ones(len(starts), bool)
    first[1:] = np.diff(starts) != width
    last = np.append(first[1:], True)[: len(starts)]
    starts, ends = starts[first], starts[last] + length * width
    if encoding.endswith("be"):
        starts, ends = starts - width + 1, ends + 1
        starts[starts < 0] += width
    content = chunk.tobytes() if len(starts) else b""
    pieces = [content[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    if encoding in OF_ONE_BYTE:
        pieces = [b"" if piece.isascii() else piece for piece in pieces]
    if width == 1:
        return BREAK.encode().join(pieces).decode(encoding, "replace"), starts
    # Masks are no texts.
    texts = ("" if len(set(piece)) < 4 else piece.decode(encoding, "replace").replace(BREAK, " ") for piece in pieces)
    return BREAK.join(texts), starts
