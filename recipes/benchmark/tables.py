# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo,plots]"]
# ///
"""
Summarizes the results of `run.py` in tables, `results.json` and a plot, and stores all results in one file.

```shell
python recipes/benchmark/tables.py --output_dir outputs/benchmark --markdown recipes/benchmark/README.md \
    --records recipes/benchmark/records.jsonl
```
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t


FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from methods import (  # noqa: E402
    BASELINES,
    METHODS,
    ORIGINAL,
    OURS,
    REFERENCE,
    REFERENCE2,
    REFERENCE_POINTS,
    applies,
)
from records import save_records  # noqa: E402
from tasks import TASKS  # noqa: E402


BEGIN, END = "<!-- begin: written by tables.py -->", "<!-- end: written by tables.py -->"
PLOT_NAME = "results.png"
# The gaps whose mean is the average gap.
GAPS = ("forget", "retain", "eval", "auc")

Results = dict[str, dict[str, dict[int, dict[str, Any]]]]


def read_results(output_dir: Path) -> Results:
    """Reads all results, by task, method and seed."""
    results: Results = {}
    for path in sorted((output_dir / "results").glob("*/*.json")):
        record = json.loads(path.read_text())
        results.setdefault(record["task"], {}).setdefault(record["what"], {})[record["seed"]] = record
    return {name: results[name] for name in TASKS if name in results}


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The mean, and half the width of its 95 % interval by the t distribution, which is infinite for one value."""
    if not values:
        return None
    mean, number = float(np.mean(values)), len(values)
    if number == 1:
        return mean, math.inf
    return mean, float(t.ppf(0.975, number - 1) * np.std(values, ddof=1) / math.sqrt(number))


