# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pure functions on arrays that compute the figures: divergences, gaps, attacks, memorisation, intervals."""
