# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selects the weights to reset, from the Fisher diagonals of the forget and the retain set."""
