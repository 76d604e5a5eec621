# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""From data sets to batches of model inputs."""
