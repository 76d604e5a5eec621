# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Models: how to load them, their heads and likelihoods, and the parameters that may be reset."""
