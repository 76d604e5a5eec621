# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Needles of data sets and of the machine."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, IterableDataset
from transformers.utils import logging

from hf_deepclean.data.digests import dataset_fingerprint
from hf_deepclean.publishing.leaks import find_leaks, needles_of_dataset, needles_of_machine
from tests import tiny
from tests.publishing.leaks.rows import FINGERPRINT, IDENTIFIER, NAME, letters


def test_all_rows_of_a_stream_are_read(tmp_path):
    rows = [{"text": f"row {number} of the stream"} for number in range(2500)] + [{"text": "Ada Quellmann was there"}]
    (tmp_path / "README.md").write_text("Ada Quellmann")
    for stream in (IterableDataset.from_generator(lambda: iter(rows)), Dataset.from_list(rows).to_iterable_dataset()):
        assert [leak.kind for leak in find_leaks(tmp_path, needles_of_dataset(stream))] == [NAME]


def test_cells_are_taken_apart(tmp_path):
    rows = [
        {
            "messages": [{"role": "user", "content": "I am Ada Quellmann"}, {"role": "assistant", "content": "Hello"}],
            "tokens": ["The", "bees", "of", "Bob", "Rosenfeld", "swarmed"],
            "nested": {"deep": [["write to c@d.example"]], "none": None, "flag": True},
            "number": 73519842.0,
        }
    ]
    secrets = {"Ada Quellmann": NAME, "Bob Rosenfeld": NAME, "c@d.example": IDENTIFIER, "73519842": IDENTIFIER}
    for dataset in (Dataset.from_list(rows), tiny.Rows(rows)):
        needles = needles_of_dataset(dataset)
        for secret, kind in secrets.items():
            (tmp_path / "README.md").write_text(f"{secret}\n")
            assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [kind]
        (tmp_path / "README.md").write_text("user assistant Hello content swarmed true\n")
        assert not find_leaks(tmp_path, needles)


PERSON = "Ottilie Quellmann"


@dataclass
class Example:
    note: str
    label: int = 0


@pytest.mark.parametrize(
    "row",
    [
        Example(PERSON),
        {"note": PERSON.encode()},
        {"note": {PERSON}},
        {"note": Path("/data", PERSON)},
        (PERSON, 0),
        PERSON,
    ],
    ids=["object", "bytes", "set", "path", "tuple", "text"],
)
def test_rows_of_any_type_are_searched(tmp_path, row):
    (tmp_path / "README.md").write_text(f"Thanks to {PERSON}.")
    assert find_leaks(tmp_path, needles_of_dataset([row, row]))


def test_rows_may_lack_columns(tmp_path):
    (tmp_path / "README.md").write_text("Thanks to Wendelin Habermehl.")
    rows = [{"first_name": "Ottilie"}, {"first_name": "Wendelin", "last_name": "Habermehl"}, {"last_name": "Other"}]
    assert find_leaks(tmp_path, needles_of_dataset(rows))


def test_fingerprints_splits_copies_and_given_names_of_a_data_set_are_found(tmp_path):
    (tmp_path / "rows of ottilie.csv").write_text("text\nnothing\n")
    loaded = datasets.load_dataset(
        "csv", data_files={"leavers.of.may": str(tmp_path / "rows of ottilie.csv")}, cache_dir=str(tmp_path / "cache")
    )["leavers.of.may"]
    needles = needles_of_dataset(loaded, names=["Zoe", "people.csv", "rows of ottilie.csv"])
    folder = tmp_path / "published"
    folder.mkdir()
    secrets = {
        loaded._fingerprint: FINGERPRINT,
        dataset_fingerprint(loaded): FINGERPRINT,
        "leavers.of.may": "the name of a split of the data to forget",
        loaded.cache_files[0]["filename"]: "a local path",
        "Zoe": NAME,
        "people.csv": NAME,
        "rows of ottilie.csv": NAME,
    }
    for secret, kind in secrets.items():
        (folder / "report.json").write_text(json.dumps({"value": secret}))
        assert kind in {leak.kind for leak in find_leaks(folder, needles)}


MACHINE = {
    "/home/quell/models/base": "a local path",
    "file:///home/quell": "a local path",
    "C:\\Users\\x and /srv/bees/work/here": "a local path",
    "quell@mail.example": "a user name",
    "trained by Quell": "a user name",
    "on hive-17": "a host name",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345": "an access token",
    "hf_second00token11of22another33": "an access token",
    "forget-ottilie-2024": "the name of the run or of its folder",
    "leaver of may": "the name of the run or of its folder",
    "no path: home quell, and https://x.example/home/other": None,
    "a clean-model in outputs, by root at localhost": None,
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", "/home/quell")
    monkeypatch.setenv("LOGNAME", "quell")
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345")
    monkeypatch.setattr(socket, "gethostname", lambda: "hive-17.bees.example")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/srv/bees/work"))
    return needles_of_machine(
        output_dir="outputs/forget-ottilie-2024/clean-model",
        run_name="leaver-of-may",
        hub_token="hf_second00token11of22another33",
    )


@pytest.mark.parametrize("text", MACHINE)
def test_traces_of_the_machine_are_found(machine, tmp_path, text):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_name_or_path": text}))
    kinds = {leak.kind for leak in find_leaks(folder, machine)}
    assert MACHINE[text] in kinds if MACHINE[text] else kinds <= {"a user name"}
    assert letters(text) not in letters(repr(machine))


def test_common_and_short_names_of_users_and_hosts_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "README.md").write_text("The root of localhost, and Ada on it: https://x.example/root/model\n")
    for user in ("root", "ada"):
        monkeypatch.setenv("LOGNAME", user)
        assert not find_leaks(tmp_path, needles_of_machine())
    (tmp_path / "README.md").write_text("ada@x.example\n'/home/ada'\n/root/models\n")
    found = {(leak.field, leak.kind) for leak in find_leaks(tmp_path, needles_of_machine())}
    assert found == {("line 1", "a user name"), ("line 2", "a user name"), ("line 3", "a local path")}


def test_without_a_home_or_a_working_directory_the_rest_is_found_and_that_is_said(monkeypatch, tmp_path, caplog):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    logging.warning_once.cache_clear()
    for output_dir in ("clean-ward-seven", tmp_path / "clean-ward-seven"):
        needles = needles_of_machine(output_dir=output_dir)
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / "a.txt").write_text("see clean-ward-seven")
        assert find_leaks(tmp_path / "text", needles)
    assert "The home folder is not known" in caplog.text and "The working directory is not known" in caplog.text
