# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch

from hf_deepclean.data.streams import by_length, first_rows, is_stream
from tests.data.examples import batches_of, sources


def test_a_stream_can_be_cut_short():
    for kind, dataset in sources(11).items():
        assert is_stream(dataset) == ("stream" in kind)
        if is_stream(dataset):
            assert sum(len(batch["labels"]) for _, batch in batches_of(first_rows(dataset, 7))) == 7


def test_rows_are_ordered_by_their_numbers_of_tokens_and_their_places_lead_back():
    rows = [{"input_ids": [1] * length} for length in (3, 1, 2, 1)]
    ordered, places = by_length(rows)
    assert [len(row["input_ids"]) for row in ordered] == [1, 1, 2, 3]
    assert [ordered[place] for place in places] == rows
    images = [{"pixel_values": 1.0}, {"pixel_values": 2.0}]
    assert by_length(images)[0] is images and by_length(images)[1].tolist() == [0, 1]


def test_rows_whose_lengths_are_drawn_have_one_order_and_the_random_state_does_not_change():
    class Cropped(list):
        def __getitem__(self, place):
            return {"input_ids": torch.zeros(int(torch.randint(1, 99, ())))}

    rows, state = Cropped(range(9)), torch.get_rng_state()
    assert by_length(rows)[1].tolist() == by_length(rows)[1].tolist()
    assert torch.equal(torch.get_rng_state(), state)
