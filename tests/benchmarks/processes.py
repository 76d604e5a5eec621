# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Times the Fisher pass in one, two and more processes of one thread each, on the CPU.

```shell
python -m tests.benchmarks.processes --num_processes 1 2
```
"""

import argparse
import os
import time

import torch

from hf_deepclean.fisher.passes import accumulate_over_processes
from hf_deepclean.runtime.processes import gather_objects, is_main_process, num_processes, process_index
from tests.benchmarks.models import bert, vit
from tests.launched.launch import launch_module


MODELS = {"ViT": vit, "BERT": bert}
NUM_BATCHES = 16


def seconds_of_a_pass(name: str) -> tuple[float, int]:
    """Seconds from the first batch until all processes have the sums, and the number of examples."""
    torch.manual_seed(0)
    model, batch = MODELS[name]()

    def batches(start, earlier):
        return ((place, batch) for place in range(process_index(), NUM_BATCHES, num_processes()))

    size = len(batch["labels"])
    gather_objects(None)
    start = time.perf_counter()
    fisher = accumulate_over_processes(model, batches, size)
    return time.perf_counter() - start, fisher.num_examples


def work(repeats: int) -> None:
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("gloo")
    for name in MODELS:
        passes = [seconds_of_a_pass(name) for _ in range(repeats + 1)][1:]
        if is_main_process():
            print(f"{name};{min(seconds for seconds, _ in passes)};{passes[0][1]}")


def launch(count: int, repeats: int) -> dict[str, tuple[float, int]]:
    done = launch_module("tests.benchmarks.processes", count, "--worker", "--repeats", repeats)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [line.split(";") for line in done.stdout.splitlines() if line.count(";") == 2]
    return {name: (float(seconds), int(examples)) for name, seconds, examples in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--num_processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2, help="number of timed passes; the fastest counts")
    parser.add_argument("--worker", action="store_true", help="run as one of the launched processes")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.repeats)
        return
    results = {count: launch(count, arguments.repeats) for count in arguments.num_processes}
    first = results[arguments.num_processes[0]]
    print("| model | examples |", " | ".join(f"{count} processes, s" for count in results), "| speed |")
    print("| --- " * (len(results) + 3) + "|")
    for name, (seconds, examples) in first.items():
        timed = [result[name][0] for result in results.values()]
        assert all(result[name][1] == examples for result in results.values())
        cells = " | ".join(f"{value:.2f}" for value in timed)
        print(f"| {name} | {examples} | {cells} | {', '.join(f'{seconds / value:.2f}' for value in timed[1:])} |")


if __name__ == "__main__":
    main()
