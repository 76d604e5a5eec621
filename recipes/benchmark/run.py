# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo,peft,pretrained]"]
# ///
"""
Runs `FisherUnlearner` and all baselines on all tasks over several seeds, with a retrained reference for every seed:

```shell
python recipes/benchmark/run.py --output_dir outputs/benchmark
python recipes/benchmark/tables.py --output_dir outputs/benchmark --markdown recipes/benchmark/README.md
```

If it is started again, it continues where it stopped. The results behind the page can be reused, so that only a method
that changed has to run again:

```shell
python recipes/benchmark/run.py --output_dir outputs/benchmark --records recipes/benchmark/records.jsonl \
    --redo FisherUnlearner
```

A trial of a few minutes on small data:

```shell
python recipes/benchmark/run.py --output_dir outputs/benchmark-trial --tasks digits-random --seeds 0 --fraction 0.2
```
"""

import os


# Set before torch is imported, which reads them.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import argparse  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Collection  # noqa: E402
from dataclasses import asdict  # noqa: E402
from multiprocessing.connection import wait  # noqa: E402
from multiprocessing.process import BaseProcess  # noqa: E402
from pathlib import Path  # noqa: E402


FOLDER = Path(__file__).resolve().parent
# The recipes and the benchmark are scripts that import one another by name.
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from fashion_mnist import FASHION_MNIST_DIR  # noqa: E402
from jobs import Job, all_jobs, do_in_process, wanted  # noqa: E402
from methods import METHODS  # noqa: E402
from records import restore_records  # noqa: E402
from task_data import DataSource  # noqa: E402
from tasks import TASKS  # noqa: E402


class Progress:
    """
    Counts finished jobs and estimates the remaining time, from the finished jobs of the same kind and task.

    Args:
        jobs (`Collection[Job]`):
            The jobs to do.
        num_processes (`int`):
            Number of jobs at a time.
    """

    def __init__(self, jobs: Collection[Job], num_processes: int) -> None:
        self.waiting = set(jobs)
        self.num_jobs, self.num_processes = len(jobs), num_processes
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def finish(self, job: Job, seconds: float) -> None:
        """Records how long a job took."""
        self.waiting.discard(job)
        self.seconds[job.kind, job.task].append(seconds)

    def remaining(self) -> float | None:
        """Estimated seconds of the remaining jobs, or `None` before any job is finished."""
        known = [value for values in self.seconds.values() for value in values]
        if not known:
            return None

        def expected(job: Job) -> float:
            alike = self.seconds.get((job.kind, job.task))
            same_kind = [value for key, values in self.seconds.items() if key[0] == job.kind for value in values]
            values = alike or same_kind or known
            return sum(values) / len(values)

        return sum(map(expected, self.waiting)) / self.num_processes

    def __str__(self) -> str:
        seconds = self.remaining()
        rest = "" if seconds is None else f", about {seconds / 60:.0f} min left"
        return f"[{self.num_jobs - len(self.waiting)}/{self.num_jobs}{rest}]"


def run(needs: dict[Job, list[Job]], output_dir: Path, source: DataSource, num_processes: int) -> dict[Job, str]:
    """
    Does all jobs that are not done, each in its own process.

    Args:
        needs (`dict[Job, list[Job]]`):
            The jobs, each with the jobs that must be done before it.
        output_dir (`Path`):
            Folder of the results.
        source ([`DataSource`]):
            Where the data come from.
        num_processes (`int`):
            Number of jobs at a time.

    Returns:
        `dict[Job, str]`: The jobs that failed, each with the reason; the reason is empty if a job that it needs
        failed.
    """
    # The server imports once, so that processes start fast and their memory is that of their work.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jobs"])
    folders = [str(FOLDER), str(FOLDER.parent)]
    # In some versions of Python the server finds the modules to import only through this variable.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH")]))
    logs = output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    waiting = wanted(needs, output_dir)
    progress = Progress(waiting, num_processes)
    print(f"{len(needs) - len(waiting)} of {len(needs)} jobs are done, or no longer needed.", flush=True)
    running: dict[BaseProcess, tuple[Job, float]] = {}
    failures: dict[Job, str] = {}
    try:
        while waiting or running:
            for job in list(waiting):
                lost = [before for before in needs[job] if before in failures]
                if lost:
                    failures[job] = ""
                    waiting.remove(job)
                    progress.waiting.discard(job)
                elif len(running) < num_processes and all(before.is_done(output_dir) for before in needs[job]):
                    waiting.remove(job)
                    log = logs / f"{job.name.replace(os.sep, '-')}.log"
                    process = context.Process(target=do_in_process, args=(job, output_dir, source, log))
                    process.start()
                    running[process] = (job, time.perf_counter())
            if not running:
                continue
            ended = wait([process.sentinel for process in running])
            for process in [process for process in running if process.sentinel in ended]:
                process.join()
                job, start = running.pop(process)
                seconds = time.perf_counter() - start
                progress.finish(job, seconds)
                if not job.is_done(output_dir):
                    log = logs / f"{job.name.replace(os.sep, '-')}.log"
                    failures[job] = f"ended with the exit code {process.exitcode}, see {log}"
                word = "FAILED" if job in failures else f"{seconds:.0f} s"
                print(f"{progress} {job.name}: {word}", flush=True)
    finally:
        for process in running:
            process.terminate()
            process.join()
    return failures


def check_settings(output_dir: Path, source: DataSource) -> None:
    """
    Checks that the results of a folder are of the same share of the data.

    Raises:
        `ValueError`: If the folder has results of another share.
    """
    path = output_dir / "source.json"
    output_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(asdict(source), indent=2) + "\n")
    found = json.loads(path.read_text())
    if found["fraction"] != source.fraction:
        raise ValueError(
            f"{output_dir} holds results with --fraction {found['fraction']}, but now it is {source.fraction}. Choose "
            "another --output_dir, or pass the same fraction."
        )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run FisherUnlearner and all baselines on all tasks.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmark"), help="Models and results.")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=", ".join(TASKS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="Seeds of data and training.")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--records", type=Path, help="File of results, written by tables.py, to reuse.")
    parser.add_argument(
        "--redo",
        nargs="+",
        choices=METHODS,
        default=[],
        metavar="METHOD",
        help="Methods to run again.",
    )
    parser.add_argument("--num_processes", type=int, default=2, help="Number of jobs at a time, each with one thread.")
    parser.add_argument("--fashion_mnist_dir", default=str(FASHION_MNIST_DIR), help="Folder of the four idx files.")
    parser.add_argument("--fashion_mnist_dataset", help="Copy that `datasets` reads, in place of the idx files.")
    parser.add_argument("--fraction", type=float, default=1.0, help="Share of rows and epochs, for a trial.")
    return parser


def main(args: argparse.Namespace) -> int:
    source = DataSource(args.fashion_mnist_dir, args.fashion_mnist_dataset, args.fraction)
    check_settings(args.output_dir, source)
    if args.records is not None:
        print(f"{restore_records(args.records, args.output_dir, source, args.redo)} results come from {args.records}.")
    start = time.perf_counter()
    failures = run(all_jobs(args.tasks, args.seeds, args.methods), args.output_dir, source, args.num_processes)
    reasons = {job: reason for job, reason in failures.items() if reason}
    for job, reason in reasons.items():
        print(f"{job.name} {reason}")
    if failures:
        print(f"{len(reasons)} jobs failed, and {len(failures) - len(reasons)} others need their results.")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes. Results: {args.output_dir}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(make_parser().parse_args()))
