# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of values are equal exactly if their contents are, whatever type, file or arrow column holds them."""

import datetime
import io
import wave
from decimal import Decimal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from datasets import Dataset
from PIL import Image
from pyarrow import parquet

from hf_deepclean.data.digests import dataset_fingerprint, row_digests
from tests.tiny import Rows


def file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound(samples, rate=8000, note=b""):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as written:
        written.setparams((1, 2, rate, len(samples), "NONE", ""))
        written.writeframes(np.asarray(samples, "<i2").tobytes())
    content = buffer.getvalue()
    note = b"LIST" + len(note).to_bytes(4, "little") + note if note else b""
    return content[:4] + (len(content) + len(note) - 8).to_bytes(4, "little") + content[8:] + note


def palette(*colours):
    image = Image.new("P", (2, 1))
    image.putpalette([channel for colour in colours for channel in colour])
    image.putdata([0, 1])
    return image


def animation(*shades):
    frames = [Image.new("L", (3, 3), shade) for shade in shades]
    return {"bytes": file(frames[0], "GIF", save_all=True, append_images=frames[1:]), "path": None}


UTC = datetime.timezone.utc
PLUS_ONE = datetime.timezone(datetime.timedelta(hours=1))
NOON = datetime.datetime(2020, 5, 17, 12, 30)
SAMPLES = np.arange(-200, 200, dtype=np.int16)
DEEP = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000


# Values that are the same, and values that are all different from each other and from those.
SAME = {
    "numbers": [1, 1.0, True, np.float16(1), np.int8(1), torch.tensor(1), Decimal("1.00"), np.array(1)],
    "zeros": [0.0, -0.0, 0, False, np.float32(-0.0), torch.tensor(-0.0)],
    "zeros among others": [[0.5, 0.0], [0.5, -0.0]],
    "not a number": [float("nan"), np.float32("nan"), -np.float64("nan"), np.array(0x7FF8000000000001).view("f8")],
    "large integers": [2**63, np.uint64(2**63), 2.0**63],
    "large and small integers": [[2**64 - 1, 1], np.array([2**64 - 1, 1], np.uint64)],
    "lists of numbers": [[0.5, 3], [Decimal("0.50"), Decimal(3)], [torch.tensor(0.5), torch.tensor(3)]],
    "dates": [NOON, np.datetime64(NOON), np.datetime64(NOON, "ns"), pd.Timestamp(NOON)],
    "instants": [NOON.replace(tzinfo=UTC), NOON.replace(hour=13, tzinfo=PLUS_ONE)],
    "empty lists": [[], (), np.array([]), np.array([], np.int32), torch.tensor([])],
    "lists of texts": [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object)],
    "sparse": [torch.eye(2), torch.eye(2).to_sparse(), [[1, 0], [0, 1]]],
    "brain floats": [torch.tensor([0.5], dtype=torch.bfloat16), [0.5]],
    "byte orders": [np.array([1.5], ">f8"), np.array([1.5], "<f4"), np.array([[1.5, 9]]).T[0]],
    "grey pictures": [
        Image.new("L", (3, 2), 9), Image.new("RGB", (3, 2), (9, 9, 9)), np.full((2, 3, 1), 9), [[9] * 3] * 2,
    ],
    "two colours": [Image.new("1", (3, 2), 1), Image.new("L", (3, 2), 255), Image.new("LA", (3, 2), (255, 255))],
    "palettes": [palette((1, 2, 3), (4, 5, 6)), np.array([[[1, 2, 3], [4, 5, 6]]])],
    "deep pictures": [DEEP, {"bytes": file(Image.fromarray(DEEP)), "path": "deep.png"}],
    "lists of pictures": [[Image.new("L", (1, 2), 3)] * 2, np.full((2, 2, 1), 3)[..., None][..., 0], [[[3], [3]]] * 2],
    "grey pictures of one size": [[Image.new("L", (1, 2), 7)] * 2, [Image.new("RGB", (1, 2), (7, 7, 7))] * 2],
    "sounds": [
        {"bytes": sound(SAMPLES), "path": "a.wav"}, {"bytes": sound(SAMPLES, note=b"no one"), "path": None},
        {"array": SAMPLES / 2**15, "sampling_rate": 8000, "path": "b.wav"},
    ],
    "empty entries": [{"a": 1, "b": None}, {"a": 1}],
}  # fmt: skip
OTHERS = [
    "1", b"1", [1], [[1]], "1.0", 2, None, "", b"", {}, "None", "nan", [None], [float("nan")], "2020-05-17T12:30:00",
    2**63 + 1, 2**64, -(2**63), 2**64 - 1, -1, 10**30, float(2**53), 2**53 + 1, [2**53 + 1, 0.5], [2**53, 0.5],
    [2**64 - 2, 1], [2**64 - 1, 1.5], [Decimal("0.1"), 3],
    0.1, np.float32(0.1), Decimal("0.1"), Decimal("0.10000000000000000000000000000000001"), 1j, 20_000_001.0,
    20_000_002.0, datetime.date(2020, 5, 17), datetime.datetime(2020, 5, 17), datetime.time(12, 30),
    datetime.timedelta(1), ["ab", "c"], ["a", "bc"], ["a", "b", "c"], [["a"], "b"], ["a", ["b"]], ["ab"], "ab",
    {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "c": 2}, {"a": 1, "b": 2}, {"a": "b"}, ["a"], {1: 2}, {"1": 2},
    [[], [1]], [[1], []], [[]], [[], []], np.ones((2, 3)), np.ones((3, 2)), np.ones(6), {1, 2}, "e\u0301", "\u00e9",
    "a ", "a", palette((1, 2, 3), (4, 5, 7)), Image.new("RGBA", (3, 2), (9, 9, 9, 254)), Image.new("L", (2, 3), 9),
    Image.new("CMYK", (3, 2), (9, 9, 9, 255)), Image.new("YCbCr", (3, 2), (9, 9, 9)), Image.new("L", (3, 2), 8),
    animation(5, 9), animation(5, 8), {"bytes": sound(SAMPLES, rate=16000), "path": None},
    {"bytes": sound(SAMPLES[::-1]), "path": None}, {"bytes": b"neither", "path": None},
]  # fmt: skip


