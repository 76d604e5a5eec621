# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Measures whole unlearning runs on one thread of a CPU and compares them with the estimates of `hf-deepclean estimate`.

```shell
python -m tests.benchmarks.scale --markdown recipes/scale.md
```

The page explains what is measured. Every command on the page also runs again, and its output is written below it.
"""

import argparse
import contextlib
import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from hf_deepclean.cli.commands import main as hf_deepclean
from hf_deepclean.planning.device import Device
from hf_deepclean.planning.formulas import estimate_run
from hf_deepclean.planning.job import Setting
from hf_deepclean.planning.model_size import ModelSize
from hf_deepclean.planning.run_estimate import RunEstimate
from tests.benchmarks.fisher_pass import processor
from tests.benchmarks.report import table, write_between_markers
from tests.benchmarks.scale_runs import RUNS, measure_run


ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- begin: written by scale.py -->", "<!-- end: written by scale.py -->"
# A command on the page, and the output below it.
EXAMPLE = re.compile(r"```shell\nhf-deepclean (estimate .*?)```\n\n```text\n(.*?)```", re.S)


def predict(name: str, flops_per_second: float) -> RunEstimate:
    """Estimates a run from the sizes of its model, its job and the speed of matrix products."""
    run = RUNS[name]
    return estimate_run(ModelSize.of_model(run.build()), run.job, Setting(), Device.cpu(flops_per_second))


def compare(name: str, measured: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns predicted and measured values, by phase and for the whole run."""
    seconds, num_bytes = dict(measured["seconds"]), dict(measured["bytes"])
    predicted = predict(name, seconds.pop("flops_per_second"))
    pairs = {
        phase.name: {
            "seconds": (phase.seconds, seconds[phase.name]),
            "megabytes": (phase.peak / 1e6, num_bytes[phase.name] / 1e6),
        }
        for phase in predicted.phases
    }
    return pairs | {
        "run": {
            "seconds": (predicted.seconds, seconds["total"]),
            "megabytes": (predicted.peak / 1e6, max(num_bytes.values()) / 1e6),
        }
    }


def cells(pair: tuple[float, float], digits: int) -> list[str]:
    predicted, measured = pair
    return [f"{predicted:.{digits}f}", f"{measured:.{digits}f}", f"{predicted / measured:.2f}"]


def markdown(results: dict[str, dict[str, Any]]) -> str:
    runs, phases = [], []
    for name, measured in results.items():
        pairs = compare(name, measured)
        size = ModelSize.of_model(RUNS[name].build())
        role = "calibration" if RUNS[name].calibration else "held out"
        rate = f"{measured['seconds']['flops_per_second'] / 1e9:.0f}"
        weights = f"{size.num_parameters / 1e6:.1f} M" + (
            "" if size.scope == size.num_parameters else f" ({size.scope / 1e6:.1f} M)"
        )
        runs.append(
            [name, weights, role, rate, *cells(pairs["run"]["seconds"], 1), *cells(pairs["run"]["megabytes"], 0)]
        )
        phases += [
            [name, phase, *cells(pair["seconds"], 2), *cells(pair["megabytes"], 0)]
            for phase, pair in pairs.items()
            if phase != "run"
        ]
    pairs_head = ["s predicted", "measured", "ratio", "MB predicted", "measured", "ratio"]
    return "\n\n".join(
        [
            f"Processor: {processor()}, one thread.",
            table(["run", "weights (in scope)", "role", "GFLOP/s", *pairs_head], runs),
            "<details><summary>Phase by phase</summary>",
            table(["run", "phase", *pairs_head], phases),
            "</details>",
        ]
    )


def output_of(command: str) -> str:
    """Runs a command of the page, given without the name of the program, and returns its output."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # The paths on the page are relative to the root of the repository; this may run anywhere.
        words = shlex.split(command.replace("\\\n", " "))
        arguments = [str(ROOT / word) if word.startswith("recipes/") else word for word in words]
        if hf_deepclean(arguments) != 0:
            raise ValueError(f"`hf-deepclean {command}` fails.")
    return printed.getvalue()


def examples(page: Path) -> list[tuple[str, str]]:
    """The commands on the page, each with the output below it."""
    return EXAMPLE.findall(page.read_text())


def write_outputs(page: Path) -> None:
    def rerun(match: re.Match[str]) -> str:
        return f"```shell\nhf-deepclean {match[1]}```\n\n```text\n{output_of(match[1])}```"

    page.write_text(EXAMPLE.sub(rerun, page.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures runs and compares them with their estimates.")
    parser.add_argument("--models", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--json", type=Path, help="write the measurements to this file; skip runs that are in it")
    parser.add_argument("--markdown", type=Path, help="write the tables and the outputs of commands into this page")
    args = parser.parse_args()

    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.models:
        if name not in results:
            print(name, file=sys.stderr, flush=True)
            results[name] = measure_run(name)
            if args.json:
                args.json.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))
    if args.markdown:
        write_outputs(args.markdown)
        write_between_markers(args.markdown, markdown(results), BEGIN, END)


if __name__ == "__main__":
    main()
