# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Processes, shards, files and signals: what all phases stand on."""