def gaps(figures: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Figures minus those of the reference, in points. `average` is the mean of their absolute values."""
    found = {
        split: 100 * (figures["accuracy"][split] - reference["accuracy"][split])
        for split in ("forget", "retain", "eval")
    }
    found["auc"] = 100 * (figures["auc"] - reference["auc"])
    return found | {"average": sum(abs(found[name]) for name in GAPS) / len(GAPS)}


def describe(record: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """The figures of a method on a seed, as in the tables."""
    row = gaps(record["figures"], reference["figures"])
    if record["what"] in METHODS:
        # Processor time, because parallel jobs slow each other down, and relative to the retraining on the same
        # machine, because not all methods ran on one machine.
        row["cost"] = 100 * record["processor_seconds"] / record["retraining"]["processor_seconds"]
        row["peak_megabytes"] = record["peak_bytes"] / 1e6
    elif record["what"] in (REFERENCE, REFERENCE2):
        row["cost"] = 100.0
    else:
        row["cost"] = 0.0
    divergence = record["figures"].get("jensen_shannon")
    if divergence is not None:
        row["jensen_shannon"] = divergence["forget"]
    if "mean_loss" in record["figures"]:
        row["loss"] = record["figures"]["mean_loss"]["forget"] - reference["figures"]["mean_loss"]["forget"]
    row["tpr"] = 100 * record["figures"]["tpr_at_1_percent_fpr"]
    if "relearning" not in record:
        return row
    # Relative to the effect of the same training on the reference.
    row["relearning"] = 100 * (record["relearning"]["movement"] - reference["relearning"]["movement"])
    row["four_bits"] = 100 * (record["four_bits"]["forget"] - record["figures"]["accuracy"]["forget"])
    return row


def describe_seeds(methods: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of all methods and seeds, where both the method and the reference have figures."""
    references = {seed: record for seed, record in methods.get(REFERENCE, {}).items() if "figures" in record}
    return {
        method: {
            str(seed): describe(record, references[seed])
            for seed, record in found.items()
            if "figures" in record and seed in references
        }
        for method, found in methods.items()
    }


def summarize(results: Results) -> dict[str, dict[str, Any]]:
    """The mean and half an interval of every figure over the seeds, or the reason why there are none."""
    summary: dict[str, dict[str, Any]] = {}
    for task, methods in results.items():
        references = {seed: record for seed, record in methods.get(REFERENCE, {}).items() if "figures" in record}
        rows = summary.setdefault(task, {})
        for method in (*REFERENCE_POINTS, *METHODS):
            if not applies(method, TASKS[task]):
                if method in BASELINES:
                    rows[method] = {"note": "does not apply"}
                continue
            records = [record for seed, record in methods.get(method, {}).items() if seed in references]
            described = [describe(record, references[record["seed"]]) for record in records if "figures" in record]
            num_failed = len(records) - len(described)
            if described:
                names = dict.fromkeys(name for row in described for name in row)
                rows[method] = {
                    "num_seeds": len(described),
                    "num_failed": num_failed,
                    **{name: mean_interval([row[name] for row in described if name in row]) for name in names},
                }
            elif num_failed:
                rows[method] = {"note": f"fails: {records[0]['failure'].splitlines()[0]}"}
    return summary


def wins(summary: dict[str, dict[str, Any]]) -> list[str]:
    """The tasks on which `FisherUnlearner` has a smaller average gap than every baseline that costs no more."""
    won = []
    for task, rows in summary.items():
        ours = rows.get(OURS, {})
        baselines = [rows[name] for name in BASELINES if "average" in rows.get(name, {})]
        if "average" not in ours or not baselines:
            continue
        affordable = [row for row in baselines if row["cost"][0] <= ours["cost"][0]]
        if all(ours["average"][0] < row["average"][0] for row in affordable):
            won.append(task)
    return won


def ranks(rows: dict[str, Any]) -> dict[str, int]:
    """The rank of every method by its average gap, starting at 1."""
    known = sorted((rows[name]["average"][0], name) for name in METHODS if "average" in rows.get(name, {}))
    return {name: place for place, (_, name) in enumerate(known, 1)}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(pair: tuple[float, float] | None, digits: int = 1, sign: bool = False) -> str:
    """Formats mean ± half an interval, or a single value."""
    if pair is None:
        return ""
    mean, half = pair
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return text if math.isinf(half) else f"{text} ± {half:.{digits}f}"


def task_table(rows: dict[str, Any]) -> str:
    columns = {
        "forget": (1, True),
        "retain": (1, True),
        "eval": (1, True),
        "auc": (1, True),
        "loss": (3, True),
        "average": (2, False),
        "cost": (1, False),
        "peak_megabytes": (0, False),
        "jensen_shannon": (3, False),
        "relearning": (1, True),
        "four_bits": (1, True),
    }
    header = [
        "method",
        "forget",
        "retain",
        "eval",
        "AUC x 100",
        "forget loss",
        "average gap",
        "cost (%)",
        "memory (MB)",
    ]
    header += ["JS", "relearning", "4 bits"]
    lines = []
    for method, row in rows.items():
        if "note" in row:
            lines.append([method, row["note"], *[""] * (len(columns) - 1)])
            continue
        failed = f" ({row['num_failed']} failed)" if row["num_failed"] else ""
        cells = [cell(row.get(name), digits, sign) for name, (digits, sign) in columns.items()]
        lines.append([method + failed, *cells])
    return table(header, lines)


def summary_table(summary: dict[str, dict[str, Any]]) -> str:
    """The average gap and rank of every method on every task, and its mean cost."""
    places = {task: ranks(rows) for task, rows in summary.items()}
    lines = []
    for method in (ORIGINAL, REFERENCE2, *METHODS):
        if not any(method in rows for rows in summary.values()):
            continue
        line, found, costs, own_ranks = [method], [], [], []
        for task, rows in summary.items():
            row = rows.get(method, {})
            if "average" not in row:
                line.append("does not apply" if row.get("note") == "does not apply" else "fails" if row else "")
                continue
            found.append(row["average"][0])
            costs.append(row["cost"][0])
            place = places[task].get(method)
            own_ranks += [] if place is None else [place]
            line.append(f"{found[-1]:.2f}" + ("" if place is None else f" ({place})"))
        means = [f"{np.mean(found):.2f}", f"{np.mean(costs):.1f}"] if found else ["", ""]
        lines.append([*line, *means, f"{np.mean(own_ranks):.1f}" if own_ranks else ""])
    return table(["method", *summary, "mean", "mean cost (%)", "mean rank"], lines)


def markdown(results: Results, summary: dict[str, dict[str, Any]]) -> str:
    won = wins(summary)
    seeds = sorted({seed for methods in results.values() for found in methods.values() for seed in found})
    compared = sum(
        "average" in rows.get(OURS, {}) and any("average" in rows.get(name, {}) for name in BASELINES)
        for rows in summary.values()
    )
    parts = [
        f"Seeds: {', '.join(map(str, seeds))}. Average gaps to the reference in points, with ranks among the methods:",
        summary_table(summary),
        f"On {len(won)} of {compared} tasks {OURS} has a smaller average gap than every baseline of equal or lower "
        + (f"cost: {', '.join(won)}." if won else "cost."),
    ]
    for task, rows in summary.items():
        parts += [f"### {task}", *_accuracies(results[task]), task_table(rows)]
    return "\n\n".join(parts)


def _accuracies(methods: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The accuracies and the AUC of the original and of the reference, in one sentence each."""
    sentences = []
    for name in REFERENCE_POINTS:
        records = [record for record in methods.get(name, {}).values() if "figures" in record]
        if records:
            shares = {
                split: 100 * np.mean([record["figures"]["accuracy"][split] for record in records])
                for split in ("forget", "retain", "unseen", "eval")
            }
            auc = np.mean([record["figures"]["auc"] for record in records])
            listed = ", ".join(f"{split} {share:.1f} %" for split, share in shares.items())
            sentences.append(f"{name}: {listed}, AUC {auc:.3f}.")
    return [" ".join(sentences)] if sentences else []


def save_plot(summary: dict[str, dict[str, Any]], path: Path) -> None:
    """Plots the forgetting gap (forget accuracy and AUC) against the utility gap (retain and eval accuracy)."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    num_columns = min(5, len(summary))
    num_lines = math.ceil(len(summary) / num_columns)
    figure = Figure(figsize=(max(9.0, 3.2 * num_columns), 3.2 * num_lines + 1.2), layout="constrained", dpi=150)
    panels = figure.subplots(num_lines, num_columns, squeeze=False).ravel()
    names = (ORIGINAL, *METHODS)
    handles: dict[str, Any] = {}
    for axes, (task, rows) in zip(panels, summary.items(), strict=False):
        for number, name in enumerate(names):
            row = rows.get(name, {})
            if "average" not in row:
                continue
            utility, forgetting = (
                np.mean([abs(row[part][0]) for part in pair]) for pair in (("retain", "eval"), ("forget", "auc"))
            )
            style = {"marker": "*", "s": 160, "zorder": 3} if name == OURS else {"marker": "o", "s": 30}
            color = "black" if name == OURS else colormaps["tab20"](number)
            handles[name] = axes.scatter(utility, forgetting, color=[color], label=name, **style)
        axes.set_title(task, fontsize=9)
        # On a linear axis a destroyed model would hide the differences between the others.
        axes.set_xscale("symlog", linthresh=1)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("utility gap (points)", fontsize=8)
        axes.set_ylabel("forgetting gap (points)", fontsize=8)
    for axes in panels[len(summary) :]:
        axes.set_visible(False)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=7)
    # By default matplotlib writes its version into the file.
    figure.savefig(path, metadata={"Software": None})


def write_between_markers(page: Path, text: str) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"{page} has no place for the tables. Add a line {BEGIN!r}, and a line {END!r} after it.")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main(args: argparse.Namespace) -> None:
    results = read_results(args.output_dir)
    if not results:
        raise SystemExit(
            f"{args.output_dir} holds no results. First run `python recipes/benchmark/run.py` with this --output_dir."
        )
    summary = summarize(results)
    text = markdown(results, summary)
    by_seed = {task: describe_seeds(methods) for task, methods in results.items()}
    known = {"wins": wins(summary), "summary": summary, "seeds": by_seed}
    # JSON has no infinity.
    known = json.loads(json.dumps(known).replace("Infinity", "null"))
    (args.output_dir / "results.json").write_text(json.dumps(known, indent=2) + "\n")
    save_plot(summary, args.output_dir / PLOT_NAME)
    print(text)
    if args.markdown:
        image = f"![Forgetting gap against utility gap, by task and method]({PLOT_NAME})"
        write_between_markers(args.markdown, f"{image}\n\n{text}")
        (args.markdown.parent / PLOT_NAME).write_bytes((args.output_dir / PLOT_NAME).read_bytes())
    if args.records:
        save_records(args.output_dir, args.records)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Summarize the results of the benchmark.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmark"), help="Folder of the results.")
    parser.add_argument("--markdown", type=Path, help="Page to write tables and plot into.")
    parser.add_argument("--records", type=Path, help="File to write all results to, one per line.")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
