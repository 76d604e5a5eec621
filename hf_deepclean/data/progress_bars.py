# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Progress bars of the `datasets` library."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets


@contextmanager
def progress_bars_on_main_process() -> Iterator[None]:
    """Hides progress bars of `datasets` inside the block in all processes but the first."""
    if int(os.environ.get("RANK", 0)) == 0 or datasets.utils.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
