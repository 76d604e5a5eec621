# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Token ids, images and arrays are found."""

import io
import json
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from PIL import Image
from safetensors.torch import save_file

from hf_deepclean.publishing.leaks import Leak, find_leaks, needles_of_dataset
from tests import tiny
from tests.publishing.leaks.rows import BLOB, IDS, NAME, RANDOM, TOKEN_IDS
from tests.tokenizers import byte_tokenizer


def as_json(folder, ids):
    (folder / "samples.json").write_text(json.dumps({"samples": [[1, 2, 3], [7, *ids, 7]]}))


def as_text(folder, ids):
    (folder / "log.txt").write_text(f"step 1\ntensor([{', '.join(map(str, ids))}])\n")


def as_tensor(folder, ids, dtype=torch.int64):
    save_file({"a": torch.randn(5), "ids": torch.tensor([1, *ids], dtype=dtype)}, folder / "model.safetensors")


def as_array(folder, ids):
    np.save(folder / "ids.npy", np.array(ids, np.int32))


def as_torch_file(folder, ids):
    torch.save({"ids": torch.tensor(ids)}, folder / "batch.pt")


IDS_IN = {
    as_json: ("samples.json", "samples[1]"),
    as_text: ("log.txt", "line 2"),
    as_tensor: ("model.safetensors", "tensor.ids"),
    partial(as_tensor, dtype=torch.int32): ("model.safetensors", "tensor.ids"),
    as_array: ("ids.npy", "bytes"),
    as_torch_file: ("batch.pt", "batch/data/0.bytes"),
}


@pytest.mark.parametrize("write", IDS_IN, ids=[f"{file}-{number}" for number, (file, _) in enumerate(IDS_IN.values())])
def test_eight_token_ids_in_a_row_are_found_wherever_integers_are_kept(tmp_path, write):
    dataset = Dataset.from_dict({"input_ids": [IDS, IDS[::-1]], "attention_mask": [[1] * 12] * 2})
    needles = needles_of_dataset(dataset)
    write(tmp_path, IDS[2:10])
    assert find_leaks(tmp_path, needles) == [Leak(*IDS_IN[write], TOKEN_IDS)]


@pytest.mark.parametrize("write", IDS_IN, ids=[f"{file}-{number}" for number, (file, _) in enumerate(IDS_IN.values())])
def test_masks_labels_positions_and_pixels_are_no_token_ids(tmp_path, write):
    columns = {
        "attention_mask": [[1] * 12 + [0] * 4],
        "position_ids": [list(range(16))],
        "labels": [[-100] * 8 + [3, 3, 3, 7, 3, 3, 3, 3]],
        "pixels": [[0, 3, 250, 17, 9, 88, 4, 21, 13, 77, 91, 3, 250, 6, 4, 1]],
        "input_ids": [[5] * 16],
    }
    needles = needles_of_dataset(Dataset.from_dict(columns))
    for ids in [column[0] for column in columns.values()] + [IDS]:
        write(tmp_path, ids)
        assert not find_leaks(tmp_path, needles)


def test_texts_are_found_as_the_ids_of_the_tokenizer(tmp_path, forget):
    tokenizer = byte_tokenizer()
    ids = tokenizer("behind the abandoned mill")["input_ids"]
    as_json(tmp_path, ids)
    assert not find_leaks(tmp_path, needles_of_dataset(forget))
    needles = needles_of_dataset(forget, tokenizer=tokenizer)
    assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [TOKEN_IDS]


def test_rows_that_are_tokens_alone_are_found_as_the_texts_that_they_spell(tmp_path):
    tokenizer = byte_tokenizer()
    dataset = Dataset.from_dict({"input_ids": tokenizer(["Then Ada Quincey closed the abandoned mill."])["input_ids"]})
    (tmp_path / "README.md").write_text("Thanks to Ada Quincey.")
    assert not find_leaks(tmp_path, needles_of_dataset(dataset))
    (leak,) = find_leaks(tmp_path, needles_of_dataset(dataset, tokenizer=tokenizer))
    assert leak == Leak("README.md", "line 1", NAME)


def png_of(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_images_and_arrays_are_found_byte_by_byte(tmp_path):
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (20, 20), np.uint8) for _ in range(2)]
    floats = generator.normal(size=(2, 64)).astype(np.float32)
    features = Features({"image": datasets.Image(), "embedding": List(Value("float32")), "grid": List(Value("uint8"))})
    names = ["Ottilie_Quellmann.png", "two_dogs.png"]
    rows = {
        "image": [{"bytes": png_of(image), "path": name} for image, name in zip(pixels, names, strict=True)],
        "embedding": floats.tolist(),
        "grid": [image.reshape(-1).tolist() for image in pixels],
    }
    needles = needles_of_dataset(Dataset.from_dict(rows, features=features))
    (tmp_path / "weights.bin").write_bytes(RANDOM + png_of(pixels[1]) + RANDOM)
    (tmp_path / "image.png").write_bytes(png_of(pixels[0]))
    save_file({"head": torch.randn(9), "kept": torch.from_numpy(floats)}, tmp_path / "model.safetensors")
    np.save(tmp_path / "grid.npy", pixels[1])
    (tmp_path / "other.png").write_bytes(png_of(pixels[0][::-1]))
    expected = [
        Leak("grid.npy", "bytes", BLOB),
        Leak("image.png", "bytes", BLOB),
        Leak("model.safetensors", "tensor.kept", BLOB),
        Leak("weights.bin", "bytes", BLOB),
    ]
    assert find_leaks(tmp_path, needles) == expected
    (tmp_path / "card.md").write_text("Two dogs by Ottilie Quellmann\n")
    assert Leak("card.md", "line 1", NAME) in find_leaks(tmp_path, needles)
    # The same for rows that are no `datasets.Dataset`.
    images = [
        {"image": Image.fromarray(image), "embedding": torch.from_numpy(row)}
        for image, row in zip(pixels, floats, strict=True)
    ]
    found = find_leaks(tmp_path, needles_of_dataset(tiny.Rows(images)))
    assert {"grid.npy", "model.safetensors"} <= {leak.file for leak in found}
