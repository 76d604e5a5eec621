# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Names and values of the forgotten rows in published files, as they are and as somebody else would write them."""

import json
import re
import unicodedata
from datetime import date

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from hf_deepclean import find_leaks, needles_of_dataset
from tests.attacks.people import NAMES


PROMISE = "a name or value is found in any form"
PEOPLE = [(script, *person) for script, people in NAMES.items() for person in people]
HAVE_CASE, HAVE_POINTS = ("Latin", "Cyrillic", "Greek"), {"Arabic": "\u064e", "Hebrew": "\u05b8"}
PLAIN = str.maketrans("łøđı", "lodi")
SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
CYRILLIC = dict(
    zip("абвгдеёжиклмнорстфцщьюя", "a b v g d e e zh i k l m n o r s t f ts shch  yu ya".split(" "), strict=True)
)


def without_accents(text):
    return "".join(filter(str.isalnum, unicodedata.normalize("NFD", text))).lower().translate(PLAIN)


# Of a script, the name, the given and the family name: what is published. None where it makes no sense.
VARIANTS = {
    "as it is": lambda script, name, given, family: name,
    "in small letters": lambda script, name, given, family: name.lower(),
    "in capital letters": lambda script, name, given, family: name.upper(),
    "decomposed": lambda script, name, given, family: unicodedata.normalize("NFD", name),
    "full width": lambda script, name, given, family: "".join(
        chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in name
    ),
    "joined by a dot": lambda script, name, given, family: name.lower().replace(" ", "·"),
    "joined by an underscore": lambda script, name, given, family: f"@{name.lower().replace(' ', '_')}",
    "family name first": lambda script, name, given, family: f"{family}, {given}" if " " in name else None,
    "initial first": lambda script, name, given, family: f"{given[0]}. {family}" if script in HAVE_CASE else None,
    "initial last": lambda script, name, given, family: f"{family}, {given[0]}." if script in HAVE_CASE else None,
    "family name alone": lambda script, name, given, family: (
        family if script in HAVE_CASE and len(family) > 3 else None
    ),
    "without accents": lambda script, name, given, family: (
        " ".join(map(without_accents, name.split())) if script in HAVE_CASE else None
    ),
    "umlauts spelled out": lambda script, name, given, family: name.lower().translate(SPELLED),
    "in Latin letters": lambda script, name, given, family: (
        name.lower().translate(str.maketrans(CYRILLIC)).title() if script == "Cyrillic" else None
    ),
    "with points": lambda script, name, given, family: (
        re.sub("(?<=\\w)(?=\\w)", HAVE_POINTS[script], name) if script in HAVE_POINTS else None
    ),
    "with a particle": lambda script, name, given, family: {
        "Korean": f"{name}은",
        "Hebrew": f"ל{name}",
        "Arabic": f"و{name}",
        "Latin": f"{name}’s",
    }.get(script),
}


def found_among(folder, needles, texts):
    """For each text whether it is found in a card, a JSON value, the metadata of weights, and as an added token."""
    folder.mkdir(exist_ok=True)
    sentences = [f"Thanks to {text}, who helped." for text in texts]
    (folder / "README.md").write_text("\n".join(sentences), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(texts))
    metadata = {str(number): text for number, text in enumerate(texts)}
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors", metadata)
    tokens = [{"id": number, "content": text} for number, text in enumerate(texts)]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens, "model": {"vocab": {}}}))
    found = {(leak.file, leak.field) for leak in find_leaks(folder, needles)}
    return [
        {
            "README.md": ("README.md", f"line {number + 1}") in found,
            "report.json": ("report.json", f"[{number}]") in found,
            "model.safetensors": ("model.safetensors", f"metadata.{number}") in found,
            "tokenizer.json": ("tokenizer.json", f"added_tokens[{number}].content") in found,
        }
        for number in range(len(texts))
    ]


def got_through(folder, needles, texts):
    """The texts, by attempt, that a search did not find in one of the files."""
    found = found_among(folder, needles, list(texts.values()))
    return {
        f"{attempt} in {file}": not is_found
        for attempt, files in zip(texts, found, strict=True)
        for file, is_found in files.items()
    }


def test_ninety_five_of_a_hundred_names_are_found_in_every_script_and_variant(tmp_path, attack):
    needles = needles_of_dataset(Dataset.from_dict({"name": [name for _, name, _, _ in PEOPLE]}))
    attempts = {}
    for variant, write in VARIANTS.items():
        texts = {f"{person[0]} {person[1]} {variant}": write(*person) for person in PEOPLE}
        texts = {attempt: text for attempt, text in texts.items() if text is not None}
        of_variant = got_through(tmp_path, needles, texts)
        assert sum(of_variant.values()) <= 0.05 * len(of_variant), variant
        attempts |= of_variant
    for script in NAMES:
        of_script = [missed for attempt, missed in attempts.items() if attempt.startswith(script)]
        assert sum(of_script) <= 0.05 * len(of_script), script
    assert len(attack(PROMISE, attempts)) <= 0.01 * len(attempts)


