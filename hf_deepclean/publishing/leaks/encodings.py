# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads encoded texts: files in other encodings than UTF-8, and escapes and base64 within a text."""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from .words import BREAK, runs_of


# One byte per letter: any bytes can be read so. In the first ones letters beyond ASCII are bytes from 0xC0.
WITH_HIGH_LETTERS = ("cp1252", "cp1251", "koi8-r", "cp1253", "iso8859-2")
OF_ONE_BYTE = (*WITH_HIGH_LETTERS, "cp1250", "iso8859-5", "cp866")
# One or two bytes per letter: most bytes cannot be read so.
_OF_TWO_BYTES = ("shift_jis", "gb18030", "big5", "euc-kr", "euc-jp")
_MARKED = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# A Japanese text in ASCII.
_ISO_2022_JP = "\x1b$"
_HEAD_BYTES = 4096
# What a text holds besides letters, and what it never holds.
_CONTROLS = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f\ud800-\udfff\ue000-\uf8ff\ufffe\uffff]")

# Encoded within encoded text, such as percent-encoded entities.
_MAX_NESTED = 3
_MIN_BASE64 = 16
# Eight words in a row can stand on so many lines.
_LINES_AROUND = 3

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_-]{60,76}\r?\n)+[A-Za-z0-9+/_-]*|[A-Za-z0-9+/_-]{16,}")
_HEXADECIMAL = re.compile(rb"(?:[0-9a-f]{2}){8,}|(?:[0-9A-F]{2}){8,}")
_QUOTED = re.compile(r"(?:=[0-9A-Fa-f]{2}(?:=\r?\n)?)+")
_ENCODED_WORD = re.compile(r"=\?([\w-]+)(?:\*[\w-]+)?\?([bBqQ])\?([^?\s]*)\?=(?:\s+(?==\?))?")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_BYTE_ESCAPES = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|\\[0-3][0-7]{2})+")
_LONG_ESCAPE = re.compile(r"\\U([0-9A-Fa-f]{8})|\\u\{([0-9A-Fa-f]{1,6})\}|\\u([0-9A-Fa-f]{4})|&amp;#?\w+;")
_BACKSLASHES = re.compile(r"\\{2,}")
_SURROGATES = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.I)
_ACCENT = re.compile(r"\\([\"'`^~=.cvHkru])\s*\{?\\?([A-Za-z])\}?\}?")
_ACCENTS = {'"': 0x308, "'": 0x301, "`": 0x300, "^": 0x302, "~": 0x303, "=": 0x304, ".": 0x307, "c": 0x327}
_ACCENTS |= {"v": 0x30C, "H": 0x30B, "k": 0x328, "r": 0x30A, "u": 0x306}
_TEX_LETTERS = {
    "ss": "ß",
    "o": "ø",
    "O": "Ø",
    "l": "ł",
    "L": "Ł",
    "ae": "æ",
    "AE": "Æ",
    "aa": "å",
    "AA": "Å",
    "i": "ı",
}
_TEX_LETTER = re.compile(r"\\(ss|[oOlL]|ae|AE|aa|AA)(?![A-Za-z])")


def utf8_text(content: np.ndarray) -> str | None:
    """The text of a text file in UTF-8. None for other files."""
    head = content[:_HEAD_BYTES].tobytes()
    if b"\0" in head:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        text = content.tobytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def other_texts(content: np.ndarray) -> Iterator[str]:
    """
    Reads a file that is no UTF-8 in every encoding in which it may be a text: UTF-16 and UTF-32 with and without a
    mark, and encodings of one or two bytes per letter. Of readings after the first only the lines with letters beyond
    ASCII are given, the others are empty.

    Args:
        content (`np.ndarray`):
            The bytes of the file, `uint8`.

    Yields:
        `str`: The text in one encoding.
    """
    head = content[:_HEAD_BYTES].tobytes()
    for mark, encoding in _MARKED.items():
        if head.startswith(mark):
            yield content.tobytes().decode(encoding, "replace")
            return
    for encoding in _wide_encodings(head):
        yield content.tobytes().decode(encoding, "replace")
    if _CONTROLS.search(head.decode("latin-1")):
        return
    first = ""
    for encoding in (*OF_ONE_BYTE, *_OF_TWO_BYTES):
        one_byte = encoding in OF_ONE_BYTE
        try:
            text = content.tobytes().decode(encoding, "replace" if one_byte else "strict")
        except UnicodeDecodeError:
            continue
        if not one_byte or not _changes_case(text):
            yield changed_lines(first, text) if first else text
            first = first or text


