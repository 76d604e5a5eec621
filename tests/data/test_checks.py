# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from hf_deepclean.data.checks import check_dataset, check_disjoint, check_requests, check_rows_of_request
from tests import tiny


def test_overlap_is_found_by_content_and_counted():
    digits = tiny.digits()
    check_disjoint(digits.select(range(100)), digits.select(range(100, 400)))
    with pytest.raises(ValueError, match="3 of 100 rows of `forget_dataset` are in `retain_dataset`"):
        check_disjoint(digits.select(range(100)), digits.select([*range(97, 100), *range(200, 300)]))


def test_overlap_is_found_across_copies_formats_and_transforms():
    digits = tiny.digits()
    copy = datasets.Dataset.from_list(
        digits.select([5, 6]).with_format(None).to_list(), features=digits.features
    ).with_transform(lambda rows: {"pixel_values": torch.rand(len(rows["labels"]), 1, 8, 8), "labels": rows["labels"]})
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(copy, digits.select(range(6)))


def test_text_that_differs_in_one_character_is_another_row():
    forget = datasets.Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]})
    check_disjoint(forget, datasets.Dataset.from_dict({"text": ["One", "two "], "label": [0, 1]}))
    check_disjoint(forget, datasets.Dataset.from_dict({"text": ["one", "two"], "label": [1, 0]}))
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(forget, datasets.Dataset.from_dict({"label": [1], "text": ["two"], "id": [7]}))


def test_images_are_compared_by_their_bytes_not_their_path(tmp_path):
    pixels = [np.full((4, 4), value, np.uint8) for value in range(3)]
    encoded = []
    for number, array in enumerate(pixels):
        buffer = io.BytesIO()
        PillowImage.fromarray(array).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"/somewhere/{number}.png"})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    forget = datasets.Dataset.from_dict({"image": encoded[:2], "label": [0, 0]}, features=features)
    moved = [{**encoded[1], "path": "/elsewhere/x.png"}, encoded[2]]
    retain = datasets.Dataset.from_dict({"image": moved, "label": [0, 0]}, features=features)
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(forget, retain)


def test_other_map_style_data_are_compared_too():
    rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor(0)} for i in range(4)]
    check_disjoint(tiny.Rows(rows[:2]), tiny.Rows(rows[2:]))
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(tiny.Rows(rows[:2]), tiny.Rows(rows[1:]))


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
