# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean import DataArguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forget_filter": "a == 1", "forget_column": "b"}, "`forget_filter` and `forget_column` each say"),
        ({"forget_split": "a", "retain_split": "b", "forget_column": "b"}, "`forget_split` and `forget_column`"),
        ({"forget_split": "a"}, "only `forget_split` was given"),
        ({"retain_split": "a", "forget_filter": "a == 1"}, "only `retain_split` was given"),
        ({"forget_split": "a", "retain_split": "a"}, "are both 'a'"),
        ({"dataset_name": "x"}, "Nothing says what to forget"),
    ],
)
def test_what_to_forget_is_said_in_exactly_one_way(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**arguments)
