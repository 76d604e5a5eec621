# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import io
import logging

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image as PillowImage

from hf_deepclean.data.overlaps.checks import check_overlaps
from tests import tiny
from tests.data.examples import Stream


SHARED = r"{} of {} rows of `{}_dataset` are in `{}_dataset` too"


def found(one, other, count, size):
    return SHARED.format(count, size, one, other)


def text(size=30, first=0, **columns):
    rows = {"text": [f"row number {first + place} of many" for place in range(size)], "label": [0] * size}
    return Dataset.from_dict(rows | columns)


def tokens(size=30, seed=0, padded_to=None, dtype="int64", **columns):
    generator = np.random.default_rng(seed)
    rows = [generator.integers(3, 50, 6 + place % 4) for place in range(size)]
    length = [padded_to or len(row) for row in rows]
    values = {
        "input_ids": [[*row, *[0] * (n - len(row))] for row, n in zip(rows, length, strict=True)],
        "attention_mask": [[1] * len(row) + [0] * (n - len(row)) for row, n in zip(rows, length, strict=True)],
        "labels": generator.integers(0, 4, size),
    }
    dataset = Dataset.from_dict({name: list(column) for name, column in (values | columns).items()})
    features = {"input_ids": datasets.Sequence(datasets.Value(dtype)), "labels": datasets.Value(dtype)}
    return dataset.cast(datasets.Features(dataset.features | features))


def test_data_sets_that_share_nothing_pass_without_a_word(caplog):
    digits = tiny.digits()
    parts = {"forget": range(100), "retain": range(100, 400), "unseen": range(400, 500), "eval": range(500, 600)}
    check_overlaps({split: digits.select(rows) for split, rows in parts.items()})
    check_overlaps({"forget": text(5), "retain": text(20, 5), "unseen": text(20, 25), "eval_one": text(20, 25)})
    assert not caplog.records


@pytest.mark.parametrize(("one", "other"), [("forget", "retain"), ("forget", "unseen")])
def test_rows_to_forget_among_the_data_to_keep_or_the_unseen_ones_are_refused_with_their_places(one, other):
    digits = tiny.digits()
    splits = {"forget": digits.select(range(100)), "retain": digits.select(range(100, 400))}
    splits[other] = digits.select([*range(97, 100), *range(200, 300)])
    with pytest.raises(ValueError, match=f"{found(one, other, 3, 100)}.*at places 97, 98, 99 of `forget_dataset`"):
        check_overlaps(splits)


def test_unseen_data_that_were_trained_on_are_refused_and_a_few_are_told(caplog):
    splits = {"forget": text(5), "retain": text(100, 5)}
    with pytest.raises(ValueError, match=f"{found('unseen', 'retain', 50, 50)}.*they are not unseen"):
        check_overlaps(splits | {"unseen": text(50, 20)})
    check_overlaps(splits | {"unseen": text(40, 104)})
    assert "1 of 40 rows of `unseen_dataset`" in caplog.text and "weakens the membership attack" in caplog.text


@pytest.mark.parametrize("other", ["forget", "retain"])
def test_evaluation_data_that_were_trained_on_are_told(other, caplog):
    splits = {"forget": text(5), "retain": text(100, 5), "eval": text(20, 200), "eval_b": text(20, 300)}
    first = 0 if other == "forget" else 50
    check_overlaps(splits | {"eval_b": datasets.concatenate_datasets([text(2, first), text(20, 300)])})
    assert len(caplog.records) == 1 and "2 of 22 rows of `eval_b_dataset`" in caplog.text


NUMBERING = {
    "id": list(range(30)),
    "idx": [f"{place:x}" for place in range(30)],
    "__index_level_0__": list(range(30)),
}


@pytest.mark.parametrize("name", NUMBERING)
def test_a_column_that_numbers_the_rows_does_not_hide_that_they_are_equal(name):
    one, other = tokens(**{name: NUMBERING[name]}), tokens(**{name: NUMBERING[name][::-1]})
    for columns in (None, ("input_ids", "attention_mask", "labels")):
        with pytest.raises(ValueError, match=found("forget", "retain", 30, 30)):
            check_overlaps({"forget": one, "retain": other}, columns)


def test_a_column_that_does_not_reach_the_model_does_not_hide_that_rows_are_equal():
    one, other = tokens(source=["a"] * 30), tokens(source=["b"] * 30)
    with pytest.raises(ValueError, match=found("forget", "retain", 30, 30)):
        check_overlaps({"forget": one, "retain": other}, ("input_ids", "attention_mask", "labels"))
    check_overlaps({"forget": one.remove_columns("attention_mask"), "retain": tokens(seed=1)})


