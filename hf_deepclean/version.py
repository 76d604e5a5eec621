# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The version, which imports nothing."""

__version__ = "0.1.0"
