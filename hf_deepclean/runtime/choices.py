# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Checks options that are one of a few values."""

from collections.abc import Sequence
from typing import Any


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """
    Refuses an unknown value of an option.

    Args:
        name (`str`):
            Name of the option.
        value (`Any`):
            Its value.
        choices (`Sequence`):
            The allowed values.

    Raises:
        `ValueError`: If the value is not one of them.
    """
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r} but must be one of {', '.join(map(repr, choices))}.")
