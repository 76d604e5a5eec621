# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Checks what the caller's `compute_metrics` returned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def metric_values(returned: Any) -> dict[str, float]:
    """
    Turns what `compute_metrics` returned into one number per metric.

    Args:
        returned (`dict[str, Any]`):
            Numbers, or arrays and tensors of one element, by the name of the metric.

    Returns:
        `dict[str, float]`: The numbers by name.

    Raises:
        `TypeError`: If it is no dictionary, a name is no string, or a value is not one number. Says what to return.
    """
    if not isinstance(returned, Mapping):
        missing = " (is there a `return`?)" if returned is None else ""
        raise TypeError(
            f"`compute_metrics` returned {_described(returned)}{missing}, but must return a dictionary of one number "
            'per metric, such as `{"f1": 0.5}`.'
        )
    values = {}
    for name, value in returned.items():
        if not isinstance(name, str):
            raise TypeError(
                f"`compute_metrics` named a metric by {_described(name)}. Name it by a string, such as {str(name)!r}."
            )
        try:
            values[name] = float(value.item() if isinstance(value, (np.ndarray, torch.Tensor)) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"`compute_metrics` returned {_described(value)} as the metric {name!r}. {_remedy(name, value)}"
            ) from error
    return values


def _described(value: Any) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"a value of type {type(value).__name__}{'' if shape is None else f' and shape {tuple(shape)}'}"


def _remedy(name: str, value: Any) -> str:
    if value is None:
        return "Leave out a metric that has no value, or give it `float('nan')`."
    if isinstance(value, Mapping):
        inner = next(iter(value), "value")
        return f"Return its entries one by one, each under a name of its own, such as {f'{name}_{inner}'!r}."
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
        return f"Return one number, such as the mean, or one entry per number, such as {f'{name}_0'!r}."
    return "Return one number."
