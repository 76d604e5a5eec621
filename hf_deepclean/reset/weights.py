# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the values of selected weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from ..runtime.processes import gather_objects, num_processes
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import holders_of, is_sharded, local_indices, local_part, take_entries
from ..selection.weight_selection import WeightSelection


@torch.no_grad()
def read_weights(model: nn.Module, selection: WeightSelection) -> dict[str, torch.Tensor]:
    """Reads the selected weights, one flat tensor per parameter. All processes of a sharded model must call this."""
    parameters, values = named_parameters(model), {}
    for name, indices in selection.indices.items():
        part, _ = local_part(parameters[name])
        values[name] = take_entries(part, local_indices(parameters[name], indices).to(part.device))
        parts = holders_of([parameters[name]]).gather(values[name])
        if len(parts) > 1:
            values[name] = torch.cat([value.to(part.device) for value in parts])
    return values


@torch.no_grad()
def write_weights(model: nn.Module, selection: WeightSelection, values: Mapping[str, torch.Tensor]) -> None:
    """Writes flat values to the selected weights, one tensor per parameter."""
    parameters = named_parameters(model)
    for name, indices in selection.indices.items():
        (part, start), value, chosen = local_part(parameters[name]), values[name], indices
        if is_sharded(parameters[name]):
            mine = (start <= indices) & (indices < start + part.numel())
            value, chosen = value[mine.to(value.device)], indices[mine] - start
        part.put_(chosen.to(part.device), value.to(part.device, part.dtype))


def check_replicas(model: nn.Module, selection: WeightSelection) -> None:
    """
    Checks that all processes have the same values in the selected weights. All processes must call this.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        selection ([`WeightSelection`]):
            The selected weights.

    Raises:
        `RuntimeError`: If they differ.
    """
    if num_processes() == 1:
        return
    digest = hashlib.sha256()
    for value in read_weights(model, selection).values():
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    if len(set(gather_objects(digest.hexdigest()))) > 1:
        raise RuntimeError(
            "After the repair the processes do not have the same weights, and nothing was saved. A callback that "
            "changes weights in one process alone may be the cause."
        )
