# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures what a model knows: of the data sets of a run, and whether forgotten data come back."""
