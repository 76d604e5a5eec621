# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What shrinking by name cannot reach, by model type."""

from typing import Any


OVERRIDES: dict[str, dict[str, Any]] = {}
