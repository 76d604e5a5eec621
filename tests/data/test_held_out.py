# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import numpy as np
import pytest

from hf_deepclean.data.held_out import hold_out_unseen
from tests import tiny
from tests.tiny import Rows


def rows_of(labels):
    return datasets.Dataset.from_dict({"x": list(range(len(labels))), "label": labels})


def numbers(dataset):
    return [int(dataset[row]["x"]) for row in range(len(dataset))]


FORGET = rows_of([3, 3, 5])
# Twenty rows, of which six have a class of the forget data.
EVALUATION = rows_of([3, 5, 1, 2, 0, 9, 8, 3, 5, 7] * 2).filter(lambda row: row["x"] not in (17, 18))


def test_unseen_rows_have_classes_of_the_forget_data_and_leave_the_evaluation_data():
    rest, unseen = hold_out_unseen(0.5, 0, FORGET, EVALUATION, None)
    assert (len(unseen), len(rest)) == (3, len(EVALUATION) - 3)
    assert set(unseen["label"]) <= {3, 5}
    assert sorted([*rest["x"], *unseen["x"]]) == sorted(EVALUATION["x"])
    assert rest["x"] == sorted(rest["x"]) and unseen["x"] == sorted(unseen["x"])


def test_the_draw_depends_on_the_seed_alone():
    draws = [hold_out_unseen(0.5, seed, FORGET, EVALUATION, None)[1]["x"] for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1


def test_rows_that_are_no_data_set_are_divided_in_the_same_way():
    plain = [Rows([part[row] for row in range(len(part))]) for part in (FORGET, EVALUATION)]
    expected, found = hold_out_unseen(0.5, 0, FORGET, EVALUATION, None), hold_out_unseen(0.5, 0, *plain, None)
    assert [numbers(part) for part in found] == [numbers(part) for part in expected]


def test_examples_without_a_single_class_are_drawn_from_all_rows():
    evaluation = datasets.Dataset.from_dict({"x": list(range(10)), "labels": [[1, 2]] * 10})
    rest, unseen = hold_out_unseen(0.3, 0, evaluation, {"test": evaluation}, None)
    assert list(rest) == ["test"] and (len(unseen), len(rest["test"])) == (3, 7)
    _, unseen = hold_out_unseen(0.3, 0, evaluation.remove_columns("labels"), evaluation, None)
    assert len(unseen) == 3
    # The digits are images with a class.
    _, unseen = hold_out_unseen(1e-9, 0, tiny.digits().select([0]), tiny.digits(), None)
    assert np.asarray(unseen["labels"]).tolist() == np.asarray(tiny.digits()["labels"][:1]).tolist()


def test_without_a_share_nothing_is_drawn():
    assert hold_out_unseen(None, 0, FORGET, EVALUATION, None) == (EVALUATION, None)
    assert hold_out_unseen(None, 0, FORGET, None, FORGET) == (None, FORGET)


@pytest.mark.parametrize(
    ("evaluation", "unseen", "message"),
    [
        (EVALUATION, FORGET, "there is an `unseen_dataset` too"),
        (None, None, "there is none"),
        ({"a": EVALUATION, "b": EVALUATION}, None, "these are 2 data sets"),
        (EVALUATION.to_iterable_dataset(), None, "which is a stream"),
        (rows_of([3]), None, "of its 1 rows none would be left"),
        (rows_of([1, 2]), None, "none of its 2 rows has a class of the forget data"),
    ],
)
def test_what_cannot_be_divided_is_refused(evaluation, unseen, message):
    with pytest.raises(ValueError, match=f"`unseen_share_of_eval=0.5` takes unseen.*{message}"):
        hold_out_unseen(0.5, 0, FORGET, evaluation, unseen)
