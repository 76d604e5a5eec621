# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from tests.launched.launch import launch_module
from tests.sharded_checks import CHECKS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What two processes on the CPU found, launched once."""
    path = tmp_path_factory.mktemp("sharded") / "outcomes.json"
    done = launch_module("tests.sharded_checks", 2, path, timeout=400)
    return json.loads(path.read_text()) if path.exists() else dict.fromkeys(CHECKS, done.stderr)


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes_agree_with_one(outcomes, check):
    outcome = outcomes.get(check, "not run, because an earlier check failed")
    assert outcome == "passed", outcome
