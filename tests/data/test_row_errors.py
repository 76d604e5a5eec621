# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import threading
from functools import partial

import datasets
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_deepclean.data.loaders import BatchSource, seeded_batches
from hf_deepclean.data.row_errors import DataError, locating_errors
from tests import tiny
from tests.data.examples import Stream
from tests.tiny import Rows


SECRET = "a name"


def good(size=12):
    return [{"input_ids": [1, 2, 3], "labels": index} for index in range(size)]


def with_row(row, position=7):
    return Rows([*good(position), row, *good(11 - position)])


class Raising(Rows):
    """A data set, or a stream, that cannot read the row at position 7."""

    def __init__(self, error):
        super().__init__(good())
        self.error = error

    def __getitem__(self, index):
        if index == 7:
            raise self.error
        return super().__getitem__(index)


class Longer(Rows):
    def __len__(self):
        return 14


def padding(rows):
    """Pads `input_ids`, and nothing else."""
    width = max(len(row["input_ids"]) for row in rows)
    padded = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
    return default_data_collator([{**row, "input_ids": ids} for row, ids in zip(rows, padded, strict=True)])


def failing(rows):
    if any(row["labels"] == 7 for row in rows):
        raise KeyError(SECRET)
    return default_data_collator(rows)


def dropping(rows):
    kept = [row for row in rows if row["labels"] < 5]
    batch = default_data_collator(kept or rows)
    return batch if kept else {key: value[:0] for key, value in batch.items()}


def transformed(transform):
    return datasets.Dataset.from_list(good()).with_transform(transform)


def raising(rows):
    if 7 in rows["labels"]:
        raise KeyError(SECRET)
    return rows


def stream_that_raises():
    yield from good(7)
    raise OSError(SECRET)


class Function(Stream):
    def __iter__(self):
        return self.rows()


PIXELS = Image.new("L", (2, 2))
RAGGED = {"input_ids": [1, 2], "labels": 7}
PADDED = "does not pad it. Pass a `data_collator` that does"

CASES = {
    "None for a row": (with_row(None), "row 7 is None, and the data collators of transformers take dictionaries"),
    "a tuple": (with_row(([1], 2)), "row 7 is a value of type tuple"),
    "text for a row": (with_row(SECRET), "row 7 is a value of type str"),
    "no labels": (with_row({"input_ids": [1, 2, 3]}), "row 7 has no `labels`, which row 4 has"),
    "a column more": (with_row({**good(1)[0], "more": 1}, 4), "row 5 has no `more`, which row 4 has"),
    "None for a label": (with_row({**RAGGED, "labels": None}), "row 7 has None as `labels`"),
    "None among tokens": (with_row({**RAGGED, "input_ids": [1, 2, None]}), "row 7 has None among .* `input_ids`"),
    "text for a label": (with_row({**RAGGED, "labels": SECRET}), "text as `labels`. Map it .*`model.config.label2id`"),
    "a dictionary": (with_row({**RAGGED, "labels": {"y": 1}}), "row 7 has a dictionary as `labels`"),
    "an image": (with_row({**RAGGED, "input_ids": PIXELS}), "row 7 has an image as `input_ids`. Process it"),
    "ragged rows": (with_row(RAGGED), rf"`input_ids` has shape \(3,\) in row 4 and \(2,\) in row 7, .*{PADDED}"),
    "ragged labels": (
        (with_row({"input_ids": [1], "labels": [1]}), padding),
        rf"`labels` has shape \(\) in row 4 and \(1,\) in row 7, .*{PADDED}",
    ),
    "a row that raises": (Raising(KeyError(SECRET)), "Row 7 of the data set cannot be read: .* raised KeyError"),
    "a data set that ends early": (Longer(good()), r"Row 12 of .* cannot be read \(IndexError\), though .* has 14"),
    "a transform that raises": (transformed(raising), "Row 7 of .* cannot be read: the data set, or its transform"),
    "a transform that drops rows": (
        transformed(lambda rows: {key: value[:1] for key, value in rows.items()}),
        "Rows 0 to 3 of the data set were read, and 1 came back",
    ),
    "a collator that raises": ((Rows(good()), failing), "Rows 4 to 7 .*: the data collator raised KeyError"),
    "a collator that drops all rows": ((Rows(good()), dropping), "Rows 8 to 11 .* became a batch without examples"),
    "a sample": (Subset(with_row(None), [1, 3, 7, 9]), "^4 rows from 1 to 9 of .*: row 7 is None"),
    "a stream that raises": (Function(stream_that_raises), "Row 7 of .* raised OSError"),
    "an empty stream": (Stream([]), "gave no row: it is empty, or can be read only once"),
    "a stream of None": (Stream([*good(7), None]), "Rows 4 to 7 of .*: row 7 is None"),
}


