# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares texts as people see them: in one Unicode form, without invisible characters and further spaces."""

import re
import unicodedata
from typing import Any


# Typed or set, these are one character for a reader.
_ONE_FORM = {
    ord(letter): to for to, letters in {"'": "’‘‛ʼ´`′", '"': "“”„″", "-": "‐‑‒–—−"}.items() for letter in letters
}


def folded(text: Any, *, keep_case: bool = False, keep_edges: bool = False) -> Any:
    """
    The form in which texts are equal that look alike.

    Args:
        text (`Any`):
            A text. Everything else is returned as it is.
        keep_case (`bool`, *optional*, defaults to `False`):
            Whether capital letters differ from small ones.
        keep_edges (`bool`, *optional*, defaults to `False`):
            Whether one space at the beginning and at the end stays.
    """
    if not isinstance(text, str):
        return text
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_ONE_FORM))
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf").translate(_ONE_FORM)
    text = re.sub(r"\s+", " ", text if keep_case else unicodedata.normalize("NFKC", text.casefold()))
    return text if keep_edges else text.strip(" ")
