# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""All results of a folder in one file, one a line, and back: hours of work that need not be done again."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs import Job
from tasks import DataSource

from hf_deepclean.runtime.files import replaced


# Where data lie on a machine is no property of the results.
FRACTION = "fraction"


def _job(record: dict[str, Any]) -> Job:
    return Job(record["kind"], record["task"], record["seed"], record["what"], record["candidate"])


def save_records(output_dir: Path, path: Path) -> int:
    """
    Writes all results of a folder into a file of JSON lines, ordered by name.

    Returns:
        `int`: How many.
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
    Writes the results in a file of [`save_records`] into a folder; those that the folder has stay as they are.

    Args:
        path, output_dir (`Path`):
            The file and the folder.
        source ([`DataSource`]):
            The data of the folder.
        redo (`Collection[str]`):
            Methods whose results are left out.

    Returns:
        `int`: How many were written.

    Raises:
        `ValueError`: If results of the file are of another share of the data.
    """
    num_written = 0
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["source"][FRACTION] != source.fraction:
            raise ValueError(
                f"{path} holds results with --fraction {record['source'][FRACTION]}, and now it is {source.fraction}. "
                "Leave --records out, or choose the same fraction."
            )
        job = _job(record)
        if record["what"] in redo or job.is_done(output_dir):
            continue
        job.write(record | {"source": asdict(source)}, output_dir)
        num_written += 1
    return num_written