@pytest.mark.parametrize(
    ("case", "num_workers"), [*((case, 0) for case in CASES), ("None for a row", 1), ("a row that raises", 1)]
)
def test_a_row_that_cannot_be_used_is_named_by_its_position_with_its_fault_and_never_shown(case, num_workers):
    given, message = CASES[case]
    dataset, collator = given if isinstance(given, tuple) else (given, default_data_collator)
    with pytest.raises(DataError, match=message) as caught:
        list(seeded_batches(dataset, 4, collator, 0, num_workers=num_workers))
    assert SECRET not in str(caught.value) and "Traceback" not in str(caught.value)
    is_cause = not any(word in case for word in ("drops", "empty"))
    assert isinstance(caught.value.__cause__, Exception) == is_cause
    if isinstance(dataset, Raising):
        assert caught.value.__cause__.args == dataset.error.args


def test_a_worker_whose_error_cannot_be_sent_names_its_type():
    class Held(Exception):
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(DataError, match="Row 7 .* raised Held") as caught:
        list(seeded_batches(Raising(Held()), 4, default_data_collator, 0, num_workers=1))
    assert "Held" in str(caught.value.__cause__)


def test_a_generator_is_read_only_once():
    rows = Function(partial(next, iter([iter(good())]), iter([])))
    assert len(list(seeded_batches(rows, 4, default_data_collator, 0))) == 3
    with pytest.raises(DataError, match=r"let `__iter__` make a new one"):
        list(seeded_batches(rows, 4, default_data_collator, 0))


def test_plain_errors_get_a_place_and_lack_of_memory_passes_as_it_is():
    for error in (IndexError("index out of range in self"), RuntimeError("sizes differ"), KeyError("labels")):
        with pytest.raises(ValueError, match="^Row 3 of it: ") as caught, locating_errors(lambda: "Row 3 of it"):
            raise error
        assert caught.value.__cause__ is error
    for error in (torch.OutOfMemoryError("full"), MemoryError(), DataError("Row 2"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, locating_errors(lambda: "Row 3 of it"):
            raise error
        assert caught.value is error


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    args = TrainingArguments(str(tmp_path_factory.mktemp("run")), report_to="none")
    return BatchSource(Trainer(tiny.bert(), args))


def listed(labels, format=None):
    dataset = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * len(labels), "labels": labels})
    return dataset.with_format(format)


NONE = [*range(3), None, 0, None]
INCOMPLETE = {
    "a column": listed(NONE),
    "a list": listed([[0, label] for label in NONE]),
    "a selection": listed([None, *NONE]).select(range(1, 7)),
    "tensors": listed(NONE, "torch"),
    "rows": [{"input_ids": [1, 2], "labels": label} for label in NONE],
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_none_is_found_in_all_rows_before_any_is_used(source, kind):
    with pytest.raises(DataError, match="2 of 6 rows of the data set have None as `labels`.* positions 3, 5. "):
        source.check_no_none(INCOMPLETE[kind])


def test_none_that_reaches_no_model_or_that_the_collator_takes_is_no_fault(source):
    source.check_no_none(listed([0, 1, 2]).add_column("unused", [None, "a", None]))
    source.check_no_none(listed([0, 1]).with_transform(lambda rows: {**rows, "labels": [None, None]}))
    filling = BatchSource(
        source.trainer, lambda rows: {"labels": torch.tensor([-100 if r["labels"] is None else 0 for r in rows])}
    )
    filling.check_no_none(listed(NONE))


MODEL_WITHOUT_HEAD = "`BertModel.forward` takes no labels: this model has no head"


@pytest.mark.parametrize(
    ("model", "labels", "reason"),
    [
        (tiny.bert(), ["a", "b"], "Row 0 has text as `labels`. Map it to the numbers of `model.config.label2id`"),
        (tiny.bert(), [None, 0], "Row 0 has None as `labels`"),
        (tiny.bert().bert, [0, 1], MODEL_WITHOUT_HEAD),
    ],
)
def test_rows_tell_why_a_batch_has_no_labels(tmp_path, model, labels, reason):
    source = BatchSource(Trainer(model, TrainingArguments(str(tmp_path), report_to="none")))
    for dataset in (listed(labels), list(listed(labels)), listed(labels).to_iterable_dataset()):
        assert reason in source.why_without_labels(dataset)
        assert source.why_without_labels(listed(labels).rename_column("labels", "target")) is None
