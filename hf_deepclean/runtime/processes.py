# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one launch: how many there are, and how they exchange values."""

import atexit
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist


T = TypeVar("T")

# Bytes per reduction: larger buckets save nothing, smaller ones cost round trips.
_BUCKET_BYTES = 2**26

# gloo's threads need microseconds to drop their tensors; wait much longer.
_SECONDS_FOR_THREADS = 0.1


def num_processes() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Index of this process; 0 is the main process."""
    return dist.get_rank() if num_processes() > 1 else 0


def is_main_process() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return process_index() == 0


def check_launch(world_size: int) -> None:
    """
    Refuses a launch whose processes do not know of each other, as happens on machines without accelerators.

    Args:
        world_size (`int`):
            Number of processes that Accelerate sees.

    Raises:
        `RuntimeError`: If the launcher started another number of processes.
        `ValueError`: If the launcher was told to use DeepSpeed or FSDP.
    """
    check_parallelism(
        fsdp=os.environ.get("ACCELERATE_USE_FSDP") == "true",
        deepspeed=os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true",
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != world_size:
        raise RuntimeError(
            f"{launched} processes were launched, but each of them sees {world_size}: they would all do the same work "
            "and write the same files. Without accelerators set `use_cpu=True` (`--use_cpu true`) and launch with "
            "`torchrun --nproc_per_node N` or `accelerate launch --multi_gpu --num_processes N`; "
            "`accelerate launch --cpu` always starts a single process."
        )
    if launched > 1:
        atexit.unregister(_let_threads_finish)
        atexit.register(_let_threads_finish)


def _let_threads_finish() -> None:
    """
    Waits for gloo's threads to drop the tensors of the last messages, for which they need the interpreter.

    A thread that asks for the interpreter while it shuts down is ended in the middle of C++ code. That aborts the
    process, and with it a launch that has succeeded.
    """
    time.sleep(_SECONDS_FOR_THREADS)


def check_parallelism(*, fsdp: bool, deepspeed: bool) -> None:
    """
    Refuses engines that shard a model at the start of its training, which is after its Fisher is computed.

    Args:
        fsdp (`bool`):
            Whether Accelerate's FSDP was asked for.
        deepspeed (`bool`):
            Whether DeepSpeed was asked for.

    Raises:
        `ValueError`: If one of the two was asked for. The message says what to use instead.
    """
    if not (fsdp or deepspeed):
        return
    engine = "DeepSpeed" if deepspeed else "FSDP by Accelerate"
    reason = "ZeRO-3 leaves parameters empty between their layers' passes" if deepspeed else "it shards them too late"
    raise ValueError(
        f"{engine} shards the weights itself, and {reason}: per-example gradients cannot be kept where their weights "
        "are. Launch plain processes (`torchrun`, or `accelerate launch --multi_gpu`). If the model does not fit one "
        "device, load it sharded by FSDP2, with `from_pretrained(path, "
        "distributed_config=DistributedConfig(fsdp_size=N))` of transformers."
    )


def sum_over_processes_(tensors: Iterable[torch.Tensor]) -> None:
    """
    Sums tensors over all processes, in place and in buckets of 64 MiB.

    Args:
        tensors (`Iterable[torch.Tensor]`):
            Tensors on any device. Every process passes the same shapes and dtypes in the same order.
    """
    if num_processes() == 1:
        return
    device = _communication_device()
    for bucket in _buckets(tensors):
        joined = torch.cat([part.reshape(-1).to(device) for part in bucket])
        dist.all_reduce(joined)
        for part, reduced in zip(bucket, joined.split([part.numel() for part in bucket]), strict=True):
            part.copy_(reduced.view_as(part))


def gather_objects(value: T) -> list[T]:
    """Returns the values of all processes, in their order, in every process."""
    if num_processes() == 1:
        return [value]
    gathered: list[Any] = [None] * num_processes()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: T) -> T:
    """Returns the value of the main process in every process."""
    if num_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=_communication_device())
    return values[0]


def on_main_process(function: Callable[[], T]) -> T:
    """
    Runs a function in the main process alone. The others wait, and get its result or its error.

    Args:
        function (`Callable`):
            The function, called without arguments.
    """
    result, error = None, None
    if is_main_process():
        try:
            result = function()
        except Exception as raised:
            error = raised
    result, error = broadcast_object((result, error))
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def run_once(function: Callable[[], T], *, is_sharded: bool = False) -> T:
    """
    Computes one result for all processes from Fishers, whose sums may differ in the last bit between processes.

    Args:
        function (`Callable`):
            The computation.
        is_sharded (`bool`, *optional*, defaults to `False`):
            Whether the sums are sharded. Then all processes must take part, and all get the same result.
    """
    return function() if is_sharded else on_main_process(function)


def _communication_device() -> torch.device:
    """The device that the backend exchanges tensors on."""
    from accelerate import PartialState

    return PartialState().device


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Groups views of the tensors by dtype into buckets of about `_BUCKET_BYTES`."""
    bucket: list[torch.Tensor] = []
    room = _BUCKET_BYTES
    for tensor in tensors:
        for part in _pieces(tensor):
            if bucket and (part.nbytes > room or part.dtype != bucket[0].dtype):
                yield bucket
                bucket, room = [], _BUCKET_BYTES
            bucket.append(part)
            room -= part.nbytes
    if bucket:
        yield bucket


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Splits a tensor into views of at most `_BUCKET_BYTES`."""
    if tensor.nbytes <= _BUCKET_BYTES or tensor.ndim == 0:
        yield tensor
        return
    rows = max(1, _BUCKET_BYTES * len(tensor) // tensor.nbytes)
    for part in tensor.split(rows):
        if len(part) > 1:
            yield part
        else:
            yield from _pieces(part[0])
