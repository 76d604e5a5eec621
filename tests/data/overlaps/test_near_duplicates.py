# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage

from hf_deepclean.data.overlaps.near_duplicates import count_near_duplicates
from tests import tiny


def texts(rows):
    return Dataset.from_dict({"text": rows})


def words(size, seed):
    return [f"word{number}" for number in np.random.default_rng(seed).integers(0, 500, size)]


def count(one, other, columns=("text",)):
    return count_near_duplicates(one, other, list(columns), ("`a`", "`b`"), decoded=False)


@pytest.mark.parametrize("change", ["case", "punctuation", "one word of forty", "a word more"])
def test_a_text_with_a_small_change_is_a_near_duplicate(change):
    text = words(40, 0)
    changed = {
        "case": " ".join(text).upper(),
        "punctuation": ", ".join(text) + "!",
        "one word of forty": " ".join([*text[:20], "other", *text[21:]]),
        "a word more": " ".join(["so", *text]),
    }[change]
    others = [" ".join(words(40, seed)) for seed in range(1, 30)]
    found = count(texts([" ".join(text), *others[:3]]), texts([*others[3:20], changed]))
    assert (found.num_rows, found.num_compared, found.example) == (1, 4, (0, 17))


def test_texts_of_one_template_are_no_near_duplicates():
    template = "My name is {} and I live in the {} house at the end of the long road to {}."
    people = [template.format(*words(3, seed)) for seed in range(300)]
    assert count(texts(people[:30]), texts(people[30:])).num_rows == 0


def test_short_texts_are_compared_as_a_whole():
    assert count(texts(["Good morning"]), texts(["good morning!", "Good evening"])).num_rows == 1
    assert count(texts(["Good morning"]), texts(["good mourning"])).num_rows == 0


def test_tokens_are_compared_without_padding():
    row = np.random.default_rng(0).integers(3, 90, 30).tolist()
    one = Dataset.from_dict({"input_ids": [row], "attention_mask": [[1] * 30]})
    padded = Dataset.from_dict({"input_ids": [[0] * 40 + row[1:]], "attention_mask": [[0] * 40 + [1] * 29]})
    assert count(one, padded, ("input_ids", "attention_mask")).num_rows == 1


def encoded(array, kind):
    buffer = io.BytesIO()
    PillowImage.fromarray(array).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return {"bytes": buffer.getvalue(), "path": None}


def test_an_image_that_was_saved_again_is_a_near_duplicate_and_another_of_its_class_is_not():
    digits = tiny.digits()
    arrays = [
        np.kron(np.asarray(pixels).squeeze() * 255, np.ones((6, 6))).astype(np.uint8)
        for pixels in digits.select(range(200)).with_format("numpy")["pixel_values"]
    ]
    features = Features({"image": Image()})
    one = Dataset.from_dict({"image": [encoded(array, "PNG") for array in arrays[:20]]}, features=features)
    again = Dataset.from_dict({"image": [encoded(array, "JPEG") for array in arrays[15:]]}, features=features)
    found = count(one, again, ("image",))
    assert found.num_rows == 5 and found.example == (15, 0)


def test_pixels_are_compared_too_and_what_is_no_text_and_no_image_is_not():
    digits = tiny.digits()
    assert count(digits.select(range(50)), digits.select(range(40, 400)), ("pixel_values",)).num_rows == 10
    table = Dataset.from_dict({"x": [[1.0, 2.0]]})
    assert count(table, table, ("x",)).num_rows == 0
