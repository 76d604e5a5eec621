# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch

from hf_deepclean.data.contents.earlier import earlier_fingerprint
from hf_deepclean.data.digests import dataset_fingerprint
from tests.data.examples import Stream, people, rows
from tests.tiny import Rows


def test_the_fingerprint_depends_on_every_row_and_their_order():
    expected = dataset_fingerprint(people())
    assert len(expected) == 64 and dataset_fingerprint(people()) == expected
    others = [people().select(range(5)), people().select([1, 0, 2, 3, 4, 5]), people().rename_column("age", "years")]
    assert expected not in map(dataset_fingerprint, others)


def test_fingerprints_of_version_0_1_are_still_made():
    expected = "ae66a710c7543641e44dd316a485ca986231573676c6548256e685686b0b3b40"
    assert earlier_fingerprint(people()) == expected != dataset_fingerprint(people())


def test_the_fingerprint_of_a_stream_is_that_of_its_first_hundred_rows():
    expected = dataset_fingerprint(Stream(rows(100)))
    assert dataset_fingerprint(Stream(rows(120))) == expected
    assert dataset_fingerprint(Stream(rows(99))) != expected


def test_a_transform_that_draws_at_random_draws_the_same_for_every_fingerprint():
    class Drawing(Rows):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"drawn": torch.rand(())}

    state = torch.get_rng_state()
    assert dataset_fingerprint(Drawing(rows(3))) == dataset_fingerprint(Drawing(rows(3)))
    assert torch.equal(torch.get_rng_state(), state)
