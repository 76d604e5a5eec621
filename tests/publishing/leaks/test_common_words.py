# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import re
import sysconfig
from collections import Counter
from importlib.metadata import PackageNotFoundError, files
from importlib.resources import files as files_of_module
from pathlib import Path

import pytest


CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
WORD = re.compile(rb"(?<![\w\x80-\xff])[a-z]{3,}(?![\w\x80-\xff]|'\w)")


def sources():
    """Yields the sources, pages and licences of Python, and of every pinned package that is installed."""
    library = Path(sysconfig.get_path("stdlib"))
    yield [path for path in library.rglob("*.py") if not {"site-packages", "test"} & set(path.parts)]
    for name in re.findall(r"^[\w.-]+(?===)", CONSTRAINTS.read_text(), re.MULTILINE):
        try:
            found = files(name) or ()
        except PackageNotFoundError:
            continue
        suffixes = (".py", ".pyi", ".md", ".rst", ".txt")
        named = [file for file in found if file.suffix in suffixes or file.name == "METADATA" or "LICEN" in file.name]
        yield [path for path in (Path(file.locate()) for file in named) if path.is_file()]


@pytest.mark.slow
def test_every_ordinary_word_stands_in_small_letters_in_three_packages():
    words = (files_of_module("hf_deepclean.publishing.leaks") / "common_words.txt").read_text("ascii").split()
    assert words == sorted(set(words))
    counts = Counter()
    for paths in sources():
        counts.update({word.decode() for path in paths for word in WORD.findall(path.read_bytes())})
    assert [word for word in words if counts[word] < 3] == []
