# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from datasets import Dataset

from hf_deepclean.publishing.leaks import needles_of_dataset
from tests.publishing.leaks.rows import ROWS


@pytest.fixture(scope="module")
def forget():
    return Dataset.from_dict(ROWS)


@pytest.fixture(scope="module")
def needles(forget):
    return needles_of_dataset(forget)
