# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Searches one file of any format."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .columns import is_common
from .encodings import other_texts, readings, utf8_text
from .formats import (
    MAX_TEXT_BYTES,
    PNG,
    Field,
    Label,
    entry_in_line,
    is_vocabulary,
    leaves,
    parsed,
    pickled_texts,
    pieces_of_sentencepiece,
    png_texts,
    safetensors_header,
    text_of_token,
    texts_in_bytes,
)
from .identifiers import WORD, is_one_number
from .needles import Code, Kind, Needles
from .words import BREAK, Words, blocks, plain_text


_CHUNK_BYTES = 2**19
_OVERLAP_BYTES = 2**11
_MAX_UNPACKED_BYTES = 2**30
_MAX_DEPTH = 8
_BATCH_CHARACTERS = 2**20

# The vocabularies of general models have at least 28,000 entries, so a smaller one is of the training data.
_MIN_GENERAL_ENTRIES = 20_000
# The numbers of tokens, of which a large vocabulary has some of any number of up to six digits.
_TOKEN_NUMBER = re.compile(r"added_tokens\.\d+\.id|added_tokens_decoder\.\d{1,6}|(?:\w+_)?token_ids?(?:\.\d+)?")
# Shorter names without a space between them may be an ordinary word.
_MIN_JOINED_LETTERS = 10
_BORDERS = ("", " ", "\u2581", BREAK)

_BYTES = Label("bytes")
_UNPACK = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

DIGITS = re.compile(r"([0-9]+)")
_INTEGERS = re.compile(r"(?<![0-9])[0-9]{1,18}(?:[\s,;|]+[0-9]{1,18}){7,}")
_ABSOLUTE = re.compile(r"(?:^|[^\w.])[/\\]+$")
_FEW_WORDS = re.compile(r"\w+(?:(?:\W|_){1,3}[^\W_]+)+")
_NAME_BEFORE = re.compile(r"([A-ZÀ-ÞĀ-ŽΆ-Я]\w*)[.,'’\"]?[ \n]+$")
_NAME_AFTER = re.compile(r"^,?[ \n]+(?:(?:van|von|der|den|de|da|di|del|la|le|bin|al) ){0,2}([A-ZÀ-ÞĀ-ŽΆ-Я]\w*)")
_WHOLE_NUMBER = re.compile(r"[0-9]+|[0-9]{1,3}(?:[, ][0-9]{3})+|(?:[0-9]{1,4}[./-] ?){2}[0-9]{1,4}")
_IN_HOMES = re.compile(r"[/\\](?:home|users)[/\\]$", re.I)


