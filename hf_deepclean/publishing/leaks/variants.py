# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Writes names and dates as somebody else would. Case, accents, punctuation and white space make no difference."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date

from .columns import is_common
from .identifiers import WORD, is_capitalised_word
from .needles import Code, Kind


# Shorter names occur by chance within words, and shorter family names beside any letter.
_MIN_LETTERS_WITHIN, _MIN_FAMILY_LETTERS = 8, 4
# Digits among letters occur less by chance.
_MIN_CODE_LETTERS = 6
# Without capital letters a family name is not told from an ordinary word.
_MIN_CASELESS_LETTERS = 5
_MAX_NAME_WORDS, _MAX_NAME_CHARACTERS = 6, 60

_TITLES = frozenset("mr mrs ms miss dr prof sir herr frau mme mlle sr sra jr phd md ii iii iv".split())
_PARTICLES = frozenset(
    "van von der den de da di del della dos das do la le el al bin ibn ben abu ter ten zu zur du des y e".split()
)
_AND = re.compile(r"\s*[;&|/\n]\s*|\s+(?:and|und|et|y|e|и)\s+(?=\S+\s+\S)")

_CYRILLIC = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґ",
        "a b v g d e e zh z i y k l m n o p r s t u f kh ts ch sh shch  y  e yu ya i yi ye g".split(" "),
        strict=True,
    )
)
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",
        "a v g d e z i th i k l m n x o p r s s t y f ch ps o a e i i o y o i y".split(),
        strict=True,
    )
)
_LATIN = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae", "œ": "oe", "ß": "ss", "þ": "th", "ð": "d"}
_TRANSCRIBED = str.maketrans(_LATIN | _CYRILLIC | _GREEK)
# A family name alone, or with initials, counts with capital letters and if it is not part of another name.
_ALONE = Code.CAPITALISED | Code.APART
_UMLAUTS = {"ae": "a", "oe": "o", "ue": "u"}
_STREETS = {"straße": "str", "strasse": "str", "street": "st", "avenue": "ave", "road": "rd"}
# Particles follow a Korean name, and prefixes stand before Hebrew and Arabic names, without a space.
_KOREAN, _HEBREW, _ARABIC = "은는이가을를의와과씨님도", "והבלמשכ", "وبلف"

_MONTHS = [
    "january januar janvier enero gennaio janeiro jan".split(),
    "february februar février febrero febbraio fevereiro feb".split(),
    "march märz mars marzo março mar".split(),
    "april avril abril aprile apr".split(),
    "may mai mayo maggio maio".split(),
    "june juni juin junio giugno junho jun".split(),
    "july juli juillet julio luglio julho jul".split(),
    "august août agosto aug".split(),
    "september septembre septiembre settembre setembro sep sept".split(),
    "october oktober octobre octubre ottobre outubro oct okt".split(),
    "november novembre noviembre novembro nov".split(),
    "december dezember décembre diciembre dicembre dezembro dec dez".split(),
]
_MONTH_OF = {name: month for month, names in enumerate(_MONTHS, 1) for name in names}
_DATE = re.compile(r"(\d{4})\D?(\d{1,2})\D?(\d{1,2})(?!\d).*|(\d{1,2})\D(\d{1,2})\D(\d{4})")


