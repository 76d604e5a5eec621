# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Repairs the selected weights by training on the retain set, while everything else stays frozen."""
