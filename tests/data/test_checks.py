# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from hf_deepclean.data.checks import (
    check_class_names,
    check_dataset,
    check_requests,
    check_rows_of_request,
    match_classes,
)
from tests import tiny


def test_labels_outside_the_head_are_counted():
    digits = tiny.digits()
    check_dataset(digits, "forget_dataset", 10)
    many = int((np.asarray(digits["labels"]) > 7).sum())
    with pytest.raises(
        ValueError, match=f"`forget_dataset` has {many} of 1797 labels outside the head's range 0 to 7"
    ):
        check_dataset(digits, "forget_dataset", 8)


def test_another_data_set_with_column_names_of_its_own_is_left_to_the_first_batch():
    rows = tiny.Rows([{"x": 1, "labels": 99}])
    rows.column_names = ["x", "labels"]
    check_dataset(rows, "forget_dataset", 10)


def test_what_is_empty_or_cannot_be_read_is_refused_and_a_stream_is_not():
    with pytest.raises(ValueError, match="`retain_dataset` is empty"):
        check_dataset(tiny.digits().select([]), "retain_dataset", 10)
    with pytest.raises(TypeError, match="`retain_dataset` is a generator"):
        check_dataset((row for row in tiny.digits()), "retain_dataset", 10)
    check_dataset(tiny.digits().to_iterable_dataset(), "retain_dataset", 10)


