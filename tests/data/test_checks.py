# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from hf_deepclean.data.checks import check_dataset, check_requests, check_rows_of_request
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
