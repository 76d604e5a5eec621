# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The exact Fisher engine: sums of squared per-example gradients from one backward pass."""
