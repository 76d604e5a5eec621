# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Starts several processes of one thread each on the CPU: launched as by a user, or forked."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path


ROOT = Path(__file__).parents[2]


def run_script(script: str, *arguments) -> subprocess.CompletedProcess:
    """Runs a script beside this file to its end, in one process."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


def launch(script: str, num_processes: int, *arguments) -> subprocess.CompletedProcess:
    """Launches a script beside this file in several processes, and waits for them."""
    return run(num_processes, str(Path(__file__).with_name(script)), *map(str, arguments))


def launch_module(
    module: str, num_processes: int, *arguments, timeout: float | None = None
) -> subprocess.CompletedProcess:
    """Launches a module of this checkout in several processes, and waits for them."""
    return run(num_processes, "-m", module, *map(str, arguments), timeout=timeout)


def run(num_processes: int, *command: str, timeout: float | None = None) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    command = [*launcher, *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=timeout)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def fork(num_processes: int, target: Callable[..., None], *arguments) -> None:
    """
    Runs a function to its end in several processes, which know of each other by the environment that torchrun would
    give them. They are forked, so that they need not import everything again. Nothing may have been computed before.

    Args:
        num_processes (`int`):
            Number of processes.
        target (`Callable`):
            Called in every process.
        arguments:
            Its arguments.

    Raises:
        `SystemExit`: If a process fails. All others are killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(index: int) -> None:
        places = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
        places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in places.items()})
        target(*arguments)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(index,)) for index in range(num_processes)]
    for process in processes:
        process.start()
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in wait(running):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode != 0:
                for other in running.values():
                    other.kill()
                raise SystemExit(f"A process ended with status {process.exitcode}.")
