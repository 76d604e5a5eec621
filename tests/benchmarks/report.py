# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the measurements as Markdown tables."""

from pathlib import Path
from typing import Any

from tests.benchmarks.methods import ENGINE, PLAIN


BEGIN, END = "<!-- begin: written by fisher_pass.py -->", "<!-- end: written by fisher_pass.py -->"
Columns = dict[str, dict[str, Any]]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def time_ratio(column: dict[str, Any], method: str) -> float:
    return column["methods"][method]["batch_seconds"] / column["methods"][PLAIN]["batch_seconds"]


def memory_ratio(column: dict[str, Any], method: str) -> float:
    """Memory without the sums, which every method but the plain step returns, as a multiple of the plain step's."""
    extra = column["methods"][method]["peak_bytes"] - column["accumulator_bytes"]
    return max(extra, 0) / column["methods"][PLAIN]["peak_bytes"]


def workload_table(columns: Columns) -> str:
    rows = []
    for name, column in columns.items():
        plain = column["methods"][PLAIN]
        size, *_ = column["batch"]["labels"]
        row = [name, f"{column['weights'] / 1e6:.2f} M", str(size), f"{1000 * plain['batch_seconds']:.1f} ms"]
        rows.append([*row, f"{plain['peak_bytes'] / 2**20:.0f} MB", f"{column['accumulator_bytes'] / 2**20:.0f} MB"])
    return table(["model", "weights", "batch", "plain step", "its memory", "one sum per weight"], rows)


def engine_table(columns: Columns) -> str:
    rows = []
    for name, column in columns.items():
        for method, record in column["methods"].items():
            if method not in ENGINE:
                continue
            if "failure" in record:
                rows.append([name, method, record["failure"], "", "", ""])
                continue
            batches = 1000 / column["batch"]["labels"][0]
            set_up = record["set_up_seconds"] / (record["set_up_seconds"] + batches * record["batch_seconds"])
            error = f"{record['worst_error']:.0e}" if record.get("worst_error") is not None else ""
            ratios = [f"{time_ratio(column, method):.2f}x", f"{memory_ratio(column, method):.2f}x"]
            rows.append([name, method, *ratios, f"{100 * max(set_up, 0):.1f} %", error])
    return table(["model", "variant", "time", "memory", "set-up", "worst error"], rows)


def comparison_table(columns: Columns) -> str:
    """A row per method and a column per model. Notes below the table say why methods failed."""
    notes: dict[str, int] = {}

    def cell(column: dict[str, Any], method: str) -> str:
        record = column["methods"][method]
        if "failure" in record:
            return f"fails ({notes.setdefault(record['failure'], len(notes) + 1)})"
        flaws = [f"{len(record.get(kind, ()))} {kind}" for kind in ("missing", "wrong") if record.get(kind)]
        return ", ".join([f"{time_ratio(column, method):.2f}x / {memory_ratio(column, method):.1f}x", *flaws])

    methods = [method for method in next(iter(columns.values()))["methods"] if method != PLAIN]
    rows = [[method, *(cell(column, method) for column in columns.values())] for method in methods]
    footnotes = [f"({number}) {failure}" for failure, number in notes.items()]
    return "\n\n".join([table(["method", *columns], rows), *footnotes])


def markdown(result: dict[str, Any]) -> str:
    settings = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in result["settings"].items())
    columns = result["models"]
    return "\n\n".join([settings, workload_table(columns), engine_table(columns), comparison_table(columns)])


def write_between_markers(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    before, _, rest = page.read_text().partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise ValueError(f"{page} has no place for the tables: it needs a line {begin!r} and after it a line {end!r}.")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
