# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Searches a folder, before it is published, for traces of the forget data and of the owner's machine."""

from .leak import Leak, LeakError
from .needles import Needles
from .search import check_for_leaks, find_leaks
from .sources import needles_of_dataset, needles_of_machine


__all__ = ["Leak", "LeakError", "Needles", "check_for_leaks", "find_leaks", "needles_of_dataset", "needles_of_machine"]
