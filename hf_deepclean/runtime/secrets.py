# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Takes access tokens out of what is written to disk."""

import re
from collections.abc import Mapping
from typing import Any


# What training arguments call a secret, and what a token of the Hub looks like.
_NAME = re.compile(r"(.*_)?(token|api_key|password|secret)", re.IGNORECASE)
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def without_tokens(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Replaces access tokens by `None`: texts with such a name, and texts with a token of the Hub, at any depth.

    Args:
        values (`dict[str, Any]`):
            Training arguments by name.

    Returns:
        `dict[str, Any]`: All of them. A value without a token is the same object.
    """
    return {name: _without_tokens(str(name), value) for name, value in values.items()}


def _without_tokens(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return None if _NAME.fullmatch(name) or HUB_TOKEN.search(value) else value
    if isinstance(value, dict):
        kept = without_tokens(value)
        return value if all(kept[key] is item for key, item in value.items()) else kept
    if isinstance(value, (list, tuple)):
        items = [_without_tokens(name, item) for item in value]
        return value if all(kept is item for kept, item in zip(items, value, strict=True)) else items
    return value
