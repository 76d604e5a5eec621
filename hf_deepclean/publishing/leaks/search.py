# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Searches a folder byte by byte."""

import gzip
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from .classes import class_names_of
from .file_search import DIGITS, FileSearch
from .formats import Label
from .leak import Leak, LeakError
from .needles import Needles


_CANNOT_UNPACK = (
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def find_leaks(folder: str | os.PathLike[str], needles: Needles, *, ignore: str | Collection[str] = ()) -> list[Leak]:
    """
    Searches every file of a folder, and the names of all files and folders.

    - Text files are searched as text, whatever they are called, in UTF-8, UTF-16, UTF-32 and the usual encodings of
      one or two bytes per letter.
    - JSON and the headers of safetensors files are searched key by key and value by value.
    - The texts within PNG files and pickles are searched, and the content of zip, gzip, bzip2 and xz files.
    - All other bytes are searched for texts of seven letters or more (in UTF-8; alphabets also in UTF-16, UTF-32,
      cp1252, cp1251, cp1253 and KOI8-R), for token ids as integers of 32 or 64 bits, and for images, sounds and
      arrays.

    Within texts these are decoded: HTML entities, percent-encoding, quoted-printable, encoded words of mail headers,
    escapes of letters and bytes, letters of TeX, and base64 or hexadecimal digits of 16 or more in a row. Other
    encodings are not: traces in encrypted data, in the columns of Parquet and Arrow files, or in the content of a
    picture are not found.

    Vocabularies of tokenizers hold all common words, so only names of several words, identifiers and texts of twelve
    letters or more count in them. A single name counts only if it is a cell of a column of names, is an entry as a
    whole, and the vocabulary has fewer than 20,000 entries, as none of a general model has. Added tokens do not
    belong to the vocabulary.

    The class names in `config.json` are public, unless they hold a name or an identifier.

    Args:
        folder (`str`):
            The folder.
        needles ([`Needles`]):
            What to look for.
        ignore (`str` or `Collection[str]`, *optional*):
            Public texts, such as the fixed words of a model card, or allowed values. What occurs in one of them is no
            leak.

    Returns:
        `list[Leak]`: The leaks by file and field.

    Raises:
        `NotADirectoryError`: If there is no such folder.
        `OSError`: If a file cannot be read.
        `ValueError`: If a file cannot be unpacked.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder. Pass the folder that is to be published.")
    public = [ignore] if isinstance(ignore, str) else ignore
    needles = needles.without(public).without(class_names_of(folder).values(), but_persons=True)
    search = FileSearch(needles)
    leaks = set()
    for path in _walk(folder):
        name = path.relative_to(folder)
        search.found = set()
        search.name(name, Label("folder name" if path.is_dir() else "file name"))
        if not path.is_dir():
            _search_file(search, path, name)
        if search.found:
            file = search.masked_path(name)
            leaks |= {Leak(file, field, kind) for field, kind in search.fields()}
    # Line 9 before line 10.
    return sorted(leaks, key=lambda leak: [int(part) if part.isdigit() else part for part in DIGITS.split(str(leak))])


def check_for_leaks(folder: str | os.PathLike[str], needles: Needles, *, ignore: str | Collection[str] = ()) -> None:
    """
    Refuses a folder in which [`find_leaks`] finds anything.

    Args:
        folder, needles, ignore:
            As for [`find_leaks`].

    Raises:
        `LeakError`: If there is a leak. The message names files, fields and kinds, never a value.
        `OSError`: If there is no such folder, or a file cannot be read.
        `ValueError`: If a file cannot be unpacked.
    """
    leaks = find_leaks(folder, needles, ignore=ignore)
    if leaks:
        raise LeakError(leaks)


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise OSError(error.errno, f"A subfolder cannot be read ({error.strerror}), so it was not searched")

    tree = os.walk(folder, onerror=refuse, followlinks=True)
    return sorted(Path(parent, name) for parent, folders, files in tree for name in [*folders, *files])


def _search_file(search: FileSearch, path: Path, name: Path) -> None:
    try:
        if not path.is_file():
            raise OSError("it is no regular file")
        if path.stat().st_size:
            with path.open("rb") as file:
                search.content(path.name, np.memmap(file, np.uint8, "r"), file)
    except _CANNOT_UNPACK as error:
        raise ValueError(
            f"{search.masked_path(name)} cannot be unpacked ({type(error).__name__}), so its content was not "
            "searched: it is damaged, encrypted, packed too often, or larger than a gigabyte. Leave the file out, or "
            "replace it by its content."
        ) from None
    except OSError as error:
        raise OSError(
            f"{search.masked_path(name)} cannot be read ({error.strerror or error}), so it was not searched. Make the "
            "file readable, or leave it out."
        ) from None
