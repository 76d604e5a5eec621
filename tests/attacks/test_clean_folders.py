# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The other side of the attacks on leaks: a folder without a trace of the forgotten rows is not stopped."""

import json
from shutil import copytree

import pytest
from datasets import Dataset

from hf_deepclean.publishing.card import static_text
from hf_deepclean.publishing.leaks import find_leaks, needles_of_dataset, needles_of_machine
from tests.attacks.clean_folders import CARDS, FOLDERS, FORGET_SETS, write_folder


def stops(tmp_path, folders, forget_sets):
    """Which clean folders are stopped, with the traces that are seen in them."""
    machine, needles = needles_of_machine(output_dir=tmp_path / "clean-model"), {}
    for name in forget_sets:
        needles[name] = needles_of_dataset(FORGET_SETS[name]()) | machine
    stopped = {}
    for folder in folders:
        write_folder(tmp_path / folder.replace(" ", "-"), folder)
        for name, of_rows in needles.items():
            leaks = find_leaks(tmp_path / folder.replace(" ", "-"), of_rows, ignore=[static_text()])
            stopped[f"{folder}, {name}"] = [str(leak) for leak in leaks]
    return stopped


def test_clean_folders_are_not_stopped(tmp_path, attack):
    stopped = stops(tmp_path, ["digits-class", "page of peft"], ["customers", "reviews", "one person"])
    assert attack("clean folders are not stopped", {name: bool(leaks) for name, leaks in stopped.items()}) == [], (
        stopped
    )


def test_names_of_settings_and_numbers_of_tokens_are_no_traces(tmp_path, attack):
    copytree(CARDS / "digits-class", tmp_path / "card")
    tokens = {"added_tokens": [{"id": 128_001, "content": "<a>"}], "model": {"vocab": {"the": 128_002}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    decoder = {"added_tokens_decoder": {"128001": {"content": "<a>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(decoder))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [128_001, 128_002]}))
    columns = {"code": ["FP16", "BF16", "INT8", "SHA256", "H100"], "customer_id": range(128_000, 128_005)}
    leaks = find_leaks(tmp_path, needles_of_dataset(Dataset.from_dict(columns)), ignore=[static_text()])
    assert attack("clean folders are not stopped", {"settings and tokens": bool(leaks)}) == [], leaks
    # The same number elsewhere is one.
    tokens["added_tokens"][0]["content"] = "128001"
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    assert find_leaks(tmp_path, needles_of_dataset(Dataset.from_dict(columns)), ignore=[static_text()])


@pytest.mark.slow
def test_at_most_one_of_a_hundred_clean_folders_is_stopped(tmp_path, attack):
    stopped = stops(tmp_path, FOLDERS, FORGET_SETS)
    assert len(stopped) == 100
    survivors = attack("clean folders are not stopped", {name: bool(leaks) for name, leaks in stopped.items()})
    assert len(survivors) <= 1, {name: stopped[name] for name in survivors}
