# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean.runtime.choices import check_choice


def test_an_unknown_value_is_refused_with_all_that_are_allowed():
    check_choice("mode", "batched", ("batched", "sequential"))
    with pytest.raises(ValueError, match="`mode` is 'both' but must be one of 'batched', 'sequential'"):
        check_choice("mode", "both", ("batched", "sequential"))
