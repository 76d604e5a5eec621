# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that need a single process. For checks of several processes see `tests/launched/`."""

import pytest
import torch

from hf_deepclean.runtime import processes
from hf_deepclean.runtime.processes import (
    broadcast_object,
    check_launch,
    check_parallelism,
    gather_objects,
    is_main_process,
    num_processes,
    on_main_process,
    process_index,
    sum_over_processes_,
)


def test_one_process_is_the_main_one_and_agrees_with_itself():
    assert (num_processes(), process_index(), is_main_process()) == (1, 0, True)
    assert gather_objects("value") == ["value"] and broadcast_object("value") == "value"
    assert on_main_process(lambda: "value") == "value"
    tensor = torch.ones(3)
    sum_over_processes_([tensor])
    assert tensor.tolist() == [1, 1, 1]
    with pytest.raises(KeyError):
        on_main_process(lambda: {}["missing"])


def test_buckets_hold_every_entry_once_of_one_dtype_and_not_much_more_than_their_size(monkeypatch):
    monkeypatch.setattr(processes, "_BUCKET_BYTES", 100)
    shapes = [(3,), (60,), (2, 40), (), (5, 2, 9), (1, 120), (0,)]
    tensors = [torch.zeros(shape) for shape in shapes] + [torch.zeros(4, 6, dtype=torch.float64).mT]
    for bucket in processes._buckets(tensors):
        assert len({part.dtype for part in bucket}) == 1
        assert sum(part.nbytes for part in bucket) <= 100
        for part in bucket:
            part += 1
    assert all((tensor == 1).all() for tensor in tensors)


def test_a_launch_that_does_not_form_the_world_it_was_asked_for_is_refused_with_the_fix(monkeypatch):
    check_launch(1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launch(4)
    with pytest.raises(
        RuntimeError, match="4 processes were launched, but each of them sees 1.*use_cpu=True.*torchrun"
    ):
        check_launch(1)


def test_engines_that_take_the_weights_apart_are_refused_by_name():
    check_parallelism(fsdp=False, deepspeed=False)
    with pytest.raises(ValueError, match="DeepSpeed.*ZeRO-3 leaves parameters empty.*distributed_config"):
        check_parallelism(fsdp=False, deepspeed=True)
    with pytest.raises(ValueError, match="FSDP by Accelerate.*distributed_config"):
        check_parallelism(fsdp=True, deepspeed=False)
