# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from tests.benchmarks.measure import WRONG, compare, measure
from tests.benchmarks.methods import PLAIN, REFERENCE
from tests.benchmarks.report import BEGIN, END, markdown, write_between_markers


@pytest.mark.slow
def test_the_benchmark_runs_on_the_mlp_and_finds_the_engine_exact():
    column = measure("MLP", [PLAIN, "hf_deepclean", REFERENCE], repeats=1, num_threads=1, debug=True)
    assert not [name for name, record in column["methods"].items() if "failure" in record]
    record = column["methods"]["hf_deepclean"]
    assert record["worst_error"] < WRONG and not record["missing"] and not record["wrong"]
    assert record["batch_seconds"] > 0 and record["peak_bytes"] > 0
    text = markdown({"settings": {}, "models": {"MLP": column}})
    assert all(name in text for name in ("MLP", REFERENCE))


def test_missing_and_wrong_parameters_are_told_apart_from_rounding_noise():
    expected = {"exact": torch.ones(2), "wrong": torch.ones(2), "missing": torch.ones(2), "noise": torch.zeros(2)}
    squares = {"exact": torch.ones(2), "wrong": torch.tensor([1.0, 1.5]), "noise": torch.full((2,), 1e-14)}
    result = compare(squares, expected)
    assert result == {"worst_error": 0.5, "wrong": ["wrong"], "missing": ["missing"]}


def test_the_page_keeps_its_text_and_a_second_run_replaces_the_first(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    write_between_markers(page, "first")
    write_between_markers(page, "second")
    assert page.read_text() == f"before\n{BEGIN}\n\nsecond\n\n{END}\nafter\n"
