# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Cards of the original model that would end a run, or hold it up."""

import os
import random
import time

from hf_deepclean.report.base_card import BaseCard
from hf_deepclean.report.provenance import Provenance


PROMISE = "no card of the original model ends a run or holds it up"
CARD = (
    "---\nlicense: mit\nlanguage:\n- en\n- no\ntags: [birds, 'a b']\nbase_model: me/base\nmodel-index:\n- name: x\n  "
    "results:\n  - task: {type: text-classification}\n    metrics: [{type: f1, value: 0.5}]\n---\n# It\n"
)


def bomb(power, opening="[", closing="]"):
    """An anchor that stands for nine of the one before it, again and again."""
    lines = ["a0: &a0 x"]
    for number in range(power):
        parts = [f"*a{number}" if opening == "[" else f"k{part}: *a{number}" for part in range(9)]
        lines.append(f"a{number + 1}: &a{number + 1} {opening}{', '.join(parts)}{closing}")
    return "\n".join(lines) + "\n"


BLOCKS = {
    "9^6 aliases in a field": f"{bomb(6)}tags: *a6",
    "9^12 aliases in a field": f"{bomb(12)}license: *a12",
    "9^9 aliases of mappings": f"{bomb(9, '{', '}')}language: *a9",
    "aliases in a key": f"{bomb(8)}? *a8\n: x",
    "a list in itself": "tags: &a [*a]",
    "a mapping in itself": "license: &a {x: *a}",
    "merged aliases": "a: &a {x: y}\nb: &b {<<: [*a, *a]}\nlanguage: {<<: *b}",
    "open lists": "license: " + "[" * 60_000,
    "closed lists": "license: " + "[" * 30_000 + "]" * 30_000,
    "open mappings": "license: " + "{a: " * 15_000,
    "lists on a line": "- " * 30_000,
    "keys on a line": "? " * 30_000,
    "indented lists": "\n".join(" " * level + "- " for level in range(340)),
    "a number of 60,000 digits": "license: " + "9" * 60_000,
    "7,000 keys": "\n".join(f"k{number}: v" for number in range(7_000)),
    "20,000 tags": "tags: [" + "a, " * 20_000 + "]",
    "anchors": "\n".join(f"a{number}: &x{number} v" for number in range(4_000)),
    "quotes": "a: '" + "''" * 30_000 + "'",
    "escapes": 'a: "' + "\\x41" * 15_000 + '"',
    "spaces": "a:\n" + " " * 60_000 + "b",
    "a link of 60,000 letters": "license_link: https://a" + "/a" * 30_000,
    "half of a letter": 'license_name: "\\ud800"',
    "tags of YAML": "!!binary license: !!int mit\ntags: !!set {a, b}\nlanguage: !!python/name:os.system",
    "keys that are no text": "? [a, b]\n: c\n? {x: y}\n: z\n1: 2",
    "a date": "license: 2020-01-01T00:00:00Z",
    "keys twice": "license: mit\nlicense: gpl",
    "another version of YAML": "%YAML 9.9\n---\na: b",
    "no mapping": "- a\n- b",
}
WHOLE = {
    "no UTF-8": b"---\n\xff\xfe: \xff\n---\n",
    "zero bytes": b"\x00" * 2**17,
    "half of UTF-16": b"\xff\xfe-\x00",
    "lines": b"\n" * 2**17,
    "rules": b"---\n" * 2**15,
    "no end": b"---\nlicense: mit\n" + b"# x\n" * 2**16,
    "a line that never ends": b"---" + b" " * 2**17,
}


def outcome(read):
    """
    Whether a reading raises, tells more than a sentence, or works for more than a third of a second. The faster of two
    readings counts, because other work on the machine slows some.
    """
    seconds = []
    for _ in range(2):
        start = time.process_time()
        try:
            card = read()
        except BaseException:
            return True
        seconds.append(time.process_time() - start)
    return len(card.left_out) > 1 or min(seconds) > 1 / 3


def test_damaged_and_malicious_cards_are_read_at_once(tmp_path, attack):
    path, got_through = tmp_path / "README.md", {}
    for name, content in (WHOLE | {name: f"---\n{block}\n---\n".encode() for name, block in BLOCKS.items()}).items():
        path.write_bytes(content)
        got_through[name] = outcome(lambda: BaseCard.read(path))
    assert attack(PROMISE, got_through) == []


def test_three_hundred_damaged_cards_raise_nothing(tmp_path, attack):
    path, draw, got_through = tmp_path / "README.md", random.Random(0), {}
    for number in range(300):
        content = bytearray(CARD.encode())
        for _ in range(draw.randrange(1, 8)):
            place = draw.randrange(len(content))
            content[place : place + draw.randrange(3)] = draw.choice(
                (
                    b"",
                    b"\xff",
                    b"\x00",
                    b"&a ",
                    b"*a",
                    b"[",
                    b"{",
                    b": ",
                    b"\n",
                    b"- ",
                    b"!!",
                    b"'",
                    b"|",
                    b"\t",
                    b"---\n",
                )
            )
        path.write_bytes(content)
        got_through[f"damage {number}"] = outcome(lambda: BaseCard.read(path))
    assert attack(PROMISE, got_through) == []


def test_what_stands_in_place_of_a_card_is_told_in_one_sentence_and_never_waited_for(tmp_path, attack):
    def sparse(path):
        with open(path, "wb") as file:
            file.truncate(10 * 2**30)

    places = {
        "a folder": os.mkdir,
        "a pipe": os.mkfifo,
        "a link to a device": lambda path: os.symlink("/dev/zero", path),
        "a link to nothing": lambda path: os.symlink("gone", path),
        "a link to itself": lambda path: os.symlink(path, path),
        "ten gigabytes": sparse,
    }
    got_through = {}
    for name, make in places.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder / "README.md")
        got_through[name] = outcome(lambda folder=folder: BaseCard.read(folder / "README.md"))
        got_through[f"{name}, of a model"] = Provenance.of(str(folder)).card != {}
        told = len(BaseCard.read(folder / "README.md").left_out)
        got_through[f"{name}, without a word"] = told != (name != "ten gigabytes")
    assert attack(PROMISE, got_through) == []


def test_the_metadata_of_an_ordinary_card_are_read(tmp_path):
    (tmp_path / "README.md").write_text(CARD + "x" * 2**17)
    card = BaseCard.read(tmp_path / "README.md")
    expected = {"license": "mit", "language": ["en", "no"], "tags": ["birds", "a b"], "base_model": "me/base"}
    assert (card.fields, card.left_out) == (expected, ())