def names_in_cell(text: str, may_be_class: bool, are_many: bool) -> dict[str, int]:
    """
    The names in a cell of a column of names, in all variants, with the codes of their needles.

    The variants are: the family name first or alone, initials, without middle names, with what some languages join
    to a name, and transcribed to plain Latin letters. A single word counts as it is, unless it is an ordinary one; if
    it may be a class, only with a capital letter. The family names of many people do not count alone, since others
    have them too.

    Args:
        text (`str`):
            The cell.
        may_be_class (`bool`):
            Whether a few values fill the whole column, as names of classes do.
        are_many (`bool`):
            Whether the column has so many family names that they do not count alone.
    """
    found: dict[str, int] = {}
    for name in dict.fromkeys([text, *_AND.split(text)]):
        if len(name) > _MAX_NAME_CHARACTERS or is_common(name):
            continue
        last, comma, first = name.partition(",")
        words = [word.strip(".\"'’()@") for word in (f"{first} {last}" if comma else name).split()]
        words = [word for word in words if WORD.search(word) and word.lower() not in _TITLES]
        if len(words) == 1 and words[0].isascii() and (may_be_class or len(words[0]) <= _MIN_FAMILY_LETTERS):
            if is_capitalised_word(name):
                found[name] = Code.CAPITALISED
        elif len(words) == 1 and are_many and _has_case(words[0]):
            found[name] = _ALONE
        elif 1 <= len(words) <= _MAX_NAME_WORDS:
            variants = dict(_variants(words))
            found |= {
                variant: flags
                for variant, flags in variants.items()
                if not (are_many and flags == _ALONE and variant.isalpha())
            }
            found[name] = 0
    found |= {other: flags for variant, flags in found.items() for other in _spellings(variant) if other not in found}
    return {
        variant: _code(variant, flags)
        for variant, flags in found.items()
        if _is_long_enough(variant) and not is_common(variant)
    }


def _variants(words: list[str]) -> Iterator[tuple[str, int]]:
    """Yields the variants of a name, given as its words with the family name last, and flags of their needles."""
    if len(words) == 1:
        yield from ((variant, 0) for variant in _joined(words[0]))
        return
    start = len(words) - 1
    while start > 1 and words[start - 1].lower() in _PARTICLES:
        start -= 1
    given, family = words[:start], words[start:]
    for order in ([*given, *family], [*family, *given]):
        yield from ((variant, 0) for variant in (" ".join(order), *_joined(" ".join(order))))
    if len(words) > 2:
        # Without middle names, particles, or the second of two family names.
        orders = [[given[0], *family], [*family, given[0]], [given[0], words[-1]], [words[-1], given[0]]]
        if words[1].lower() not in _PARTICLES:
            orders += [words[:2], words[1::-1]]
        yield from ((" ".join(order), 0) for order in orders)
    is_latin = ord(words[0][0]) < 0x370
    # In Russian the family name is often written first.
    for others, last in [(given, family)] if is_latin else [(given, family), (words[1:], words[:1])]:
        yield from _of_family(others, " ".join(last))
    if len(family) > 1:
        yield from _of_family(given, family[-1])


def _of_family(given: list[str], family: str) -> Iterator[tuple[str, int]]:
    """Yields a family name alone and with initials."""
    num_letters = sum(map(str.isalpha, family)) if _has_case(family) else len(family)
    if is_common(family) or num_letters < (_MIN_FAMILY_LETTERS if _has_case(family) else _MIN_CASELESS_LETTERS):
        return
    yield family, _ALONE if _has_case(family) else 0
    if _has_case(family):
        initials = [word[0] for word in given]
        for some in (" ".join(initials), initials[0]):
            yield f"{some} {family}", _ALONE
            yield f"{family} {some}", _ALONE


def _joined(name: str) -> Iterator[str]:
    """Yields a name with what its language joins to it, such as particles."""
    if "가" <= name[-1] <= "힣":
        yield from (name + particle for particle in _KOREAN)
    elif "א" <= name[0] <= "ת":
        yield from (prefix + name for prefix in _HEBREW)
    elif "ء" <= name[0] <= "ي":
        yield from (prefix + name for prefix in _ARABIC)
    elif "A" <= name[0].upper() <= "Ž" and " " in name:
        yield f"{name}s"


def _spellings(text: str) -> Iterator[str]:
    """Yields a text in plain Latin letters, and without the transcription of umlauts."""
    small = text.lower()
    if not small.isascii():
        yield small.replace("ου", "ou").translate(_TRANSCRIBED)
        return
    for umlauts in (_UMLAUTS, _UMLAUTS | {"aa": "a", "ss": "ß"}):
        plain = re.sub("|".join(umlauts), lambda match, umlauts=umlauts: umlauts[match[0]], small)
        if plain != small:
            yield plain


def _has_case(text: str) -> bool:
    return text[0].upper() != text[0].lower()


