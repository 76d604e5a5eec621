# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The other side of the attacks on leaks: a folder without a trace of the forgotten rows is not stopped."""

import pytest

from hf_deepclean.publishing.card import static_text
from hf_deepclean.publishing.leaks import find_leaks, needles_of_dataset, needles_of_machine
from tests.attacks.clean_folders import FOLDERS, FORGET_SETS, write_folder


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


@pytest.mark.slow
def test_at_most_one_of_a_hundred_clean_folders_is_stopped(tmp_path, attack):
    stopped = stops(tmp_path, FOLDERS, FORGET_SETS)
    assert len(stopped) == 100
    survivors = attack("clean folders are not stopped", {name: bool(leaks) for name, leaks in stopped.items()})
    assert len(survivors) <= 1, {name: stopped[name] for name in survivors}
