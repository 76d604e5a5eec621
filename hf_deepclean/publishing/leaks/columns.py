# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells what a column holds by its name, and which words are too common to be a trace."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from .identifiers import NO_NAMES, WORD


class Holds(Enum):
    """What the cells of a column are."""

    NAMES = "names"
    PHONES = "phones"
    BIRTHS = "births"
    IDENTIFIERS = "identifiers"
    PRIVATE = "private"
    CLASSES = "classes"
    TEXTS = "texts"


# Searched in this order in the name of the column, in lower case and with spaces between its words.
_PATTERNS = {
    Holds.CLASSES: r"word|term|token|lemma|vocab|\btags?\b|label|class|categor|topic|sentiment|emotion",
    # Files, models and the texts of a conversation have names and users too.
    Holds.TEXTS: r"file|model|data|column|field|\btype|lang|input|output|config|\bsplit|\btask|metric|func|variable"
    r"|package|repo|message|prompt|question|\btext|content|comment|query|review(?!er)|descri|answer|response|instruct"
    r"|template|title|system|role\b|version|sequence|index|\bidx|source|license\b|product|brand|format",
    Holds.BIRTHS: r"birth|\bdob\b|\bborn|geburt|geboren|naissance|nacimiento|nascita|nascimento|рожден|出生|生日"
    r"|생년|생일|geboort|\bbday\b|födel|fødsel|urodz|naroz|doğum",
    Holds.PHONES: r"phone|telefon|téléphone|teléfono|\btel\b|mobile|\bmobil\b|\bfax\b|handy|whatsapp"
    r"|телефон|电话|電話|전화",
    Holds.IDENTIFIERS: r"mail|address|adress?e?\b|direcci|indirizzo|endere|адрес|地址|住所|주소|street"
    r"|stra(?:ss|ß)e\b|straat|plate|kennzeichen|registration|passport|\bpass(?:e?port|nr|no)?\b|\biban\b|\bssn\b"
    r"|insurance|\bids?\b|identi|\bcode|number|nummer|número|numero|\bn[ro]\b|badge|\bvin\b|\bimei\b|\bip\b"
    r"|zip|postal|postcode|\bplz\b|номер|паспорт|号码|番号|번호",
    Holds.NAMES: r"name|person|people|author|speaker|patient|customer|client|account|user|handle|employee|member|owner"
    r"|contact|recipient|sender|witness|defendant|plaintiff|applicant|tenant|student|teacher|doctor|physician|nurse"
    r"|guardian|spouse|mother|father|alias|\bnom\b|prénom|prenom|nombre|apellido|cognome|sobrenome|kunde|mitarbeiter"
    r"|reviewer|requester|complainant|beneficiary|resident\b|assignee|\blogin\b|\bnick"
    r"|\bnaam|\bnavn|\bnamn\b|\bnimi\b|\bnama\b|jméno|příjmení|\bisim|soyad|họ tên"
    r"|nazwisko|imię|имя|фамил|фио|όνομα|επώνυμο|姓|名|이름|성명|नाम|اسم|الاسم|שם|ชื่อ",
    Holds.PRIVATE: r"diagnos|disease|illness|disorder|condition|symptom|medic|treatment|therap|allerg|religio|convict"
    r"|crime|secret|krank",
}
_HOLDS = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}

_GIVEN = re.compile(r"\b(?:first|given|fore|vor|pre)[ -]?names?\b|\b(?:first|given|vorname|prénom|prenom|имя|名)\b")
_FAMILY = re.compile(r"\b(?:last|family|sur|nach)[ -]?names?\b|\b(?:last|family|familienname|nom|фамилия|姓)\b")


@cache
def _words_of_column(name: str) -> str:
    return re.sub(r"[\W_]+", " ", re.sub("([a-z])([A-Z])", r"\1 \2", name)).lower().strip()


@cache
def holds(name: str) -> Holds:
    """What a column holds, by its name and the keys within its cells."""
    words = _words_of_column(name)
    return next((kind for kind, pattern in _HOLDS.items() if pattern.search(words)), Holds.TEXTS)


def full_names(columns: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields what stands in a column of given names and in one of family names, which together are a name."""
    keys = {name: _words_of_column(str(name)) for name in columns}
    given = next((name for name, words in keys.items() if _GIVEN.search(words)), None)
    family = next((name for name, words in keys.items() if _FAMILY.search(words)), None)
    if given is not None and family is not None and given != family:
        yield "full name", columns[given], columns[family]


def is_part_of_name(column: str) -> bool:
    """Whether a column holds given names or family names."""
    words = _words_of_column(column)
    return bool(_GIVEN.search(words) or _FAMILY.search(words))


@cache
def _common_words() -> frozenset[str]:
    return frozenset((Path(__file__).parent / "common_words.txt").read_text(encoding="ascii").split()) | NO_NAMES


def is_common(text: str) -> bool:
    """Whether a text consists of ordinary words alone. Digits and single letters are ordinary."""
    words: Sequence[str] = WORD.findall(text.lower())
    return all(word in _common_words() or word.isdigit() or len(word) == 1 and word.isascii() for word in words)
