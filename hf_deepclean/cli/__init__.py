# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The command line `hf-deepclean`."""

from .commands import main


__all__ = ["main"]
