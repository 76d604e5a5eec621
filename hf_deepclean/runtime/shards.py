# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The tensors of a model that is sharded over several processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

Between two passes every process holds some of the rows of each parameter. During a forward and a backward pass the
parameter is whole in all processes, layer by layer, and another Python object. Every process sees other examples. All
functions also take plain tensors; a plain tensor is its own single shard.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


@dataclass(frozen=True)
class Processes:
    """
    The processes that hold a model's shards, or the one process of a plain model.

    Args:
        groups (`tuple[torch.distributed.ProcessGroup, ...]`, *optional*, defaults to `()`):
            One group for every axis of the mesh of processes.
        device_type (`str`, *optional*, defaults to `"cpu"`):
            Type of the device that tensors are exchanged on.
    """

    groups: tuple[Any, ...] = ()
    device_type: str = "cpu"

    @property
    def are_several(self) -> bool:
        """Whether the model is sharded over more than one process."""
        return bool(self.groups)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the same order in every process."""
        values = [value]
        for group in reversed(self.groups):
            gathered: list[Any] = [None] * torch.distributed.get_world_size(group)
            torch.distributed.all_gather_object(gathered, values, group)
            values = [value for part in gathered for value in part]
        return values

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the sum of a tensor over the processes, on the device of the tensor."""
        return self._reduced(tensor, torch.distributed.ReduceOp.SUM) if self.groups else tensor

    def largest(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the maximum of every entry of a tensor over the processes, on the device of the tensor."""
        return self._reduced(tensor, torch.distributed.ReduceOp.MAX) if self.groups else tensor

    def _reduced(self, tensor: torch.Tensor, operation: Any) -> torch.Tensor:
        result = tensor.to(self.device_type, copy=True)
        for group in self.groups:
            torch.distributed.all_reduce(result, operation, group)
        return result.to(tensor.device)


class Turns:
    """
    Runs actions in a fixed order, whatever order they become ready in, because all processes must use the same one.

    Args:
        names (`Iterable[str]`):
            The name of every action, in order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting = deque(names)
        self._ready: dict[str, Callable[[], None]] = {}

    def ready(self, name: str, action: Callable[[], None]) -> None:
        """Runs an action as soon as all actions before it have run."""
        self._ready[name] = action
        while self._waiting and self._waiting[0] in self._ready:
            self._ready.pop(self._waiting.popleft())()

    def finish(self, missing: Callable[[str], None]) -> None:
        """Runs the remaining actions, and `missing` in place of those that never became ready."""
        while self._waiting:
            name = self._waiting.popleft()
            self._ready.pop(name, partial(missing, name))()


def processes_of(tensors: Collection[torch.Tensor]) -> Processes:
    """
    The processes that a model with these parameters is sharded over. All of them must run the same passes.

    Raises:
        `ValueError`: If the tensors are not all sharded over the same processes.
    """
    sharded = [tensor for tensor in tensors if isinstance(tensor, DTensor)]
    if not sharded:
        return Processes()
    mesh = sharded[0].device_mesh
    if len(sharded) < len(tensors) or any(tensor.device_mesh != mesh for tensor in sharded):
        raise ValueError(
            f"{len(sharded)} of {len(tensors)} parameters are sharded, but all must be, over one mesh of processes. "
            "Shard the whole model with `fully_shard`, without `ignored_params` and without expert parallelism, or "
            "leave the other parameters out of scope."
        )
    return Processes(tuple(mesh.get_group(axis) for axis in range(mesh.ndim)), mesh.device_type)


def holders_of(tensors: Collection[torch.Tensor]) -> Processes:
    """The processes that together hold all shards of tensors, once. Replicas are left out."""
    processes = processes_of(tensors)
    if not processes.are_several:
        return processes
    placements = next(iter(tensors)).placements  # type: ignore[attr-defined]
    groups = zip(processes.groups, placements, strict=True)
    return Processes(tuple(group for group, place in groups if place.is_shard()), processes.device_type)


def local_part(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """
    The rows of a tensor that this process holds, which are one range of the flattened tensor.

    Args:
        tensor (`torch.Tensor`):
            A tensor of any shape, sharded or not.

    Returns:
        `tuple[torch.Tensor, int]`: The part, which shares its memory with the tensor, and the index of its first entry
        in the flattened tensor. For a plain tensor the tensor itself and 0.

    Raises:
        `ValueError`: If the tensor is sharded in another way than by its rows, as in tensor parallelism.
    """
    if not isinstance(tensor, DTensor):
        return tensor, 0
    rows, first = len(tensor) if tensor.ndim else 1, 0
    num_shards = 0
    for axis, placement in enumerate(tensor.placements):
        if type(placement) is Shard and placement.dim == 0:
            num_shards += 1
            size = -(-rows // tensor.device_mesh.size(axis))
            first = min(rows, tensor.device_mesh.get_local_rank(axis) * size)
        elif placement != Replicate():
            num_shards = 2
    if num_shards > 1:
        raise ValueError(
            f"A parameter of shape {tuple(tensor.shape)} is laid out over the processes as {tensor.placements}. Only "
            "shards of the first axis, as `fully_shard` makes them, and copies of them are supported; tensor and "
            "expert parallelism are not. Load the model with `DistributedConfig(fsdp_size=...)` alone."
        )
    return tensor.detach().to_local(), first * tensor.numel() // max(1, rows)


def local_indices(tensor: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """
    Finds the entries of a tensor that this process holds.

    Args:
        tensor (`torch.Tensor`):
            The tensor.
        indices (`torch.Tensor`):
            Flat int64 indices into the whole tensor, ascending.

    Returns:
        `torch.Tensor`: Flat int64 indices into the [`local_part`].
    """
    part, start = local_part(tensor)
    return indices[(start <= indices) & (indices < start + part.numel())] - start if is_sharded(tensor) else indices


def take_entries(tensor: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The entries of a plain tensor at flat int64 indices, as `torch.take` returns them in twice the time."""
    if tensor.is_contiguous():
        return tensor.view(-1).index_select(0, indices)
    return torch.take(tensor, indices)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with all its rows, in every process. All processes must call this."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether every process holds only a part of the tensor."""
    return isinstance(tensor, DTensor)


def is_whole_at(tensor: torch.Tensor, device: torch.device) -> bool:
    """Whether a tensor is not sharded, and on a device."""
    return not is_sharded(tensor) and tensor.device == device


def add_full_tensor_(total: torch.Tensor, addend: torch.Tensor) -> None:
    """
    Adds one whole tensor per process to a sum, which may be sharded and on another device. All processes must call
    this.

    Args:
        total (`torch.Tensor`):
            The sum; added to in place.
        addend (`torch.Tensor`):
            A tensor of the same shape. Every process passes its own.
    """
    if isinstance(total, DTensor):
        mesh = total.device_mesh
        summed = DTensor.from_local(addend, mesh, [Partial()] * mesh.ndim, run_check=False)
        addend = summed.redistribute(placements=total.placements).to_local()
        total = total.to_local()
    total += addend.to(total.device)
