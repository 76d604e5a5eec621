# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The search of a folder: what it reports and what it refuses."""

import gzip
import os
import pickle
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from hf_deepclean.publishing.leaks import LeakError, Needles, check_for_leaks, find_leaks, needles_of_dataset
from hf_deepclean.publishing.leaks import file_search as search
from tests.publishing.leaks.rows import IDENTIFIER, IDS, NAME, RANDOM, TOKEN_IDS


def test_needles_join_and_show_only_how_many_they_are(needles):
    other = needles_of_dataset(Dataset.from_dict({"input_ids": [IDS]}))
    both = needles | other
    assert len(both.hashes) == len(set(needles.hashes) | set(other.hashes))
    assert re.fullmatch(r"Needles\([\d,]+ texts, 5 runs of token ids, 0 images, sounds or arrays\)", repr(both))
    assert repr(Needles()) == "Needles(0 texts, 0 runs of token ids, 0 images, sounds or arrays)"


def test_without_leaks_nothing_is_raised(tmp_path, needles):
    (tmp_path / "README.md").write_text("A model.\n")
    (tmp_path / "empty").write_text("")
    check_for_leaks(tmp_path, needles)
    check_for_leaks(tmp_path, Needles())


def test_a_long_list_of_leaks_is_cut_in_the_message_alone(tmp_path, needles):
    (tmp_path / "README.md").write_text("Ottilie Quellmann\n\n" * 50)
    with pytest.raises(
        LeakError, match=r"(?s)in 50 places .*line 9:.*line 11:.*and 30 more.*`ignore` of `find_leaks`"
    ) as caught:
        check_for_leaks(tmp_path, needles)
    assert len(caught.value.leaks) == 50
    assert pickle.loads(pickle.dumps(caught.value.leaks[0])) == caught.value.leaks[0]


def test_what_cannot_be_read_is_an_error(tmp_path, needles):
    with pytest.raises(NotADirectoryError, match="is no folder. Pass the folder"):
        find_leaks(tmp_path / "nothing", needles)
    (tmp_path / "link of Ottilie Quellmann.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"^\*\.txt cannot be read .*not searched"):
        find_leaks(tmp_path, needles)
    (tmp_path / "link of Ottilie Quellmann.txt").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe cannot be read .*no regular file"):
        find_leaks(tmp_path, needles)
    (tmp_path / "pipe").unlink()
    for name, content in (("a.gz", gzip.compress(RANDOM)[:-100]), ("b.zip", b"PK\x03\x04" + RANDOM)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be unpacked .*was not searched"):
            find_leaks(tmp_path, needles)
        (tmp_path / name).unlink()
    deep = b"nothing"
    for _ in range(12):
        deep = gzip.compress(deep)
    (tmp_path / "deep.gz").write_bytes(deep)
    with pytest.raises(ValueError, match="deep.gz cannot be unpacked .*packed too often"):
        find_leaks(tmp_path, needles)


def test_what_unpacks_to_too_much_is_refused(tmp_path, needles, monkeypatch):
    monkeypatch.setattr(search, "_MAX_UNPACKED_BYTES", 2**20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2**20 + 1)))
    with pytest.raises(ValueError, match="larger than a gigabyte"):
        find_leaks(tmp_path, needles)


def test_damaged_files_are_searched_as_bytes(tmp_path, needles):
    secret = b"swarmed behind the abandoned mill, and nobody came"
    contents = {
        "a.safetensors": (10**6).to_bytes(8, "little") + secret,
        "b.safetensors": (2).to_bytes(8, "little") + b"{}" + secret,
        "c.json": b"{" + secret,
        "d.png": b"\x89PNG\r\n\x1a\n" + secret,
        "e.pkl": b"\x80\x04\xff" + secret,
        "f.md": b"\xff\xfe" + secret,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert {leak.file for leak in find_leaks(tmp_path, needles)} == set(contents)


def test_large_weights_are_searched_without_false_alarms(tmp_path):
    """Sixteen megabytes against many needles of every kind."""
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefghij"), 5)) for _ in range(2000)]
    rows = {
        "text": [" ".join(words[index] for index in generator.integers(0, 2000, 20)) for _ in range(2000)],
        "input_ids": generator.integers(0, 30000, (2000, 20)).tolist(),
        "embedding": generator.normal(size=(2000, 32)).tolist(),
        "number": generator.integers(10**8, 10**9, 2000).tolist(),
    }
    needles = needles_of_dataset(Dataset.from_dict(rows))
    weights = torch.randn(2**21)
    tensors = {
        "float32": 0.02 * weights,
        "bfloat16": weights.bfloat16(),
        "int8": (30 * weights).to(torch.int8),
        "zero": torch.zeros(2**18),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert find_leaks(tmp_path, needles) == []


@pytest.mark.parametrize("text", ["a" * 10**6, "a-" * 10**5, "7" * 10**6, "A " * 10**5, "@" * 10**5, "1 " * 10**5])
def test_monotonous_texts_take_no_quadratic_time(tmp_path, text):
    needles = needles_of_dataset(Dataset.from_dict({"text": [text], "input_ids": [IDS]}))
    (tmp_path / "text.txt").write_text(text[: len(text) // 2])
    assert not {leak.kind for leak in find_leaks(tmp_path, needles)} & {NAME, IDENTIFIER, TOKEN_IDS}
