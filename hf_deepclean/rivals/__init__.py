# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Other methods of unlearning, each from its equations, on the same likelihoods, Fishers and data as ours."""
