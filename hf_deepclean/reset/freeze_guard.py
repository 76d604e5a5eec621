# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Proves that nothing outside a selection changed."""

import hashlib
from collections.abc import Iterator

import torch
from torch import nn

from ..runtime.sharded_models import reshard
from ..runtime.shards import full_tensor, is_sharded
from ..selection.weight_selection import WeightSelection


# A copy of a block stays in the cache of a core.
_BLOCK_BYTES = 2**20


class FreezeGuard:
    """
    Proves that nothing outside a selection changed, by the SHA-256 digests of all parameters and buffers without the
    selected weights.

    All processes must call this if the model is sharded. Its tensors are put together one at a time, in every process,
    so that the digests are those of the whole model.

    Args:
        model (`torch.nn.Module`):
            The model before anything changes.
        selection ([`WeightSelection`]):
            The weights that may change.

    Attributes:
        num_frozen_weights (`int`): Number of weights outside the selection. Shared weights count once.
        num_buffer_entries (`int`): Number of entries of all buffers.
        checksum (`str`): SHA-256 over all digests, in hexadecimal.
    """

    def __init__(self, model: nn.Module, selection: WeightSelection) -> None:
        self.selection = selection
        self._digests = self._digest(model)
        self.num_frozen_weights = sum(p.numel() for p in model.parameters()) - selection.num_selected
        self.num_buffer_entries = sum(buffer.numel() for buffer in model.buffers())
        self.checksum = hashlib.sha256(
            "".join(self._digests[name] for name in sorted(self._digests)).encode()
        ).hexdigest()

    def verify(self, model: nn.Module) -> None:
        """
        Verifies that nothing outside the selection changed.

        Args:
            model (`torch.nn.Module`):
                The model.

        Raises:
            `RuntimeError`: If a bit outside the selection changed. Names the tensors.
        """
        digests = self._digest(model)
        changed = [name for name in self._digests | digests if self._digests.get(name) != digests.get(name)]
        if changed:
            raise RuntimeError(
                f"Outside the selected weights, {len(changed)} parameters or buffers changed: {', '.join(changed)}. "
                "The result is not what was asked for, and was not saved. A callback, a layer that updates its own "
                "buffers, or a checkpoint of another model may be the cause."
            )

    @torch.no_grad()
    def _digest(self, model: nn.Module) -> dict[str, str]:
        digests = {}
        reshard(model)
        for name, tensor in _stored_tensors(model):
            digests[name] = _digest_without(full_tensor(tensor).detach(), self.selection.indices.get(name))
        return digests


def _digest_without(tensor: torch.Tensor, selected: torch.Tensor | None) -> str:
    """SHA-256 of a tensor with zeros in the place of the selected entries. No more than a block of it is copied."""
    digest, first = hashlib.sha256(), 0
    selected = torch.zeros(0, dtype=torch.int64) if selected is None else selected.cpu()
    if (selected.diff() < 0).any():
        selected = selected.sort().values
    for block in tensor.reshape(-1).split(max(1, _BLOCK_BYTES // tensor.element_size())):
        ends = torch.searchsorted(selected, torch.tensor([first, first + len(block)])).tolist()
        block = block.cpu()
        if ends[0] < ends[1]:
            block = block.index_fill(0, selected[slice(*ends)] - first, 0)
        digest.update(block.view(torch.uint8).numpy())
        first += len(block)
    return digest.hexdigest()


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields parameters and buffers, and the scales and tables that quantised weights are decoded with."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if getattr(model, "is_quantized", False):
        known = dict(model.named_parameters(remove_duplicate=False))
        state = model.state_dict()
        named |= {name: value for name, value in state.items() if name not in known and torch.is_tensor(value)}
    for name, tensor in named.items():
        if hasattr(tensor, "__tensor_flatten__") and not is_sharded(tensor):
            for part in tensor.__tensor_flatten__()[0]:
                yield f"{name}.{part}", getattr(tensor, part)
        else:
            yield name, tensor
