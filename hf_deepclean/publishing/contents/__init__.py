# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What is in a published folder: which files, without which paths, and whether they load again."""
