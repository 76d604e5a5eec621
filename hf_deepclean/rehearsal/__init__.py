# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tries every step of a run on a few rows before the run, and changes nothing."""
