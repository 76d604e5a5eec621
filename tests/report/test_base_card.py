# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The card of the original model is whatever somebody has written, and none ends a run."""

import json
import os

import pytest
import yaml

from hf_deepclean.report.base_card import BaseCard


def read(tmp_path, content):
    path = tmp_path / "README.md"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return BaseCard.read(path)


WRITTEN = {
    "the language that is a truth value": ("language: no\nlicense: mit", {"language": "no", "license": "mit"}),
    "a list of languages": ("language: [en, no, pt-BR, zho]", {"language": ["en", "no", "pt-BR", "zho"]}),
    "a licence in other letters": ("license: Apache 2.0", {"license": "apache-2.0"}),
    "a licence by its name": ("license: My-Own-1.0", {"license": "other", "license_name": "my-own-1.0"}),
    "a licence with a name": (
        "license: other\nlicense_name: mine\nlicense_link: LICENSE",
        {"license": "other", "license_name": "mine", "license_link": "LICENSE"},
    ),
    "one tag": ("tags: birds", {"tags": ["birds"]}),
    "tags that name data": ("tags: [birds, 'dataset:me/secret']", {"tags": ["birds"]}),
    "a prompt of several lines": (
        "extra_gated_prompt: |\n  Who --- are you?\n  Why?",
        {"extra_gated_prompt": "Who --- are you?\nWhy?"},
    ),
    "a base": (
        "base_model: me/base\nbase_model_relation: merge",
        {"base_model": "me/base", "base_model_relation": "merge"},
    ),
    "nothing": ("license:\ntags: []\nlanguage: null", {}),
    "fields of the original model alone": ("datasets: [me/x]\nwidget:\n- text: a name\nmetrics: [f1]", {}),
}  # fmt: skip


@pytest.mark.parametrize(("block", "fields"), WRITTEN.values(), ids=WRITTEN)
def test_what_the_hub_takes_is_taken_over(tmp_path, block, fields):
    card = read(tmp_path, f"---\n{block}\n---\n\n# It\n")
    assert (card.fields, card.left_out) == (fields, ())
    # A second reading, of the report's record, changes nothing.
    assert BaseCard.of(json.loads(json.dumps(card.fields))) == card


WRONG = {
    "a word for a language": ("language: English", "language"),
    "a code of two letters that is no language": ("language: xx", "language"),
    "a licence of several lines": ("license: |\n  mit\n  ---\n  or else", "license"),
    "a licence with HTML": ("license: <b>mit</b>", "license"),
    "a mapping for a licence": ("license: {name: mit}", "license"),
    "a pipeline of nobody": ("pipeline_tag: mind-reading", "pipeline_tag"),
    "HTML in a prompt": ("extra_gated_prompt: 'Hello <script>x</script>'", "extra_gated_prompt"),
    "an end of the metadata in a prompt": ("extra_gated_prompt: \"a\\n---\\nb\"", "extra_gated_prompt"),
    "a link to a script": ("license_link: 'javascript:alert(1)'", "license_link"),
    "a path": ("thumbnail: /home/someone/face.png", "thumbnail"),
    "the path of a base": ("base_model: /home/someone/models/x", "base_model"),
    "a relative path of a base": ("base_model: ../models/x", "base_model"),
    "a path of Windows": ("base_model: 'C:\\models\\x'", "base_model"),
    "a checkpoint": ("base_model: out/checkpoint-500", "base_model"),
    "one path among ids": ("base_model: [me/base, ./x]", "base_model"),
    "a key that is a method of the card": ("to_yaml: 1", "to_yaml"),
    "a key that is a parameter": ("self: 1", "self"),
    "a key that is private": ("_to_dict: x", "_to_dict"),
    "a number for a key": ("3: x", "3"),
    "an owner's field": ("extra_gated_fields: {Name: text}", "extra_gated_fields"),
}  # fmt: skip


@pytest.mark.parametrize(("block", "name"), WRONG.values(), ids=WRONG)
def test_what_the_hub_does_not_take_is_left_out_and_named_in_one_sentence(tmp_path, block, name):
    card = read(tmp_path, f"---\npipeline_tag: fill-mask\n{block}\n---\n")
    assert card.fields.keys() <= {"pipeline_tag"} and name not in card.fields
    (sentence,) = card.left_out
    assert f"'{name}'" in sentence and "README.md" in sentence and "\n" not in sentence
    # Also from the record of an older report, whose values have the types of YAML 1.1.
    again = BaseCard.of(yaml.safe_load(block))
    assert name not in again.fields and len(again.left_out) == 1


def test_a_path_beside_the_card_is_no_id(tmp_path):
    (tmp_path / "me" / "base").mkdir(parents=True)
    assert read(tmp_path, "---\nbase_model: me/base\n---\n").fields == {}
    assert BaseCard.of({"language": [False, "en"], "base_model": "me/base"}).fields == {"base_model": "me/base"}


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf---\nlicense: mit\n---\n",
        b"\r\n---\r\nlicense: mit\r\n---\r\n# It\r\n",
        b"---\rlicense: mit\r---\r",
        "---\nlicense: mit\n---\n".encode("utf-16"),
        b"---\nlicense: mit\n---\ncaf\xe9",
        b"--- \nlicense: mit\n---",
        b"---\nlicense: mit\nlicense_name: caf\xe9\n---\n",
        b"---\nlicense: 'mit'\n---\n\n---\nlicense: gpl\n---\n",
    ],
    ids=["BOM", "CRLF", "CR", "UTF-16", "Latin-1 below", "spaces", "Latin-1 within", "a rule below"],
)
def test_the_licence_is_found_in_every_encoding_and_with_every_line_end(tmp_path, content):
    assert read(tmp_path, content).fields == {"license": "mit"}


BOMB = "a: &a [x, x, x]\n" + "\n".join(
    f"{y}: &{y} [*{x}, *{x}, *{x}]" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        *(b"---\n: [\n---\n", b"---\nlicense: mit\n", b"---\n- a\n---\n", b"---\n{a: 1}: 2\n---\n", b"\x00" * 99),
        *(b"---\n!!python/object/apply:os.system [ls]\n---\n", b"---\n" + b"[" * 5000 + b"\n---\n", b"", b"# It\n"),
        *(f"---\n{BOMB}\ntags: *i\n---\n".encode(), b"---\n---\n", b"---", b"---\n\xff\xfe: \xff\n---\n"),
    ],
)  # fmt: skip
def test_no_card_raises(tmp_path, content):
    card = read(tmp_path, content)
    assert card.fields == {} and len(card.left_out) <= 1


def test_what_is_no_file_has_no_fields(tmp_path):
    assert BaseCard.read(tmp_path).fields == BaseCard.read(tmp_path / "gone").fields == {}
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    assert len(BaseCard.read(tmp_path / "loop").left_out) == 1
    for found in (None, "", [], 3, [1], object()):
        assert BaseCard.of(found).fields == {}
