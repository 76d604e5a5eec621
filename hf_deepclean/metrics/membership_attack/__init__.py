# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric module `membership_attack`, for `evaluate.load`."""
