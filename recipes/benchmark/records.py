# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Stores all results of a folder in one file, one per line, and restores them, to save hours of work."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs import Job
from task_data import DataSource

from hf_deepclean.runtime.files import replaced


# The only part of the source that is stored: the folder of the data does not affect the results.
FRACTION = "fraction"


def _job(record: dict[str, Any]) -> Job:
    return Job(record["kind"], record["task"], record["seed"], record["what"], record["candidate"])


def save_records(output_dir: Path, path: Path) -> int:
    """
    Writes all results of a folder into a file of JSON lines, ordered by name.

    Returns:
        `int`: Number of results.
    """
    found = [*sorted(output_dir.glob("tuning/*/*.json")), *sorted(output_dir.glob("results/*/*.json"))]
    records = [json.loads(file.read_text()) for file in found]
    for record in records:
        record["source"] = {FRACTION: record["source"][FRACTION]}
    with replaced(path) as file:
        file.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))
    return len(records)


def restore_records(path: Path, output_dir: Path, source: DataSource, redo: Collection[str] = ()) -> int:
    """
    Writes the results of a file of [`save_records`] into a folder. Results that the folder already has are kept.

    Args:
        path, output_dir (`Path`):
            The file and the folder.
        source ([`DataSource`]):
            The data of the folder.
        redo (`Collection[str]`):
            Methods whose results are left out.

    Returns:
        `int`: Number of results written.

    Raises:
        `ValueError`: If a result of the file was computed on another share of the data.
    """
    num_written = 0
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["source"][FRACTION] != source.fraction:
            raise ValueError(
                f"{path} holds results with --fraction {record['source'][FRACTION]}, but now it is {source.fraction}. "
                "Omit --records, or pass the same fraction."
            )
        job = _job(record)
        if record["what"] in redo or job.is_done(output_dir):
            continue
        job.write(record | {"source": asdict(source)}, output_dir)
        num_written += 1
    return num_written
