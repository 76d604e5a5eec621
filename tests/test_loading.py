# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_deepclean.loading import batches_in_order

from . import tiny


def trainer_for(directory, collator=default_data_collator):
    args = TrainingArguments(str(directory), report_to="none", disable_tqdm=True)
    return Trainer(tiny.vit(num_labels=10), args, collator, train_dataset=tiny.digits())


@pytest.mark.parametrize("kind", ["dataset", "rows", "stream"])
def test_every_example_comes_once_in_order_and_without_unused_columns(tmp_path, kind):
    digits = tiny.digits().select(range(20))
    extended = digits.add_column("unused", ["text"] * 20)
    dataset = {"dataset": extended, "rows": tiny.Rows(list(extended)), "stream": extended.to_iterable_dataset()}[kind]
    batches = list(batches_in_order(trainer_for(tmp_path), dataset, 8, seed=0))
    assert [len(batch["labels"]) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), digits["labels"][:])
    assert all(set(batch) == {"pixel_values", "labels"} for batch in batches)


def test_what_is_random_follows_the_seed_and_leaves_the_random_state_alone(tmp_path):
    def noisy(rows):
        return default_data_collator(rows) | {"noise": torch.rand(len(rows))}

    trainer, dataset = trainer_for(tmp_path, noisy), tiny.digits().select(range(6))
    state = torch.get_rng_state()
    draws = [
        torch.cat([batch["noise"] for batch in batches_in_order(trainer, dataset, 4, seed=seed)]) for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)
