# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Counts the attempts of every attack and those that survive, and shows them as a table."""

import json
from collections.abc import Mapping

import pytest


@pytest.fixture
def attack(record_property):
    """
    A function that records the attempts of an attack: `attack(promise, {attempt: whether it got through})`. It returns
    the attempts that got through, of which a test must say how many may be.
    """

    def record(promise: str, attempts: Mapping[str, bool]) -> list[str]:
        survivors = [name for name, got_through in attempts.items() if got_through]
        record_property("attack", json.dumps([promise, len(attempts), survivors]))
        return survivors

    return record


def pytest_terminal_summary(terminalreporter):
    found: dict[str, list] = {}
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "attack":
                promise, number, survivors = json.loads(value)
                row = found.setdefault(promise, [0, []])
                row[0] += number
                row[1] += survivors
    if not found:
        return
    terminalreporter.section("attempts and survivors")
    width = max(map(len, found))
    for promise, (number, survivors) in sorted(found.items()):
        shown = ", ".join(survivors[:5]) + (", ..." if len(survivors) > 5 else "")
        terminalreporter.write_line(f"{promise:<{width}}  {number:>6}  {len(survivors):>4}  {shown}")
