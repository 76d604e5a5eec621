# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The exact diagonal of the Fisher information: passes over data sets, and diagonals that are kept."""