class FileSearch:
    """
    Searches files one after the other.

    Args:
        needles ([`Needles`]):
            What to look for.

    Attributes:
        found (`set[tuple[Field, Kind]]`): The fields and kinds of the leaks in the present file.
    """

    def __init__(self, needles: Needles) -> None:
        self.needles = needles
        self.found: set[tuple[Field, Kind]] = set()
        self._are_leaks: dict[str, bool] = {}

    def fields(self) -> Iterator[tuple[str, str]]:
        """The fields and kinds. A leak that was found in a field is not reported again for the bytes of the file."""
        in_fields = {kind for field, kind in self.found if field[0] is not _BYTES}
        for field, kind in self.found:
            if field[0] is not _BYTES or kind not in in_fields:
                yield self._masked_field(field), str(kind)

    def name(self, path: Path, label: Label) -> None:
        """Searches the name of a file or folder. The folders above it have their own turn."""
        text = plain_text(str(path))
        start = len(text) - len(plain_text(path.name))
        self.found |= {((label,), kind) for _, end, kind in self._hits_anywhere(text) if end > start}

    def content(self, name: str, content: np.ndarray, file: BinaryIO, field: Field = ()) -> None:
        """Searches the content of a file, given as bytes and as an open file."""
        is_small = len(content) <= MAX_TEXT_BYTES
        text = utf8_text(content) if is_small else None
        header = safetensors_header(content) if text is None and name.endswith(".safetensors") else None
        if text is not None:
            self._text(name, text, field)
        elif header is not None:
            self._tensors(content, *header, field)
        else:
            for text in other_texts(content) if is_small else ():
                self._text(name, text, field)
            pieces = pieces_of_sentencepiece(content.tobytes()) if is_small and is_vocabulary(name) else None
            if pieces is not None:
                self._pieces(pieces, field)
            self._packed(content[:8].tobytes(), file, field)
            self._bytes(content, lambda _: (*field, _BYTES), is_vocabulary(name))

    # Names in messages, without the traces in them.

    def masked_path(self, path: Path) -> str:
        """The path with a * in place of every part that is a leak."""
        parts = []
        for part in path.parts:
            suffix = Path(part).suffix
            kept = suffix if len(suffix) <= 5 and not self._is_leak(suffix) else ""
            parts.append(f"*{kept}" if self._is_leak(part) else part)
        return "*" if self._is_leak("/".join(parts)) else "/".join(parts)

    def _masked_field(self, field: Field) -> str:
        shown, from_file = "", []
        for part in field:
            if isinstance(part, int):
                shown += f"[{part}]"
                continue
            if not isinstance(part, Label):
                part = "*" if self._is_leak(part) else part
                from_file.append(part)
            shown += f".{part}" if shown else part
        return "*" if self._is_leak(".".join(from_file)) else shown

    def _is_leak(self, name: str) -> bool:
        if name not in self._are_leaks:
            # The name may be an entry of a vocabulary.
            texts = {plain_text(name), plain_text(text_of_token(name))}
            self._are_leaks[name] = any(True for text in texts for _ in self._hits_anywhere(text))
        return self._are_leaks[name]

    # Texts.

    def _hits(self, text: str, num_entries: int = 0) -> Iterator[tuple[int, int, Kind]]:
        """Finds leaks of whole words: where they begin and end, and their kinds."""
        words = Words(text)
        for first, last, needles in self.needles.find_words(words):
            begins, ends = words.positions[first], words.positions[last - 1] + 1
            for begin, end, needle in zip(begins.tolist(), ends.tolist(), needles.tolist(), strict=True):
                code = int(self.needles.codes[needle])
                if _counts(code, text, begin, end, num_entries):
                    yield begin, end, Kind(code & Code.KIND)

    def _hits_in_letters(self, text: str, num_entries: int = 0) -> Iterator[tuple[int, int, Kind]]:
        """Finds leaks of seven letters or more, within words too."""
        words = Words(text)
        for first, last, needle in self.needles.find_letters(words):
            begin, end = int(words.positions[first]), int(words.positions[last - 1]) + 1
            code = int(self.needles.codes[needle])
            if BREAK not in text[begin:end] and _counts(code, text, begin, end, num_entries):
                yield begin, end, Kind(code & Code.KIND)

    def _hits_anywhere(self, text: str) -> Iterator[tuple[int, int, Kind]]:
        return chain(self._hits(text), self._hits_in_letters(text))

    def _text(self, name: str, text: str, field: Field) -> None:
        with suppress(ValueError):
            self._json(parsed(text), field, is_vocabulary(name))
            return
        if is_vocabulary(name) or name.endswith((".jsonl", ".ndjson")):
            self._lines(text, field, is_vocabulary(name))
            return
        for reading in readings(text):
            self._running_text(plain_text(reading), field)

    def _running_text(self, text: str, field: Field) -> None:
        hits = [(start + begin, kind) for start, block in blocks(text) for begin, _, kind in self._hits(block)]
        for match in _INTEGERS.finditer(text) if len(self.needles.token_ids) else ():
            if self._are_token_ids(map(int, DIGITS.findall(match[0]))):
                hits.append((match.start(), Kind.TOKEN_IDS))
        if hits:
            starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
            lines = ((f"line {bisect_right(starts, position)}", kind) for position, kind in hits)
            self.found |= {((*field, Label(line)), kind) for line, kind in lines}

    def _lines(self, text: str, field: Field, vocabulary: bool) -> None:
        """Searches independent lines."""
        others = []
        for number, line in enumerate(text.split("\n"), 1):
            where = (*field, Label(f"line {number}"))
            try:
                self._json(parsed(line), where, vocabulary)
            except ValueError:
                others.append((where, entry_in_line(line) if vocabulary else line))
        self._texts(others, len(others) if vocabulary else 0)

    def _json(self, value: Any, field: Field, vocabulary: bool) -> None:
        texts, entries = [], []
        for path, leaf in leaves(value):
            if isinstance(leaf, list):
                if self._are_token_ids(leaf):
                    self.found.add(((*field, *path), Kind.TOKEN_IDS))
            elif path[:2] == ("model", "merges"):
                entries.append(((*field, *path), entry_in_line(leaf)))
            elif vocabulary or path[:2] == ("model", "vocab"):
                # The numbers of the entries are no traces.
                if len(leaf) > 5 or not leaf.isdigit():
                    entries.append(((*field, *path), leaf))
            elif not (leaf.isdigit() and len(leaf) <= 6 and _TOKEN_NUMBER.fullmatch(".".join(map(str, path)))):
                texts.append(((*field, *path), leaf))
        self._texts(texts)
        self._texts(entries, len(entries))

    def _pieces(self, pieces: list[tuple[str, bool]], field: Field) -> None:
        """Searches the pieces of a sentencepiece model."""
        for in_vocabulary in (True, False):
            texts = [
                ((*field, Label(f"piece {number}")), text)
                for number, (text, is_entry) in enumerate(pieces)
                if is_entry is in_vocabulary
            ]
            self._texts(texts, len(texts) if in_vocabulary else 0)

    def _texts(self, texts: Iterable[tuple[Field, str]], num_entries: int = 0) -> None:
        """Searches independent texts, many at a time: entries of a vocabulary of this size, or any others."""
        texts = iter(texts)
        while True:
            fields, batch, size = [], [], 0
            for field, text in texts:
                fields.append(field)
                batch.append(text_of_token(text) if num_entries else text.replace(BREAK, " "))
                size += len(batch[-1])
                if size >= _BATCH_CHARACTERS:
                    break
            if not batch:
                return
            joined = BREAK.join(batch)
            for reading in [joined] if num_entries else readings(joined):
                pieces = [plain_text(piece).replace(BREAK, " ") for piece in reading.split(BREAK)]
                starts = list(accumulate((len(text) + 1 for text in pieces), initial=0))
                for start, block in blocks(BREAK.join(pieces)):
                    for begin, _, kind in self._hits(block, num_entries):
                        self.found.add((fields[bisect_right(starts, start + begin) - 1], kind))

    def _are_token_ids(self, ids: Iterable[int]) -> bool:
        array = np.array([number if 0 <= number < 2**63 else -1 for number in ids], np.int64)
        return len(self.needles.find_token_ids(array)) > 0

    # Bytes.

    def _tensors(self, content: np.ndarray, size: int, header: Any, field: Field) -> None:
        texts, begins = [], []
        for name, entry in header:
            if name == "__metadata__":
                texts += [((*field, Label("metadata"), *path), leaf) for path, leaf in leaves(entry)]
            else:
                texts.append(((*field, Label("tensor"), name), name))
                begins.append((dict(entry)["data_offsets"][0], name))
        self._texts(texts)
        begins.sort()

        def tensor_at(offset: int) -> Field:
            place = bisect_right(begins, offset, key=lambda begin: begin[0])
            return (*field, Label("tensor"), begins[place - 1][1]) if place else (*field, _BYTES)

        self._bytes(content[size:], tensor_at)

    def _bytes(self, content: np.ndarray, field_at: Callable[[int], Field], vocabulary: bool = False) -> None:
        """Searches bytes in chunks that overlap."""
        num_entries = _MIN_GENERAL_ENTRIES if vocabulary else 0
        for start in range(0, len(content), _CHUNK_BYTES):
            chunk = content[start : start + _CHUNK_BYTES + _OVERLAP_BYTES]
            for text, places in texts_in_bytes(chunk):
                for begin, _, kind in self._hits_in_letters(text, num_entries) if text else ():
                    self.found.add((field_at(start + int(places[text.count(BREAK, 0, begin)])), kind))
            for width in (8, 4) if len(self.needles.token_ids) else ():
                for place in self.needles.find_token_ids(chunk[: len(chunk) // 8 * 8].view(f"<i{width}")).tolist():
                    self.found.add((field_at(start + width * place), Kind.TOKEN_IDS))
            for place in self.needles.find_blobs(chunk):
                self.found.add((field_at(start + place), Kind.BLOB))

    def _packed(self, head: bytes, file: BinaryIO, field: Field) -> None:
        """Searches content that is packed, so that the bytes of the file do not show it."""
        if len(field) > _MAX_DEPTH:
            raise EOFError
        file.seek(0)
        if head == PNG:
            self._texts(((*field, Label(f"{kind} chunk")), text) for kind, text in png_texts(file))
        elif head[0] == 0x80:
            self._texts(((*field, Label("pickle")), text) for text in pickled_texts(file))
        elif head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    self._texts([((*field, member.filename), member.filename)])
                    # Large members that are not compressed are searched as bytes of the archive.
                    if member.compress_type != zipfile.ZIP_STORED or member.file_size <= MAX_TEXT_BYTES:
                        self._unpacked(partial(archive.open, member), member.filename, (*field, member.filename))
        for magic, unpack in _UNPACK.items():
            if head.startswith(magic):
                self._unpacked(partial(unpack, file), "", (*field, Label("unpacked")))

    def _unpacked(self, unpack: Callable[[], Any], name: str, field: Field) -> None:
        with unpack() as stream:
            content = stream.read(_MAX_UNPACKED_BYTES + 1)
        if len(content) > _MAX_UNPACKED_BYTES:
            raise EOFError
        if content:
            self.content(Path(name).name, np.frombuffer(content, np.uint8), io.BytesIO(content), field)


def _counts(code: int, text: str, begin: int, end: int, num_entries: int) -> bool:
    """Whether a needle is a leak at its place in the text."""
    kind, found = code & Code.KIND, text[begin:end]
    if num_entries:
        return _counts_in_vocabulary(code, text, begin, end, num_entries)
    if code & Code.CAPITALISED and not all(word[0].isupper() for word in WORD.findall(found)):
        return False
    if code & Code.APART and not _is_apart(code, text, begin, end):
        return False
    if kind == Kind.PATH:
        absolute = _ABSOLUTE.search(text[max(0, begin - 4) : begin]) or text[begin + 1 : begin + 2] == ":"
        return bool(absolute) and (" " not in found or found.count("/") + found.count("\\") > 1)
    if kind == Kind.USER and len(found) < 5:
        return text[end : end + 1] == "@" or _IN_HOMES.search(text[max(0, begin - 7) : begin]) is not None
    if not found.isdigit() and not any(map(str.isalpha, found)):
        return is_one_number(found)
    return True


def _counts_in_vocabulary(code: int, text: str, begin: int, end: int, num_entries: int) -> bool:
    """Whether a needle is a leak in a vocabulary, which holds common words, and common surnames if it is general."""
    found, of_person, is_general = text[begin:end], code & Code.PERSON, num_entries >= _MIN_GENERAL_ENTRIES
    is_entry = text[max(0, begin - 1) : begin] in _BORDERS and text[end : end + 1] in _BORDERS
    has_case = found.lower() != found.upper()
    if code & Code.SEVERAL_WORDS and found.isalnum() and has_case:
        # "timeout" is no trace of "time out", and in code "TimeZone" is none of "Time Zone".
        capitals = any(map(str.isupper, found[1:])) and not found.isupper()
        joined = of_person and (capitals or len(found) >= _MIN_JOINED_LETTERS)
        return bool(joined) or code & Code.KIND == Kind.NAME and capitals and not is_general
    if of_person and is_entry and not is_general and (found[0].isupper() or not has_case or len(found) >= 7):
        return True
    return bool(code & Code.IN_VOCABULARIES) and (has_case or not code & Code.SEVERAL_WORDS or not found.isalnum())


def _is_apart(code: int, text: str, begin: int, end: int) -> bool:
    """Whether a short needle is written as words of its own: not within a longer word, number or name."""
    found, before, after = text[begin:end], text[max(0, begin - 30) : begin], text[end : end + 30]
    if not any(map(str.isalpha, found)):
        # The digits of 0.48213 are no number of their own.
        in_fraction = re.search("[0-9][.]$", before) or re.match("[.][0-9]", after)
        return _WHOLE_NUMBER.fullmatch(found) is not None and not in_fraction
    if code & Code.CAPITALISED and not code & Code.SEVERAL_WORDS:
        # The family name of somebody else, beside whose given name it stands.
        others = [*_NAME_BEFORE.findall(before), *_NAME_AFTER.findall(after)]
        if not all(len(other) > 1 and is_common(other) for other in others):
            return False
    if not found.isascii():
        # Other scripts join words to each other.
        return True
    is_written_so = _FEW_WORDS.fullmatch(found) if code & Code.SEVERAL_WORDS else found.isalnum()
    return bool(is_written_so) and not (before[-1:].isalnum() or after[:1].isalnum())
