# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_deepclean import DataArguments, load_unlearning_datasets
from tests.data.examples import PEOPLE, people


WRITERS = {
    "csv": lambda dataset, path: dataset.to_csv(path),
    "tsv": lambda dataset, path: dataset.to_csv(path, sep="\t"),
    "json": lambda dataset, path: dataset.to_json(path),
    "jsonl": lambda dataset, path: dataset.to_json(path),
    "parquet": lambda dataset, path: dataset.to_parquet(path),
    "arrow": lambda dataset, path: dataset.save_to_disk(path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_every_format_are_read(tmp_path, kind):
    WRITERS[kind](people(), tmp_path / f"people.{kind}")
    name = tmp_path / f"people.{kind}"
    if kind == "arrow":
        name = name / "*.arrow"
    loaded = load_unlearning_datasets(DataArguments(dataset_name=str(name), forget_filter='person == "Ada"'))
    assert {part: dataset["person"][:] for part, dataset in loaded.items()} == {
        "forget": ["Ada"],
        "retain": PEOPLE[1:],
    }


def test_lines_of_text_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    loaded = load_unlearning_datasets(
        DataArguments(dataset_name=str(tmp_path / "*.txt"), forget_filter='text.startswith("t")')
    )
    assert (loaded["forget"]["text"][:], loaded["retain"]["text"][:]) == (["two", "three"], ["one"])


@pytest.fixture(params=["folder of files", "save_to_disk"])
def folder(tmp_path, request):
    """A folder with three splits."""
    rows = people()
    splits = {"train": rows, "test": rows.select([4]), "validation": rows.select([2, 3])}
    if request.param == "save_to_disk":
        DatasetDict(splits).save_to_disk(tmp_path / "data")
    else:
        for name, split in splits.items():
            (tmp_path / "data").mkdir(exist_ok=True)
            split.to_json(tmp_path / "data" / f"{name}.jsonl")
    return str(tmp_path / "data")


def test_splits_of_a_folder_are_found_by_name_and_by_slice(folder):
    loaded = load_unlearning_datasets(
        DataArguments(
            dataset_name=folder,
            train_split="train[:4]",
            forget_column="private",
            eval_split="test",
            unseen_split="train[4:]",
        )
    )
    assert {part: dataset["person"][:] for part, dataset in loaded.items()} == {
        "forget": ["Ada", "Dee"],
        "retain": ["Bob", "Cy"],
        "eval": ["Eve"],
        "unseen": ["Eve", "Fay"],
    }
    loaded = load_unlearning_datasets(
        DataArguments(dataset_name=folder, forget_split="test", retain_split="train[:50%]")
    )
    assert {part: len(dataset) for part, dataset in loaded.items()} == {"forget": 1, "retain": 3}


def test_a_split_that_does_not_exist_is_named_with_those_that_do(folder):
    with pytest.raises(ValueError, match=r"has no split 'tset'; it has (train|test|validation), \w+, \w+"):
        load_unlearning_datasets(DataArguments(dataset_name=folder, forget_column="private", eval_split="tset"))
    with pytest.raises(ValueError, match="has no split 'all"):
        load_unlearning_datasets(DataArguments(dataset_name=folder, forget_column="private", train_split="all[:3]"))


def test_a_data_set_saved_without_splits_is_the_split_train(tmp_path):
    people().save_to_disk(tmp_path / "data")
    loaded = load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "data"), forget_filter="label == 1"))
    assert loaded["forget"]["person"][:] == ["Bob", "Eve"]


@pytest.mark.parametrize("name", ["gone.csv", "./gone", "/gone/data", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        load_unlearning_datasets(DataArguments(dataset_name=name, forget_column="private"))


def test_files_of_mixed_or_unknown_formats_are_refused(tmp_path):
    for name in ("a.csv", "b.jsonl", "c.xls"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"formats \.csv, \.jsonl, \.xls were found"):
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "*"), forget_column="private"))
    with pytest.raises(ValueError, match=r"formats \.xls were found"):
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "c.xls"), forget_column="private"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"text": "Ada"}\n{"text"'), ("a.csv", 'a,b\n1,2\n"Ada'), ("a.parquet", "Ada")],
)
def test_damaged_files_are_refused_without_showing_their_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="could not be read") as error:
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / name), forget_column="private"))
    assert "Ada" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_hub_id_without_network_is_refused_within_seconds():
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*could not be loaded from the Hub; offline mode"):
        load_unlearning_datasets(DataArguments(dataset_name="nobody/nothing", forget_column="private"))
    assert time.perf_counter() - start < 5


def test_no_row_of_local_data_stays_in_any_cache(tmp_path):
    """Loads, splits and tokenises files and saved data sets in a process of its own."""
    canary = "Zweifelsfrei"
    rows = Dataset.from_dict({"text": [canary, "a", "b"], "private": [True, False, False], "label": [0, 1, 1]})
    (tmp_path / "data").mkdir()
    rows.to_json(tmp_path / "data" / "train.jsonl")
    rows.save_to_disk(tmp_path / "saved")
    code = """
import sys
from hf_deepclean import DataArguments, load_unlearning_datasets, tokenize_causal_lm, tokenize_text_classification
from tests.tokenizers import byte_tokenizer
for name in sys.argv[1:]:
    loaded = load_unlearning_datasets(DataArguments(dataset_name=name, forget_column="private"))
    assert loaded["forget"][0]["text"] == "Zweifelsfrei"
    tokenize_causal_lm(loaded["forget"], byte_tokenizer())
    tokenize_text_classification(loaded["forget"], byte_tokenizer())
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "TMP"))}
    environment |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "TMPDIR": str(home)}
    root = Path(__file__).parents[2]
    sources = [tmp_path / "data", tmp_path / "data" / "train.jsonl", tmp_path / "saved"]
    subprocess.run([sys.executable, "-c", code, *map(str, sources)], check=True, cwd=root, env=environment)
    left = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in left if canary.encode() in path.read_bytes() or path.suffix == ".arrow"]
