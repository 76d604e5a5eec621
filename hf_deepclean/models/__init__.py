# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Models, their heads and likelihoods, and which weights may be touched."""
