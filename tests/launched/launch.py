# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Starts scripts in several processes of one thread each on the CPU, as a user would."""

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]


def launch(script: str, num_processes: int, *arguments) -> subprocess.CompletedProcess:
    """Runs a script beside this file to its end."""
    return run(num_processes, str(Path(__file__).with_name(script)), *map(str, arguments))


def launch_module(
    module: str, num_processes: int, *arguments, timeout: float | None = None
) -> subprocess.CompletedProcess:
    """Runs a module of this checkout to its end."""
    return run(num_processes, "-m", module, *map(str, arguments), timeout=timeout)


def run(num_processes: int, *command: str, timeout: float | None = None) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launcher, *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=timeout)
