# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Stops a pass at the first batch whose squared gradients are not finite, and names the example."""

from collections.abc import Sequence
from typing import Any

import torch

from ..data.batches import split_labels
from ..models.likelihood import check_finite_log_likelihood
from ..runtime.shards import local_part
from .engine.layouts import sum_dtype
from .engine.tapped_model import Parts, TappedModel


def check_finite_sums(model: TappedModel, batch: dict[str, Any], positions: Sequence[int], parts: Parts) -> None:
    """
    Refuses sums that are not finite after a batch was added.

    Args:
        model ([`TappedModel`]):
            The prepared model.
        batch (`dict[str, Any]`):
            The batch that was added last.
        positions (`Sequence[int]`):
            The position of every example in the data set.
        parts (`list[tuple[range, dict[str, torch.Tensor]]]`):
            The sums that the batch was added to.

    Raises:
        `ValueError`: If a sum is not finite; with the position of the first example that is the cause.
    """
    # One answer for all parameters: reading each would make a device wait once per parameter and batch.
    finite = [local_part(total)[0].sum().isfinite() for _, sums in parts for total in sums.values()]
    if all(model.processes.gather(bool(torch.stack([value.to(finite[0].device) for value in finite]).all()))):
        return
    with torch.no_grad():
        inputs, labels = split_labels(batch)
        log_likelihood = model.likelihood(inputs, model.model(**inputs), labels)
    problems: list[str] = []

    def check(example: int, name: str, gradient: torch.Tensor) -> None:
        if not gradient.to(sum_dtype(gradient)).square().isfinite().all():
            problems.append(
                f"The squared gradient of {name} is not finite for the example at position {positions[example]}. "
                "Check that example and the model's weights; a half-precision model may overflow: try float32."
            )

    for example, position in enumerate(positions):
        try:
            check_finite_log_likelihood(log_likelihood[example : example + 1], position)
        except ValueError as error:
            problems.append(str(error))
        model.visit_example_gradients(check, batch, positions, model.parameters, examples=[example])
        # All processes of a sharded model must stop at the same place.
        for found in model.processes.gather(problems):
            if found:
                raise ValueError(found[0])
    raise ValueError(
        f"The sum of squared gradients overflowed in the batch that starts at position {min(positions)}. "
        "Use a float64 model, or scale the likelihood down."
    )
