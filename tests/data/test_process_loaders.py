# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from itertools import chain

import pytest
import torch
from torch.utils.data import SequentialSampler

from hf_deepclean.data.process_loaders import EpochLoader, ProcessBatchSampler, ProcessRows
from tests.data.examples import Stream


@pytest.mark.parametrize("num_processes", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_training_rows_are_shared_out_without_repetition_in_steps_that_all_processes_take(num_processes, batch_size):
    for size in range(num_processes, 40):
        samplers = [
            ProcessBatchSampler(SequentialSampler(range(size)), batch_size, 0, index, num_processes)
            for index in range(num_processes)
        ]
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])}
        assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(size))
        for step in zip(*shares, strict=True):
            sizes = [len(part) for part in step]
            assert min(sizes) >= 1 and max(sizes) <= max(batch_size, 2) and max(sizes) - min(sizes) <= 1
        streamed = [list(ProcessRows(Stream(range(size)), batch_size, i, num_processes)) for i in range(num_processes)]
        assert len({len(share) for share in streamed}) == 1
        assert sorted(chain.from_iterable(chain.from_iterable(streamed))) == list(range(size))
        assert all(part for share in streamed for part in share)


def test_rows_that_do_not_fill_a_step_are_dropped_when_that_is_asked_for():
    shares = [list(ProcessBatchSampler(SequentialSampler(range(11)), 2, 0, i, 2, drop_last=True)) for i in range(2)]
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(8))


def test_fewer_rows_than_processes_make_one_step():
    shares = [list(ProcessBatchSampler(SequentialSampler(range(2)), 4, 0, i, 3)) for i in range(3)]
    assert shares == [[[0]], [[1]], [[0]]]
    with pytest.raises(ValueError, match="2 rows for 3 processes"):
        list(ProcessRows(Stream(range(2)), 4, 0, 3))


def test_every_epoch_has_its_order_the_same_in_all_processes():
    def order(epoch, index):
        sampler = ProcessBatchSampler(torch.utils.data.RandomSampler(range(20)), 3, 1, index, 2)
        loader = EpochLoader(range(20), batch_sampler=sampler, collate_fn=list)
        loader.set_epoch(epoch)
        torch.rand(index + 1)
        return list(loader)

    for epoch in range(2):
        first, second = order(epoch, 0), order(epoch, 1)
        assert sorted(chain.from_iterable(first + second)) == list(range(20))
    assert order(0, 0) != order(1, 0)
    assert order(1, 0) == order(1, 0)