FORMS = {
    "padding": lambda: tokens(padded_to=20),
    "types": lambda: tokens(dtype="int32"),
    "format": lambda: tokens().with_format("torch"),
    "transform": lambda: tokens().with_transform(lambda rows: {**rows, "noise": [[1.0]] * len(rows["labels"])}),
    "name of the labels": lambda: tokens().rename_column("labels", "label"),
    "map-style": lambda: tiny.Rows(tokens().to_list()),
    "tensors": lambda: tiny.Rows([{k: torch.tensor(v) for k, v in row.items()} for row in tokens().to_list()]),
    "order": lambda: tokens().select(range(29, -1, -1)),
    "streamed part": lambda: Dataset.from_list(tokens().to_list()[:30]),
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_rows_are_found_whatever_their_form(form):
    columns = ("input_ids", "attention_mask", "labels", "label")
    splits = {"forget": tokens(), "retain": FORMS[form]()}
    if form == "name of the labels":
        splits["forget"] = tokens().rename_column("labels", "label")
    for one, other in (("forget", "retain"), ("retain", "forget")):
        with pytest.raises(ValueError, match=found("forget", "retain", 30, 30)):
            check_overlaps({"forget": splits[one], "retain": splits[other]}, columns)


def test_text_that_differs_in_its_label_is_another_row():
    forget = Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]})
    check_overlaps({"forget": forget, "retain": Dataset.from_dict({"text": ["one", "two"], "label": [1, 0]})})
    with pytest.raises(ValueError, match=found("forget", "retain", 1, 2)):
        check_overlaps({"forget": forget, "retain": Dataset.from_dict({"label": [1], "text": ["two"], "id": [7]})})


def test_images_are_compared_by_their_bytes_not_their_path():
    pixels = [np.full((4, 4), value, np.uint8) for value in range(3)]
    encoded = []
    for number, array in enumerate(pixels):
        buffer = io.BytesIO()
        PillowImage.fromarray(array).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"/somewhere/{number}.png"})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    forget = Dataset.from_dict({"image": encoded[:2], "label": [0, 0]}, features=features)
    moved = [{**encoded[1], "path": "/elsewhere/x.png"}, encoded[2]]
    retain = Dataset.from_dict({"image": moved, "label": [0, 0]}, features=features)
    with pytest.raises(ValueError, match=found("forget", "retain", 1, 2)):
        check_overlaps({"forget": forget, "retain": retain})


class Drawing(tiny.Rows):
    """Rows with noise from a generator of its own, or from the global one."""

    def __init__(self, rows, own):
        super().__init__(rows)
        self.generator = np.random.default_rng(0) if own else np.random

    def __getitem__(self, index):
        return super().__getitem__(index) | {"pixel_values": self.generator.normal(size=3)}


def test_a_data_set_that_draws_from_a_generator_of_its_own_is_told_and_one_that_can_be_seeded_is_compared(caplog):
    rows = [{"labels": place} for place in range(4)]
    check_overlaps({"forget": Drawing(rows[:2], own=True), "retain": Drawing(rows, own=True)})
    assert len(caplog.records) == 1 and "`forget_dataset`, `retain_dataset` draws its rows at random" in caplog.text
    with pytest.raises(ValueError, match=found("forget", "retain", 2, 2)):
        check_overlaps({"forget": Drawing(rows[:2], own=False), "retain": Drawing(rows, own=False)})


def test_a_transform_that_draws_at_random_is_told_and_the_stored_rows_are_compared(caplog):
    generator = np.random.default_rng(0)
    drawn = tokens().with_transform(lambda rows: {**rows, "noise": generator.normal(size=len(rows["labels"]))})
    with pytest.raises(ValueError, match=found("forget", "retain", 30, 30)):
        check_overlaps({"forget": drawn, "retain": tokens()})
    assert "`forget_dataset` draws its rows at random" in caplog.text


def test_streams_and_data_sets_without_a_common_column_are_told_as_not_compared(caplog):
    with caplog.at_level(logging.WARNING):
        check_overlaps({"forget": text(3), "retain": Stream(text(3).to_list())})
        check_overlaps({"forget": text(3), "retain": tokens().remove_columns("labels")})
    assert "(`retain_dataset`) are not compared" in caplog.text
    assert "`forget_dataset` and `retain_dataset` have no column in common" in caplog.text


def test_near_duplicates_are_counted_and_told(caplog):
    one = "Ada Smith was born in the small town of Ely and has lived with her two cats near the river ever since"
    two = "Bob Jones repairs clocks and radios in a shop at the corner of the market square of a city in the north"
    splits = {
        "forget": Dataset.from_dict({"text": [one, two], "label": [0, 1]}),
        "retain": Dataset.from_dict({"text": ["Nothing alike here.", one.upper() + "!"], "label": [0, 1]}),
        "unseen": Dataset.from_dict({"text": [f"{two} again"], "label": [0]}),
    }
    check_overlaps(splits)
    told = [record.message for record in caplog.records]
    assert "1 of 2 rows of `forget_dataset` have a near-duplicate in `retain_dataset`" in told[0]
    assert "row 0 and row 1 there" in told[0] and "row 1 and row 0 there" in told[1]
    assert len(told) == 2 and not any(word in " ".join(told) for word in ("Ada", "clocks"))


def test_a_row_that_cannot_be_read_is_named_by_data_set_and_position():
    class Broken(tiny.Rows):
        def __getitem__(self, index):
            if index == 3:
                raise KeyError("gone")
            return super().__getitem__(index)

    rows = [{"x": place, "labels": 0} for place in range(6)]
    with pytest.raises(ValueError, match="Row 3 of `retain_dataset`"):
        check_overlaps({"forget": tiny.Rows(rows[:1]), "retain": Broken(rows)})
