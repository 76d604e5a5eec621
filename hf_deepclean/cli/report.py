# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-deepclean report`: shows the report of a run, or a summary of several."""

import argparse
import json
from pathlib import Path
from typing import Any


DESCRIPTION = "Show the report of a run, or a summary of several runs"


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("report", help=DESCRIPTION, description=f"{DESCRIPTION}.")
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="Output directory of a run, or its report.json; several runs are summarized.",
    )
    parser.add_argument("--json", action="store_true", help="Print the whole report as JSON.")
    parser.set_defaults(run=run_report)


def run_report(parsed: argparse.Namespace) -> None:
    """Prints the report or the summary."""
    from ..report.report import load_report
    from ..report.summary import summarize_reports

    reports = [load_report(path) for path in parsed.paths]
    if parsed.json:
        records = [report.to_dict() for report in reports]
        print(json.dumps(records[0] if len(records) == 1 else records, indent=2))
    else:
        print(reports[0] if len(reports) == 1 else summarize_reports(reports))
