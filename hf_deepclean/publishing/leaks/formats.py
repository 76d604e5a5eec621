# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the texts within files of several formats."""

import codecs
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

from .words import BREAK, NUM_IN_A_ROW, runs_of


# Longer texts are searched as bytes.
MAX_TEXT_BYTES = 2**28
PNG = b"\x89PNG\r\n\x1a\n"

# Shorter texts among bytes occur by chance.
_MIN_ASCII_BYTES, _MIN_UTF8_BYTES = 8, 12

_VOCABULARY_NAME = re.compile(
    r"(?:vocab|merges)\.(?:txt|json|bpe)|.*\.(?:spm|tiktoken)|(?:.*[._-])?(?:tokenizer|spiece|bpe)\.model"
)


class Label(str):
    """A part of a field's name that does not come from the file."""


# A place in a file: keys and names from the file, positions in lists, and labels.
Field = tuple[str | int, ...]


def is_vocabulary(name: str) -> bool:
    """Whether a file with this name is the vocabulary of a tokenizer."""
    return _VOCABULARY_NAME.fullmatch(name) is not None


def decoded(content: np.ndarray) -> str | None:
    """The text of a text file in UTF-8. None for other files."""
    head = content[:4096].tobytes()
    if len(content) > MAX_TEXT_BYTES or b"\0" in head:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        text = content.tobytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


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
        elif isinstance(value, int) and abs(value) >= 100_000:
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
                elif isinstance(argument, int) and not isinstance(argument, bool) and abs(argument) >= 100_000:
                    yield str(abs(argument))


@cache
def _bytes_of_characters() -> dict[str, int]:
    """The bytes by the characters that byte-level tokenizers write for them since GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def text_of_token(entry: str) -> str:
    """The text of an entry of a vocabulary, or of the two parts of a merge."""
    entry = entry.replace("</w>", " ")
    if entry.isascii():
        return entry
    table = _bytes_of_characters()
    try:
        return " ".join(bytes(table[character] for character in part).decode() for part in entry.split(" "))
    except (KeyError, UnicodeDecodeError):
        return entry


def texts_in_bytes(chunk: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """
    Finds texts among bytes: at least eight bytes of ASCII, twelve of UTF-8, or eight letters of ASCII in UTF-16 or
    UTF-32.

    Args:
        chunk (`np.ndarray`):
            The bytes, `uint8`.

    Yields:
        `tuple[str, np.ndarray]`: All texts of one encoding, with [`BREAK`] between them, and the places where they
        begin.
    """
    printable = (chunk - np.uint8(32) < np.uint8(95)) | (chunk - np.uint8(9) < np.uint8(5))
    yield _joined(chunk, runs_of(printable, _MIN_ASCII_BYTES), _MIN_ASCII_BYTES)
    follows = (chunk & np.uint8(0xC0)) == np.uint8(0x80)
    leads = chunk >= np.uint8(0xC2)
    utf8 = printable.copy()
    utf8[:-1] |= leads[:-1] & follows[1:]
    utf8[1:] |= follows[1:] & (leads | follows)[:-1]
    yield _joined(chunk, runs_of(utf8, _MIN_UTF8_BYTES), _MIN_UTF8_BYTES)
    zero = chunk == 0
    utf16 = printable[:-1] & zero[1:]
    yield _joined(chunk, runs_of(utf16, _MIN_ASCII_BYTES, 2), _MIN_ASCII_BYTES, 2)
    utf32 = utf16[:-2] & zero[2:-1] & zero[3:]
    yield _joined(chunk, runs_of(utf32, _MIN_ASCII_BYTES, 4), _MIN_ASCII_BYTES, 4)


def _joined(chunk: np.ndarray, starts: np.ndarray, length: int, stride: int = 1) -> tuple[str, np.ndarray]:
    """Joins overlapping runs of `length` characters, which begin at `starts`, to texts."""
    first = np.ones(len(starts), bool)
    first[1:] = np.diff(starts) != stride
    last = np.append(first[1:], True)[: len(starts)]
    starts, ends = starts[first], starts[last] + length * stride
    content = chunk.tobytes() if len(starts) else b""
    texts = [content[start:end:stride] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return BREAK.encode().join(texts).decode("utf-8", "replace"), starts