def _wide_encodings(head: bytes) -> Iterator[str]:
    """The encodings of two or four bytes per letter, without a mark, in which the head of a file is a text."""
    num_printable = sum(32 <= byte < 127 for byte in head)
    # Most pairs of letters of ASCII are an ideograph.
    if num_printable > 0.85 * len(head):
        return
    for width, encodings in ((4, ("utf-32-le", "utf-32-be")), (2, ("utf-16-le", "utf-16-be"))):
        for encoding in encodings:
            try:
                text = codecs.getincrementaldecoder(encoding)().decode(head[: len(head) // width * width])
            except UnicodeDecodeError:
                continue
            if len(text) > 1 and not _CONTROLS.search(text) and all(map(_is_assigned, text)):
                yield encoding


def _is_assigned(character: str) -> bool:
    return unicodedata.category(character) not in ("Cn", "Co", "Cs")


def _changes_case(text: str) -> bool:
    """Whether capital letters follow small ones, as in a text that is read in a wrong encoding of one byte."""
    letters = re.findall(r"[^\W\d_a-zA-Z]{2}", text)
    return 10 * sum(pair[0].islower() and pair[1].isupper() for pair in letters) > max(10, len(letters))


def changed_lines(text: str, reading: str) -> str:
    """A reading of a text that has as many lines, without the lines that are far from all that differ."""
    lines, read = text.split("\n"), reading.split("\n")
    if len(lines) <= 2 * _LINES_AROUND + 1 or len(lines) != len(read):
        return reading
    kept = bytearray(len(read))
    for number, (line, other) in enumerate(zip(lines, read, strict=True)):
        if line != other:
            for near in range(max(0, number - _LINES_AROUND), min(len(read), number + _LINES_AROUND + 1)):
                kept[near] = 1
    return "\n".join(line if keep else BREAK * line.count(BREAK) for line, keep in zip(read, kept, strict=True))


def readings(text: str) -> Iterator[str]:
    """
    Reads what is encoded within a text: quoted-printable, encoded words of mail headers, percent-encoding, escapes of
    bytes and of letters, letters of TeX, and base64 or hexadecimal digits that are the bytes of a text.

    Args:
        text (`str`):
            The text.

    Yields:
        `str`: The text, and all readings of it, with as many lines, but only with lines near a difference.
    """
    yield text
    texts, seen = [text], {text}
    for _ in range(_MAX_NESTED):
        texts = [changed_lines(one, other) for one in texts for other in _read(one)]
        texts = [one for one in dict.fromkeys(texts) if one not in seen]
        seen.update(texts)
        yield from texts


def _read(text: str) -> Iterator[str]:
    """The readings of a text, by the encoding of its bytes that are no UTF-8."""
    reader = _Reader()
    for encoding in OF_ONE_BYTE:
        reader.encoding = encoding
        yield reader.read(text)
        if not reader.found_others:
            return


class _Reader:
    """Reads a text, and bytes that are no UTF-8 in the given encoding."""

    encoding = "cp1252"
    found_others = False

    def read(self, text: str) -> str:
        if "\\" in text:
            text = _BACKSLASHES.sub(r"\\", text)
            text = _SURROGATES.sub(self._of_surrogates, text)
            text = _LONG_ESCAPE.sub(self._of_long_escape, text)
            text = _BYTE_ESCAPES.sub(self._of_byte_escapes, text)
            text = _ACCENT.sub(lambda match: unicodedata.normalize("NFC", match[2] + chr(_ACCENTS[match[1]])), text)
            text = _TEX_LETTER.sub(lambda match: _TEX_LETTERS[match[1]], text)
        if _ISO_2022_JP in text:
            text = text.encode("ascii", "replace").decode("iso2022_jp", "replace")
        if "&amp;" in text:
            text = _LONG_ESCAPE.sub(self._of_long_escape, text)
        if "=" in text:
            text = _ENCODED_WORD.sub(self._of_encoded_word, text)
            text = _QUOTED.sub(self._of_quoted, text)
        if "%" in text:
            text = _PERCENT.sub(lambda match: self._of_bytes(bytes.fromhex(match[0].replace("%", "")), match[0]), text)
        return _with_base64_read(text)

    def _of_bytes(self, content: bytes, otherwise: str) -> str:
        """The text that bytes are, with as many lines as they had before."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            self.found_others = True
            text = content.decode(self.encoding, "replace")
        return otherwise if _CONTROLS.search(text) else _as_one_line(text) + "\n" * otherwise.count("\n")

    def _of_surrogates(self, match: re.Match) -> str:
        return bytes.fromhex(match[1] + match[2]).decode("utf-16-be")

    def _of_long_escape(self, match: re.Match) -> str:
        if match[0].startswith("&"):
            return html.unescape(html.unescape(match[0]))
        number = int(match[1] or match[2] or match[3], 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]

    def _of_byte_escapes(self, match: re.Match) -> str:
        escapes = re.findall(r"x(..)|(\d{3})", match[0])
        return self._of_bytes(bytes(int(two or eight, 16 if two else 8) for two, eight in escapes), match[0])

    def _of_quoted(self, match: re.Match) -> str:
        return self._of_bytes(binascii.a2b_qp(match[0]), match[0])

    def _of_encoded_word(self, match: re.Match) -> str:
        encoding, kind, content = match.groups()
        try:
            if kind in "bB":
                text = binascii.a2b_base64(content).decode(encoding)
            else:
                text = binascii.a2b_qp(content, header=True).decode(encoding)
        except (ValueError, LookupError):
            return match[0]
        return _as_one_line(text) + "\n" * match[0].count("\n")


def _with_base64_read(text: str) -> str:
    """The text with base64 and hexadecimal digits read, where they are the bytes of a text."""
    content = text.encode("utf-8", "surrogatepass")
    if len(content) < _MIN_BASE64:
        return text
    array = np.frombuffer(content, np.uint8)
    digits = ((array | np.uint8(32)) - np.uint8(97) < 26) | (array - np.uint8(47) < 11)
    digits |= (array == ord("+")) | (array == ord("-")) | (array == ord("_"))
    starts = runs_of(digits, _MIN_BASE64)
    parts, end = [], 0
    for start in starts[np.diff(starts, prepend=-2) > 1].tolist():
        run = _BASE64.match(content, start)
        if start >= end and run is not None and (read := _text_of_digits(run[0])) is not None:
            parts += [content[end:start], _as_one_line(read).encode(), b"\n" * run[0].count(b"\n")]
            end = run.end()
    return b"".join([*parts, content[end:]]).decode("utf-8", "surrogatepass") if parts else text


def _text_of_digits(run: bytes) -> str | None:
    """The text in UTF-8 or UTF-16 whose bytes are written in base64 or hexadecimal. None if they are no text."""
    if _HEXADECIMAL.fullmatch(run):
        content = bytes.fromhex(run.decode())
    else:
        digits = run.replace(b"\n", b"").replace(b"\r", b"")
        # One digit at the end is no byte.
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        content = base64.b64decode(digits + b"=" * (-len(digits) % 4), b"-_" if b"-" in run or b"_" in run else None)
    for encoding in ("utf-8", "utf-16-le"):
        # Pairs of bytes drawn at random are often ideographs.
        if encoding == "utf-16-le" and sum(byte < 16 for byte in content) < 0.3 * len(content):
            break
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if not _CONTROLS.search(text) and all(map(_is_assigned, text)):
                return text
    return None


def _as_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ").replace(BREAK, " ")
