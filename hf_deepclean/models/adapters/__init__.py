# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: how to load, check, reset and save them without touching the base model."""
