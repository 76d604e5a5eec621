# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of the data to forget, and of the owner's machine, in the files of a folder that is to be published."""

from .leak import Leak, LeakError
from .needles import Needles
from .search import check_for_leaks, find_leaks
from .sources import needles_of_dataset, needles_of_machine


__all__ = ["Leak", "LeakError", "Needles", "check_for_leaks", "find_leaks", "needles_of_dataset", "needles_of_machine"]
