# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Measures time, memory and error of a Fisher pass, by hf_deepclean and by others, beside a plain training step.

```shell
python -m tests.benchmarks.fisher_pass --json fisher_pass.json
```

The README of this folder explains what is measured.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import METHODS, measure, reason
from tests.benchmarks.methods import OWN, PLAIN
from tests.benchmarks.models import WORKLOADS
from tests.benchmarks.report import markdown, write_between_markers


PACKAGES = ("torch", "transformers", "peft", "backpack-for-pytorch", "opacus", "nngeometry", "asdfghjkl")


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return {"processor": processor(), "num_threads": args.num_threads, "repeats": args.repeats} | installed


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory and error of a Fisher pass beside a plain step.")
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--engine_only", action="store_true", help="only the plain step, hf_deepclean and its reference"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables into this page, between its two markers")
    parser.add_argument("--debug", action="store_true", help="print the traceback of every method that fails")
    args = parser.parse_args()

    methods = [PLAIN, *(name for name in (OWN if args.engine_only else args.methods) if name != PLAIN)]
    result: dict[str, Any] = {"settings": settings(args), "models": {}}
    for name in args.models:
        print(name, file=sys.stderr, flush=True)
        try:
            result["models"][name] = measure(name, methods, args.repeats, args.num_threads, args.debug)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {reason(error)}", file=sys.stderr)
        if args.json:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    text = markdown(result)
    print(text)
    if args.markdown:
        write_between_markers(args.markdown, text)


if __name__ == "__main__":
    main()