def _is_long_enough(text: str) -> bool:
    """Whether a name has four letters, counted in bytes, so that two ideographs are enough."""
    return len("".join(WORD.findall(text)).encode()) >= 4


def _code(text: str, flags: int) -> int:
    """The code of a needle. Short names and single words occur within other words."""
    words = WORD.findall(text)
    is_long = len(words) > 1 and sum(map(len, words)) >= _MIN_LETTERS_WITHIN
    code = Kind.NAME | flags | (0 if is_long or flags & Code.CAPITALISED else Code.APART)
    return code if flags & Code.APART else code | Code.PERSON


def values_in_cell(text: str, may_be_class: bool, may_be_common: bool) -> dict[str, int]:
    """
    The value in a cell of a column that identifies, such as an address or a number plate, and the parts of an address,
    with the codes of their needles.

    Args:
        text (`str`):
            The cell.
        may_be_class (`bool`):
            Whether it may be the name of a class. Then a single word does not count.
        may_be_common (`bool`):
            Whether several ordinary words count, as in a diagnosis.
    """
    found = {}
    for value in dict.fromkeys([text, *(part for part in text.split(",") if re.search(r"\d", part))]):
        letters = "".join(WORD.findall(value))
        words, digits = re.findall(r"[^\W\d_]+", value), re.findall(r"\d", value)
        if digits and words:
            counts = len(letters) >= 5 and (len(digits) > 3 or not is_common(" ".join(words)))
        else:
            is_phrase = len(words) > 1 and len(letters) >= _MIN_LETTERS_WITHIN
            tells = not is_common(value) and (len(words) > 1 or not may_be_class)
            counts = len(letters) >= _MIN_CODE_LETTERS and tells or may_be_common and is_phrase
        if counts:
            small = value.lower()
            shorter = re.sub("|".join(_STREETS), lambda match: _STREETS[match[0]], small)
            longer = re.sub(r"str\b", "strasse", small)
            for form in {value, shorter, longer, *_spellings(small)}:
                is_long = len(letters) >= (_MIN_CODE_LETTERS if digits else _MIN_LETTERS_WITHIN)
                found[form] = Kind.IDENTIFIER | (0 if is_long else Code.APART)
    return found


def dates_in_cell(text: str) -> dict[str, int]:
    """The forms of a date with the codes of their needles, in digits and with the month as a word of six languages."""
    found: dict[str, int] = {}
    for day in days_in_cell(text):
        year, month, number = day.year, day.month, day.day
        for two in (f"{number}.{month}", f"{number:02}.{month:02}", f"{month}.{number}", f"{month:02}.{number:02}"):
            found[f"{two}.{year}"] = Kind.TEXT | Code.APART
        found |= dict.fromkeys((f"{day:%Y.%m.%d}", f"{year}.{month}.{number}"), Kind.TEXT | Code.APART)
        found[f"{year}年{month}月{number}日"] = Kind.TEXT
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 != 1 else 0, "th")
        for written in (f"{number}", f"{number:02}", f"{number}{suffix}"):
            for name in _MONTHS[month - 1]:
                forms = (f"{written} {name} {year}", f"{written} of {name} {year}", f"{name} {written} {year}")
                found |= dict.fromkeys((*forms, f"{written} de {name} de {year}"), Kind.TEXT)
    return found


def days_in_cell(text: str) -> list[date]:
    """The days that a date may mean: 3/5/1987 is in March or in May. Nothing for another text."""
    text = re.sub(r"[^\W\d_]+", lambda match: str(_MONTH_OF.get(match[0].lower(), match[0])), text.strip())
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b|\b(?:de|of)\b|[,\s]+", " ", text)
    if (match := _DATE.fullmatch(re.sub(r"\W+", " ", text).strip())) is None:
        return []
    first, second, third = (int(part) for part in match.groups() if part)
    days = []
    for order in [(first, second, third)] if match[1] else [(third, second, first), (third, first, second)]:
        with suppress(ValueError):
            days.append(date(*order))
    return list(dict.fromkeys(days))
