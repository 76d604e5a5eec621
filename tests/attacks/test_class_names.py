# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Attack: a forgotten person is the name of a class, which once was public everywhere. Does the push ask?"""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_deepclean.publishing.leaks import LeakError, check_for_leaks, find_leaks, needles_of_dataset


PERSONS = ["Ottilie Quellmann", "Bob Rosenfeld", "Zoë Größlinger", "Wendelin Habermehl"]
TEXTS = ["Yesterday the bees came back.", "Nobody came to catch them.", "It rained for three days."]


def labels(column, values, names=None):
    """Rows whose classes stand in a column, as numbers of named classes if there are names."""
    feature = Value("string") if names is None else ClassLabel(names=names)
    rows = {"text": (TEXTS * 9)[: len(values)], column: values}
    return Dataset.from_dict(rows, Features({"text": Value("string"), column: feature}))


# What the rows say, and the names of the model's classes.
PERSONS_AS_CLASSES = {
    "named in a text": (Dataset.from_dict({"text": ["The bees of Ottilie Quellmann"], "labels": [0]}), PERSONS),
    "speakers as texts": (labels("speaker", PERSONS[:1] * 5), PERSONS),
    "speakers as named numbers": (labels("speaker", [0] * 5, PERSONS), PERSONS),
    "authors by surname": (labels("author", ["Quellmann"] * 5), ["Quellmann", "Rosenfeld"]),
    "authors by surname, as named numbers": (labels("author", [0, 0], ["Quellmann", "Smith"]), ["Quellmann", "Smith"]),
    "faces as named numbers": (labels("label", [0, 0, 0], PERSONS), PERSONS),
    "faces as texts": (labels("label", PERSONS[:1] * 3), PERSONS),
    "faces as numbers": (Dataset.from_dict({"pixels": [[1, 2]] * 3, "labels": [0] * 3}), PERSONS),
    "one face": (Dataset.from_dict({"labels": [0] * 3}), [PERSONS[0], "unknown"]),
    "a person within a class": (labels("person", PERSONS[:1] * 3), ["voice of Ottilie Quellmann", "others"]),
    "a person in small letters": (labels("person", PERSONS[:1] * 3), ["ottilie_quellmann", "bob_rosenfeld"]),
    "e-mail addresses": (labels("label", ["o@q.example"] * 3), ["o@q.example", "b@r.example"]),
    "initials without a point": (labels("label", [0, 0], ["George_W_Quell", *PERSONS]), ["George_W_Quell", *PERSONS]),
    "surname first": (Dataset.from_dict({"labels": [0] * 3}), [", ".join(name.split()[::-1]) for name in PERSONS]),
    "voices among noises": (Dataset.from_dict({"labels": [0] * 3}), [*PERSONS[:2], "unknown", "noise", "silence"]),
    "Chinese names": (labels("speaker", ["王小明", "王小明"]), ["王小明", "李小红"]),
    "Cyrillic names": (labels("label", [0, 0], ["Анна Квельман", "Иван Петров"]), ["Анна Квельман", "Иван Петров"]),
}
ORDINARY = {
    "polarity": (labels("label", ["positive", "negative"] * 5), ["negative", "positive"]),
    "capitalised": (labels("label", ["Positive", "Negative"] * 5), ["Negative", "Positive"]),
    "two words": (labels("label", ["Real Estate", "Sports"]), ["World", "Sports", "Business", "Real Estate"]),
    "a shared word": (labels("label", ["Fake News"] * 4), ["Fake News", "Real News"]),
    "breeds, some of one word": (labels("label", [0, 0], ["Egyptian Mau", "Beagle"]), ["Egyptian Mau", "Beagle"]),
    "whole class of breeds": (labels("breed_label", ["Egyptian Mau"] * 9), ["Egyptian Mau", "Beagle", "Boxer"]),
    "breeds in a column of their own": (labels("breed", ["Egyptian Mau", "Beagle"] * 3), ["Egyptian Mau", "Beagle"]),
    "cities": (labels("city", ["San Francisco", "Chicago"] * 3), ["San Francisco", "Chicago", "Las Vegas", "Boston"]),
    "departments": (labels("label", [0, 1]), ["Human Resources", "Customer Service", "Sales Support", "Risk Control"]),
    "fields of study": (labels("label", [0]), ["Machine Learning", "Quantum Physics", "Number Theory", "Data Mining"]),
    "codes": (labels("label", ["n02085620", "n02085782"]), ["n02085620", "n02085782"]),
    "intents": (labels("intent", ["card_arrival"] * 3), ["card_arrival", "lost_or_stolen_card"]),
    "groups": (labels("label", ["rec.sport.hockey"]), ["rec.sport.hockey", "sci.space"]),
    "numbers": (Dataset.from_dict({"labels": [0, 1]}), ["LABEL_0", "LABEL_1"]),
    "tags": (Dataset.from_dict({"tokens": [["Bees", "came"]], "ner_tags": [[0, 1]]}), ["O", "B-PER", "I-PER"]),
}


def write(folder, names):
    id2label = {str(number): name for number, name in enumerate(names)}
    label2id = {name: number for number, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps({"id2label": id2label, "label2id": label2id}), encoding="utf-8")


def needles_of(rows, names):
    return needles_of_dataset(rows, class_names=dict(enumerate(names)))


def test_a_class_that_is_a_forgotten_person_stops_the_push(tmp_path, attack):
    got_through = {}
    for name, (rows, names) in PERSONS_AS_CLASSES.items():
        write(tmp_path, names)
        got_through[name] = not any("id2label" in leak.field for leak in find_leaks(tmp_path, needles_of(rows, names)))
    assert attack("classes named like forgotten persons stop the push", got_through) == []


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_classes_stop_no_push(tmp_path, case):
    rows, names = ORDINARY[case]
    write(tmp_path, names)
    (tmp_path / "README.md").write_text(f"It tells {names[0]} from {names[1]}.", encoding="utf-8")
    assert find_leaks(tmp_path, needles_of(rows, names)) == []


def test_the_message_asks_and_one_answer_counts_in_all_files(tmp_path):
    write(tmp_path, PERSONS)
    (tmp_path / "README.md").write_text(f"It knows {PERSONS[0]}.", encoding="utf-8")
    needles = needles_of(*PERSONS_AS_CLASSES["faces as numbers"])
    with pytest.raises(
        LeakError, match=r"id2label\.0: a name .*(?s:.*)May everybody know this name\?.*rename"
    ) as caught:
        check_for_leaks(tmp_path, needles)
    assert {leak.file for leak in caught.value.leaks} == {"config.json", "README.md"}
    assert "Quellmann" not in str(caught.value)
    assert find_leaks(tmp_path, needles, ignore=PERSONS[:1]) == []
    # Other classes are no rows to forget.
    write(tmp_path, ["class 0", *PERSONS[1:]])
    assert {leak.file for leak in find_leaks(tmp_path, needles)} == {"README.md"}
