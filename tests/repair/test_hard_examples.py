# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from hf_deepclean.data.process_loaders import ProcessBatchSampler
from hf_deepclean.repair.hard_examples import ROW_NUMBERS, HardExampleSampler, NumberedCollator, NumberedRows


def order_of(sampler, epoch, seed=0):
    torch.manual_seed(seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def recorded(num_rows=40, share=0.5, seed=0):
    """A sampler after its first epoch, and the losses that it recorded."""
    sampler = HardExampleSampler(num_rows, share)
    order = order_of(sampler, 0)
    losses = torch.rand(num_rows, generator=torch.Generator().manual_seed(seed))
    sampler.record(order, losses[order].tolist())
    return sampler, losses


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("num_rows", [1, 2, 23])
def test_the_first_epoch_reads_every_row_once(num_rows, share):
    sampler = HardExampleSampler(num_rows, share)
    assert sorted(order_of(sampler, 0)) == list(range(num_rows))
    assert len(sampler) == num_rows


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("num_rows", [1, 2, 23])
def test_later_epochs_read_the_rows_with_the_largest_losses_equally_often(num_rows, share):
    sampler, losses = recorded(num_rows, share)
    order = order_of(sampler, 1)
    num_read = math.ceil(share * num_rows)
    read = Counter(order)
    assert len(order) == num_rows
    assert set(read) == set(losses.topk(num_read).indices.tolist())
    assert max(read.values()) - min(read.values()) <= 1


def test_an_epoch_goes_by_the_last_loss_of_every_row():
    sampler, losses = recorded()
    first = set(order_of(sampler, 1))
    learnt = sorted(first, key=lambda row: losses[row])[:15]
    sampler.record(learnt, [0.0] * len(learnt))
    expected = losses.clone()
    expected[learnt] = 0.0
    assert set(order_of(sampler, 2)) == set(expected.topk(20).indices.tolist()) != first


def test_what_an_epoch_finds_does_not_change_its_own_order():
    sampler, _ = recorded()
    first = order_of(sampler, 1)
    sampler.record(first, [9.0 - number / 9 for number in range(len(first))])
    assert order_of(sampler, 1) == first


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_epoch_goes_on_in_the_same_order_and_so_does_the_next(epoch):
    def run(interrupted):
        sampler, orders = HardExampleSampler(31, 0.4), []
        for number in range(4):
            order = order_of(sampler, number, seed=number)
            losses = [((row + 3) * (number + 5)) % 17 / 17 for row in order]
            sampler.record(order[:12], losses[:12])
            if interrupted and number == epoch:
                state = {name: value.clone() for name, value in sampler.state().items()}
                sampler = HardExampleSampler(31, 0.4)
                sampler.load_state(state)
                assert order_of(sampler, number, seed=number) == order
            sampler.record(order[12:], losses[12:])
            orders.append(order)
        return orders

    assert run(True) == run(False)


def test_rows_that_were_left_out_come_first():
    sampler = HardExampleSampler(10, 0.3)
    order = order_of(sampler, 0)
    sampler.record(order[:8], [1.0] * 8)
    assert set(order[8:]) <= set(order_of(sampler, 1))


def test_a_batch_knows_its_rows():
    rows = [{"value": 10 * number} for number in range(12)]
    sampler = ProcessBatchSampler(HardExampleSampler(12, 0.5), 5, seed=0, process_index=0, num_processes=1)

    def collate(rows):
        return {"value": torch.tensor([row["value"] for row in rows])}

    loader = DataLoader(NumberedRows(rows), batch_sampler=sampler, collate_fn=NumberedCollator(collate))
    batches = list(loader)
    assert all(torch.equal(batch["value"], 10 * batch[ROW_NUMBERS]) for batch in batches)
    assert sorted(torch.cat([batch[ROW_NUMBERS] for batch in batches]).tolist()) == list(range(12))
