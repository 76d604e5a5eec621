# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds identifiers and names in a text: what stands for a single person or thing."""

import re
from collections.abc import Iterator


WORD = re.compile(r"[^\W_]+")

_HINTS = re.compile(r"[\d@]|://|www\.")
# Each match begins where the one before cannot go on, so that long texts without a space take no quadratic time.
_IDENTIFIERS = re.compile(
    r"(?P<email>(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?:https?://(?:www\.)?|www\.)(?P<url>[^\s<>\"'()\[\]{}]+)"
    r"|(?P<uuid>\b[\da-fA-F]{8}-(?:[\da-fA-F]{4}-){3}[\da-fA-F]{12}\b)"
    r"|(?P<account>\b[A-Z]{2}\d{2}(?:[ -]?[A-Z\d]{4}){2,7}(?:[ -]?[A-Z\d]{1,4})?\b)"
    r"|(?P<code>(?<![\w-])(?=[\d-]*[^\W\d_])[^\W\d_]*(?:-[^\W\d_]+)*-?\d[^\W_]*(?:-[^\W_]+)*)"
    r"|(?P<number>\+?\(?\d(?:[ ./()-]{0,3}\d)+)"
)
_DATE = re.compile(r"(?:\d{1,2}[./-]){2}\d{2,4}(?:\D+\d{1,2})?|\d{4}[./-]\d{1,2}[./-]\d{1,2}(?:\D+\d{1,2})?")
_NO_NUMBER = re.compile(
    r"(?:19|20)\d\d(?:[ ./-]+(?:19|20)\d\d)+|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|\d+\.\d+(?: +\d+\.\d+)*"
)
_ONE_NUMBER = re.compile(r"\d+(?:[ ./()-]{1,3}\d+)*|\d{1,3}(?:,\d{3})+")
# Of the countries with most lines. The number of another country is found as it is written.
_COUNTRY_CODES = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 54 55 56 57 60 61 62 63 64 65 66 81 82 84 86 90 "
    "91 92 94 98 212 234 254 351 353 358 380 420 852 886 966 971 972".split()
)
_MIN_PHONE_DIGITS = 7

_CAPITALISED = r"(?:[A-ZÀ-ÖØ-ÞĀ-ŽΆ-ΫЀ-Я][\w'’-]+|[A-Z]\.)"
_NAMES = re.compile(
    rf"(?<![\w'’-]){_CAPITALISED}(?:[ \t]+(?:(?:van|von|der|den|de|da|di|del|la|le|bin|al|ibn)[ \t]+){{0,2}}"
    rf"{_CAPITALISED})+"
)
# Words that are capitalised at the beginning of a sentence or a title, or beside a name.
NO_NAMES = frozenset(
    "a after all also although an and another any are as at because before both but by can could did do does during "
    "each either every few first for from had has have he her here his how however i if in into is it its last later "
    "like many may me most mr mrs ms my no nor not now of on once one only or our out over she should since so some "
    "such than that the their them then there these they this those though through to two under until up was we were "
    "what when where whether which while who whose why will with would yes yet you your dr prof".split()
)
# With one more word these are countries, states and cities, which any text may name.
_OF_PLACES = frozenset("new united north south east west".split())


def identifiers_in(text: str) -> Iterator[tuple[str, bool]]:
    """
    Finds e-mail addresses, URLs with a path, UUIDs, bank accounts, codes of letters and digits, and numbers of six
    digits or more. Dates are no identifiers.

    Args:
        text (`str`):
            The text.

    Yields:
        `tuple[str, bool]`: The identifier, and whether it is a number. Numbers consist of their digits only.
    """
    if not _HINTS.search(text):
        return
    for match in _IDENTIFIERS.finditer(text):
        found = match[match.lastgroup]
        if match.lastgroup == "number":
            yield from ((number, True) for number in _numbers_of(found.strip()))
        elif match.lastgroup == "url":
            address = found.rstrip(".,;:!?/")
            # The address of a whole site is no secret.
            if "/" in address or "?" in address:
                yield address, False
        elif match.lastgroup != "code" or _is_code(found):
            yield found, False