def test_values_are_equal_exactly_if_their_contents_are(attack):
    attempts, kept = {}, {}
    for name, values in SAME.items():
        digests = [*row_digests(Rows([{"x": value} for value in values]))]
        attempts |= {f"{name} {place}": digest != digests[0] for place, digest in enumerate(digests)}
        kept[name] = digests[0]
    first = {digest: name for name, digest in kept.items()}
    attempts["one form for two contents"] = len(first) < len(kept)
    for place, digest in enumerate(row_digests(Rows([{"x": value} for value in OTHERS]))):
        attempts[f"value {place} for {first.get(digest)}"] = digest in first
        first.setdefault(digest, f"value {place}")
    assert not attack("values that are equal or not", attempts)


def test_what_arrow_stores_is_what_a_row_returns(attack):
    columns = {
        "date": [NOON, None, NOON], "day": [NOON.date()] * 3, "time": [NOON.time()] * 3,
        "price": [Decimal("1.50"), Decimal("2.00"), None], "flag": [True, None, False], "number": [2**53 + 1, None, 3],
        "ragged": [[[1], [2, 3]], [], [[4]]], "gaps": [[1, None], None, []], "nested": [{"a": [0.1, 2], "b": "x"}] * 3,
        "texts": [["a", None], [], ["b"]], "raw": [b"\x00", b"", None],
        "large": pa.array([2**63 + 5, 0, 1], pa.uint64()),
        "lasting": [datetime.timedelta(3)] * 3,
    }  # fmt: skip
    found = {}
    for name, column in columns.items():
        dataset = Dataset(datasets.table.InMemoryTable(pa.table({name: column})))
        fingerprint = dataset_fingerprint(dataset)
        found[name] = dataset_fingerprint(Rows(list(dataset))) != fingerprint
        found[f"{name}, streamed"] = dataset_fingerprint(dataset.to_iterable_dataset()) != fingerprint
        parquet.write_table(pa.table({name: column}), buffer := io.BytesIO())
        read = Dataset(datasets.table.InMemoryTable(parquet.read_table(buffer)))
        found[f"{name} in Parquet"] = dataset_fingerprint(read) != fingerprint
    assert not attack("stored values and returned ones", found)