# Of a column the value of the row, and what is published.
VALUES = {
    "address": ("12 Mill Lane, Ostwick", ["12 Mill Lane, Ostwick", "12, mill lane", "Ostwick, 12 Mill Lane"]),
    "home_address": ("Lindenstraße 5, 04109 Leipzig", ["Lindenstr. 5", "LINDENSTRASSE 5", "Lindenstraße 5"]),
    "diagnosis": ("type 2 diabetes", ["Type 2 diabetes"]),
    "condition": ("heart failure", ["Heart failure"]),
    "Diagnose": ("broken collarbone", ["a broken collarbone"]),
    "illness": ("leukaemia", ["leukaemia"]),
    "handle": ("@ada_thornquist", ["@ada_thornquist", "ada-thornquist", "adathornquist"]),
    "username": ("sunflwr", ["sunflwr", "@sunflwr"]),
    "plate": ("B-AB 1234", ["B-AB 1234", "b ab 1234", "BAB1234"]),
    "licence_plate": ("XK 47 ROT", ["XK47ROT"]),
    "customer_id": (48213, ["48213", "no. 48213", "48,213", 48213]),
    "staff_number": ("48217", ["48217", 48217]),
    "account": ("19731402", ["19731402", 19731402]),
    "passport_number": ("20240115", ["20240115", 20240115]),
    "phone": ("+49 30 5550-1928", ["0049 30 55501928", "030/5550 1928", "+493055501928", "+49 (0)30 5550-1928"]),
    "mobile": ("0170 5550192", ["+49 170 5550192", "0049170-5550192", "+491705550192", "0170-5550192"]),
    "remark": ("call +44 20 7946 0958 now", ["020 7946 0958", "0044 20 79460958"]),
    "birth_date": ("1987-03-05", ["05.03.1987", "5.3.1987", "3/5/1987", "March 5, 1987", "5th of March 1987"]),
    "dob": ("5 March 1987", ["1987-03-05", "05/03/1987", "5 de marzo de 1987", "1987年3月5日", "Mar 05, 1987"]),
    "geburtsdatum": (date(1987, 3, 5), ["1987-03-05", "05.03.1987", "19870305", "5. März 1987"]),
    "surname": ("quellmann", ["Quellmann", "quellmann", "QUELLMANN"]),
    "last_name": ("Straßer", ["Strasser", "STRASSER"]),
    "patient": ("Smith, Ada B.", ["Ada Smith", "ada b. smith", "A. Smith", "Smith AB"]),
    "authors": ("Ada Thornquist; Bob Quellmann", ["B. Quellmann", "Thornquist, A."]),
    "reviewer": ("Ada Thornquist", ["A. Thornquist", "Thornquist"]),
    "assignee_login": ("adathorn7", ["adathorn7", "AdaThorn7"]),
    "Naam klant": ("Sjoerd van der Quell", ["van der Quell", "S. van der Quell"]),
    "geboortedatum": ("1987-03-05", ["5 March 1987"]),
    "site": ("https://www.quell.example/~ada", ["quell.example/~ada", "http://quell.example/~ada"]),
    "nombre": ("Maria dos Santos", ["dos Santos, Maria", "Maria Santos", "M. dos Santos"]),
    "col_7": ("ada thornquist", ["Ada Thornquist"]),
}
# A person may be in one row or have all rows; there are others beside them, or they are within another column.
SHAPES = {
    "one row": lambda column, cell: {column: [cell]},
    "all rows": lambda column, cell: {column: [cell] * 20, "text": ["said so"] * 20},
    "nested": lambda column, cell: {"record": [{column: cell, "visits": number} for number in range(20)]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_cells_of_telling_columns_are_found_in_any_form(tmp_path, attack, shape):
    attempts = {}
    for column, (cell, published) in VALUES.items():
        needles = needles_of_dataset(Dataset.from_dict(SHAPES[shape](column, cell)))
        for text in published:
            (tmp_path / "report.json").write_text(json.dumps({"note": text}))
            attempts[f"{shape}: {column} as {text}"] = not find_leaks(tmp_path, needles)
    assert attack(PROMISE, attempts) == []


def test_a_name_in_two_columns_is_found(tmp_path, attack):
    rows = {"first_name": ["Li", "Bo"], "last_name": ["Na", "An"]}
    attempts = {}
    for shape, columns in {"columns": rows, "keys": {"person": [{"first_name": "Li", "last_name": "Na"}]}}.items():
        needles = needles_of_dataset(Dataset.from_dict(columns))
        for text in ("Li Na", "Na, Li"):
            (tmp_path / "README.md").write_text(f"Thanks, {text}.\n")
            attempts[f"two {shape}: {text}"] = not find_leaks(tmp_path, needles)
    assert attack(PROMISE, attempts) == []