def _numbers_of(found: str) -> Iterator[str]:
    groups = re.findall(r"\d+", found)
    digits = "".join(groups)
    if is_date(found) or _NO_NUMBER.fullmatch(found):
        return
    if found.startswith(("+", "00")):
        yield from phone_numbers(found)
    # Single digits with spaces between them are no number.
    for number in {digits, *groups} if len(digits) >= 2 * len(groups) else groups:
        if len(number) >= 6 and len(set(number)) > 2 and not _NO_NUMBER.fullmatch(number):
            yield number


def phone_numbers(text: str) -> set[str]:
    """The digits of a telephone number as it is dialled from its own country and from others."""
    digits = re.sub(r"\D", "", text.replace("(0)", ""))
    codes = _COUNTRY_CODES
    if text.startswith(("+", "00")):
        digits = digits.lstrip("0")
        codes = [code for code in codes if digits.startswith(code)] or [digits[:3]]
        digits = digits[len(codes[0]) :]
    elif not text.startswith("0"):
        codes = []
    national = digits.lstrip("0")
    if len(national) < _MIN_PHONE_DIGITS:
        return set()
    international = {f"{code}{national}" for code in codes}
    if len(codes) == 1:
        international.add(f"{codes[0]}0{national}")
    return {national, f"0{national}"} | international | {f"00{number}" for number in international}


def _is_code(word: str) -> bool:
    """Whether letters and digits are mixed unlike in ordinary words such as covid19, float32, seq2seq or post-2019."""
    num_digits = sum(map(str.isdigit, word))
    if len(word) < 6 or num_digits < 2:
        return False
    if "-" in word:
        return num_digits >= 5
    has_year = re.search(r"(?<!\d)(?:19|20)\d\d(?!\d)", word) is not None
    num_changes = sum(first.isdigit() != second.isdigit() for first, second in zip(word, word[1:], strict=False))
    return num_digits >= (5 if has_year else 4) or num_changes >= 2


def is_date(text: str) -> bool:
    """Whether a text is a date, with or without an hour."""
    return _DATE.fullmatch(text) is not None


def is_one_number(text: str) -> bool:
    """Whether groups of digits are one number, such as +49 (30) 123-456 or 1,234,567, and not a row of a table."""
    return _ONE_NUMBER.fullmatch(text) is not None


def names_in(text: str) -> Iterator[str]:
    """Yields two to four capitalised words in a row. If there are more than two, the last two are a name too."""
    for match in _NAMES.finditer(text):
        words = re.sub(r"['’]s?$", "", match[0]).split()
        while words and words[0].lower().rstrip(".") in NO_NAMES:
            del words[0]
        while words and words[-1].lower() in NO_NAMES:
            del words[-1]
        if len(words) == 2 and words[0].lower() in _OF_PLACES:
            continue
        if 2 <= len(words) <= 4 and sum(map(len, words)) >= 5 and words[0][0].isupper() and words[-1][0].isupper():
            yield " ".join(words)
            yield " ".join(words[-2:])


def is_capitalised_word(text: str) -> bool:
    """Whether a text is one word of four letters or more that begins with a capital letter."""
    words = WORD.findall(text)
    return len(words) == 1 and len(words[0]) >= 4 and words[0][0].isupper() and words[0].isalpha()


def is_telling(name: str) -> bool:
    """Whether the name of a run or a folder has more than one or two words, which others may have too."""
    words = WORD.findall(name)
    return len(words) > 2 and sum(map(len, words)) >= 12 or _has_identifier(name)


def has_several_words(name: str) -> bool:
    """Whether the name of a column or a file has more than one ordinary word."""
    words = [word for word in WORD.findall(name) if word.isalpha()]
    return len(words) > 1 or re.search("[a-z][A-Z]", name) is not None or _has_identifier(name)


def _has_identifier(name: str) -> bool:
    return any(True for _ in identifiers_in(name))
