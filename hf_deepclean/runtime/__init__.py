# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by all phases: processes, shards, files, signals and random states."""
