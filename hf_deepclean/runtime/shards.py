# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
What a process holds of a model that is sharded over several (FSDP2, `torch.distributed.fsdp.fully_shard`).

Between two forward passes every process holds a part of each parameter, some of its rows; in a forward and a backward
pass the parameter is whole in all of them, layer by layer, and another Python object. Every process sees other
examples. What is said here of shards holds of a plain tensor too, which is its own single shard.
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
            A group for every axis of the mesh of processes.
        device_type (`str`, *optional*, defaults to `"cpu"`):
            Where tensors must be to be exchanged.
    """

    groups: tuple[Any, ...] = ()
    device_type: str = "cpu"

    @property
    def are_several(self) -> bool:
        """Whether there is anyone to talk to."""
        return bool(self.groups)

    def gather(self, value: Any) -> list[Any]:
        """What every process passes, in the same order in all of them."""
        values = [value]
        for group in reversed(self.groups):
            gathered: list[Any] = [None] * torch.distributed.get_world_size(group)
            torch.distributed.all_gather_object(gathered, values, group)
            values = [value for part in gathered for value in part]
        return values

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes, on the device of the tensor."""
        return self._reduced(tensor, torch.distributed.ReduceOp.SUM) if self.groups else tensor

    def largest(self, tensor: torch.Tensor) -> torch.Tensor:
        """The maximum of every entry of a tensor over the processes, on the device of the tensor."""
        return self._reduced(tensor, torch.distributed.ReduceOp.MAX) if self.groups else tensor

    def _reduced(self, tensor: torch.Tensor, operation: Any) -> torch.Tensor:
        result = tensor.to(self.device_type, copy=True)
        for group in self.groups:
            torch.distributed.all_reduce(result, operation, group)
        return result.to(tensor.device)


class Turns:
    """
    Lets actions run in one order, whatever the order in which they get ready: processes must meet in the same one.

    Args:
        names (`Iterable[str]`):
            One name for every action, in order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting = deque(names)
        self._ready: dict[str, Callable[[], None]] = {}

    def ready(self, name: str, action: Callable[[], None]) -> None:
        """Runs an action when all before it have run."""
        self._ready[name] = action
        while self._waiting and self._waiting[0] in self._ready:
            self._ready.pop(self._waiting.popleft())()

    def finish(self, missing: Callable[[str], None]) -> None:
        """Runs all that are left, and `missing` in the place of those that never got ready."""
        while self._waiting:
            name = self._waiting.popleft()
            self._ready.pop(name, partial(missing, name))()


def processes_of(tensors: Collection[torch.Tensor]) -> Processes:
    """
    The processes that a model with these parameters runs in, all of which must run the same passes.

    Raises:
        `ValueError`: If the tensors are not sharded alike.
    """
    sharded = [tensor for tensor in tensors if isinstance(tensor, DTensor)]
    if not sharded:
        return Processes()
    mesh = sharded[0].device_mesh
    if len(sharded) < len(tensors) or any(tensor.device_mesh != mesh for tensor in sharded):
        raise ValueError(
            f"Of {len(tensors)} parameters {len(sharded)} are sharded, over meshes of processes that must all be the "
            "same one. Shard the whole model with `fully_shard`, without `ignored_params` and without expert "
            "parallelism, or leave the other parameters out of scope."
        )
    return Processes(tuple(mesh.get_group(axis) for axis in range(mesh.ndim)), mesh.device_type)


def holders_of(tensors: Collection[torch.Tensor]) -> Processes:
    """The processes that hold the different shards of tensors: with replicas of all shards, those of one replica."""
    processes = processes_of(tensors)
    if not processes.are_several:
        return processes
    placements = next(iter(tensors)).placements  # type: ignore[attr-defined]
    groups = zip(processes.groups, placements, strict=True)
    return Processes(tuple(group for group, place in groups if place.is_shard()), processes.device_type)


def local_part(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """
    What this process holds of a tensor: some of its rows, which are one range of the flattened tensor.

    Args:
        tensor (`torch.Tensor`):
            A tensor of any shape, sharded or not.

    Returns:
        `tuple[torch.Tensor, int]`: The part, which shares its memory with the tensor, and where its first entry stands
        in the flattened tensor. For a plain tensor the tensor itself and 0.

    Raises:
        `ValueError`: If it is sharded in another way than by its rows, as in tensor parallelism.
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
            "shards of the first axis, as `fully_shard` makes them, and copies of them are supported, no tensor or "
            "expert parallelism. Load the model with `DistributedConfig(fsdp_size=...)` alone."
        )
    return tensor.detach().to_local(), first * tensor.numel() // max(1, rows)


def local_indices(tensor: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """
    The place in the flattened [`local_part`] of those entries of a tensor that are in it.

    Args:
        tensor (`torch.Tensor`):
            The tensor.
        indices (`torch.Tensor`):
            Flat int64 indices into the whole tensor, ascending.
    """
    part, start = local_part(tensor)
    return indices[(start <= indices) & (indices < start + part.numel())] - start if is_sharded(tensor) else indices


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with all its rows, in every process; all must ask for it."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a process holds a part of the tensor."""
    return isinstance(tensor, DTensor)


def is_whole_at(tensor: torch.Tensor, device: torch.device) -> bool:
    """Whether a tensor is a plain one on a device."""
    return not is_sharded(tensor) and tensor.device == device


def add_full_tensor_(total: torch.Tensor, addend: torch.Tensor) -> None:
    """
    Adds a whole tensor of every process to a sum that may be sharded, and may be on another device.

    Args:
        total (`torch.Tensor`):
            The sum; added to in place.
        addend (`torch.Tensor`):
            A tensor of the same shape, another one in every process; all must call this.
    """
    if isinstance(total, DTensor):
        mesh = total.device_mesh
        summed = DTensor.from_local(addend, mesh, [Partial()] * mesh.ndim, run_check=False)
        addend = summed.redistribute(placements=total.placements).to_local()
        total = total.to_local()
    total += addend.to(total.device)