CONTAINERS = {
    "DataFrame": (pandas.DataFrame({"labels": [0]}), r"Dataset.from_pandas\(frame\)"),
    "Table": (pyarrow.table({"labels": [0]}), r"Dataset\(table\)"),
    "DatasetDict": (datasets.DatasetDict(train=tiny.digits()), "Pass one of its 1 data sets"),
    "dict": ({"labels": [0]}, r"Dataset.from_dict\(columns\)"),
    "ndarray": (np.zeros((2, 3)), r"Rows have names: .*from_dict"),
    "Tensor": (torch.zeros(2, 3), r"Rows have names: .*from_dict"),
    "str": ("data.json", "load_dataset"),
    "DataLoader": (torch.utils.data.DataLoader([1]), "Pass its `dataset`"),
    "generator": ((row for row in [1]), "can be read only once. Pass a list"),
    "list": ([tiny.digits()], "concatenate_datasets"),
    "NoneType": (None, "cannot be indexed"),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_that_is_no_data_set_is_refused_with_how_to_make_one(kind):
    dataset, message = CONTAINERS[kind]
    with pytest.raises(TypeError, match=f"`eval_dataset` is a {kind}.*{message}"):
        check_dataset(dataset, "eval_dataset", None)


@pytest.mark.parametrize("rows", [[], [20], [-1, 3], [0, 7, 25]])
def test_requests_without_rows_or_with_rows_out_of_range_are_refused_by_number_and_not_by_name(rows):
    found = f"they are {len(rows)}" + (f" from {min(rows)} to {max(rows)}" if rows else "")
    with pytest.raises(
        ValueError, match=f"rows of request 1 must be among the 20 of `forget_dataset`.*{found}"
    ) as error:
        check_requests({"Ada": [0, 19], "Bob": rows}, tiny.digits().select(range(20)))
    assert "Bob" not in str(error.value)
    with pytest.raises(ValueError, match=f"request 3 must be among the 20 of `train_dataset`.*{found}"):
        check_rows_of_request(3, rows, 20, "train_dataset")


def test_requests_need_rows_that_can_be_indexed():
    stream = tiny.digits().to_iterable_dataset()
    check_requests(None, stream)
    check_requests({}, stream)
    with pytest.raises(ValueError, match="`forget_dataset`, which is a stream"):
        check_requests({"Ada": [0]}, stream)


NUMBERS = {"good": 0, "bad": 1}


def named_rows(*names, nested=False, column="label"):
    feature = datasets.ClassLabel(names=list(names))
    rows = {column: [[0, 1]] * 3 if nested else [0, 1, 1]}
    return datasets.Dataset.from_dict(
        rows, features=datasets.Features({column: datasets.List(feature) if nested else feature})
    )


@pytest.mark.parametrize(
    ("names", "numbers", "found"),
    [
        (["bad", "good"], NUMBERS, [1, 0]),
        (["bad"], NUMBERS, [1]),
        (["Bad", " GOOD "], NUMBERS, [1, 0]),
        (["B-PER", "sea lion"], {"sea_lion": 0, "b_per": 1}, [1, 0]),
        # Only the case tells two classes apart.
        (["a", "A"], {"A": 0, "a": 1}, [1, 0]),
        (["a", "B"], {"A": 0, "a": 1, "b": 2}, [1, None]),
        (["bad", "neutral"], NUMBERS, [1, None]),
        (["0", "1"], NUMBERS, None),
        (["LABEL_0", "LABEL_1"], NUMBERS, None),
        (["bad", "good"], {"LABEL_0": 0, "LABEL_1": 1}, None),
    ],
)
def test_classes_are_matched_by_name_and_numbers_state_nothing(names, numbers, found):
    assert match_classes(names, numbers) == found


@pytest.mark.parametrize("nested", [False, True])
def test_a_data_set_that_orders_its_classes_in_another_way_is_refused_and_the_advice_helps(nested):
    numbers = dict(NUMBERS)
    for rows in (named_rows("good", "bad", nested=nested), named_rows("Good", "BAD", nested=nested)):
        check_class_names(rows, "eval_dataset", numbers)
    wrong = named_rows("bad", "good", nested=nested)
    with pytest.raises(ValueError, match="`eval_dataset` .*column: bad, good; the model: good, bad") as caught:
        check_class_names(wrong, "eval_dataset", numbers)
    # The method of datasets 5.2 fails for lists.
    assert ("dataset.align_labels_with_mapping(" in str(caught.value)) is not nested
    if not nested:
        aligned = wrong.align_labels_with_mapping(numbers, "label")
        check_class_names(aligned, "eval_dataset", numbers)
        assert aligned["label"][:] == [1, 0, 0]
    # Or the model's names are wrong.
    check_class_names(wrong, "eval_dataset", {"bad": 0, "good": 1})


def test_names_that_match_in_no_way_are_refused_with_both_lists():
    with pytest.raises(
        ValueError, match=r"the column: neg, pos; the model: good, bad\..*rename its classes"
    ) as caught:
        check_class_names(named_rows("neg", "pos"), "unseen_dataset", NUMBERS)
    assert "align_labels_with_mapping" not in str(caught.value)
    with pytest.raises(ValueError, match="numbers its classes in another way"):
        check_class_names(named_rows("good", "pos"), "unseen_dataset", NUMBERS)
    # A class that the head has no number for is refused by its number, if it occurs.
    check_class_names(named_rows("good", "bad", "ugly"), "unseen_dataset", NUMBERS)


def test_classes_are_also_compared_within_wrappers_of_torch():
    rows = datasets.Dataset.from_dict({"x": [1, 2], "label": [0, 1]})
    right, wrong = (rows.cast_column("label", datasets.ClassLabel(names=names)) for names in (["a", "b"], ["b", "a"]))
    numbers = {"a": 0, "b": 1}
    check_class_names(ConcatDataset([Subset(right, [0]), right]), "retain_dataset", numbers)
    for wrapped in (Subset(wrong, [0]), ConcatDataset([right, Subset(Subset(wrong, [0, 1]), [1])])):
        with pytest.raises(ValueError, match="`retain_dataset` numbers its classes in another way than the model"):
            check_class_names(wrapped, "retain_dataset", numbers)


def test_data_sets_and_models_without_class_names_are_not_compared():
    check_class_names(named_rows("bad", "good"), "forget_dataset", None)
    check_class_names(named_rows("bad", "good", column="topic"), "forget_dataset", NUMBERS)
    check_class_names(datasets.Dataset.from_dict({"label": [0, 1]}), "forget_dataset", NUMBERS)
    check_class_names(tiny.Rows([{"label": 0}]), "forget_dataset", NUMBERS)
    stream = named_rows("bad", "good").to_iterable_dataset()
    with pytest.raises(ValueError, match="numbers its classes in another way"):
        check_class_names(stream, "forget_dataset", NUMBERS)
