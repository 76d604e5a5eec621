# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the command line by `python -m hf_deepclean.cli`, for launchers that take a module."""

import sys

from .commands import main


if __name__ == "__main__":
    sys.exit(main())
