# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Launches of two processes: one of them fails, or both end well."""

import time

import pytest

from tests.launched.launch import launch
from tests.launched.test_interruption import contents, whole_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "clean"
    done = launch("faults.py", 2, folder)
    assert done.returncode == 0, done.stderr
    return contents(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["retain Fisher:error", "repair:terminate", "repair:kill", "forget Fisher:terminate"]
)
def test_when_one_process_fails_all_end_and_the_run_goes_on_in_the_same_bits(tmp_path, whole, fault):
    folder = tmp_path / "clean"
    start = time.monotonic()
    failed = launch("faults.py", 2, folder, fault)
    assert failed.returncode != 0
    assert time.monotonic() - start < 60
    assert ("a failure of one process" in failed.stderr) == fault.endswith("error")
    assert not (folder / "report.json").exists() and not (folder / "model.safetensors").exists()
    whole_files(folder)
    resumed = launch("faults.py", 2, folder)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(folder) == whole


@pytest.mark.slow
def test_a_launch_that_has_succeeded_ends_so():
    # Without the wait at the end about one launch in two is aborted.
    for _ in range(10):
        done = launch("endings.py", 2)
        assert done.returncode == 0, done.stderr
