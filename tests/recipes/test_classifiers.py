# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from datasets import ClassLabel, Dataset, Features, List


def test_held_out_data_are_divided_where_whole_classes_are_forgotten(recipes):
    features = Features({"tags": List(ClassLabel(names=["a", "b", "c"]))})

    def of(*rows):
        return Dataset.from_dict({"tags": list(rows)}, features=features)

    held_out = {"eval": of([0], [2, -100], [1]), "unseen": of([2], [0, 2], [1])}
    divide = recipes["classifiers"].split_held_out_by_class
    data = {"forget": of([2, -100], [0, 2]), "retain": of([0], [1, -100]), **held_out}
    divided = divide(data, "tags")
    assert divided["eval_other_classes"]["tags"][:] == [[0], [1]]
    assert divided["unseen"]["tags"][:] == [[2], [0, 2]]
    data = {"forget": of([2]), "retain": of([0], [2]), **held_out}
    assert divide(data, "tags") is data


def test_classes_are_named_by_the_data_or_numbered(recipes):
    name = recipes["classifiers"].class_names
    labels = Dataset.from_dict({"label": [0, 3]})
    assert name({"retain": labels, "forget": labels}, "label") == ["0", "1", "2", "3"]
    named = labels.cast(Features({"label": ClassLabel(names=["w", "x", "y", "z"])}))
    assert name({"retain": named, "forget": named}, "label") == ["w", "x", "y", "z"]
    words = Dataset.from_dict({"label": ["no", "yes"]})
    assert name({"retain": words, "forget": words}, "label") == ["no", "yes"]
