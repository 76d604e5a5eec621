# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Starts scripts in several processes on the CPU, as a user would."""

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]


def launch(script: str, num_processes: int, *arguments, **kwargs) -> subprocess.CompletedProcess:
    """Runs a script beside this file to its end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    return subprocess.run(
        [*command, str(Path(__file__).with_name(script)), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        **kwargs,
    )


def environment() -> dict[str, str]:
    """One thread per process, and the package of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
