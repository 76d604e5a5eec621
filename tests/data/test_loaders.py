# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import random
from itertools import chain

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.data.streams import is_stream
from tests import tiny
from tests.data.examples import batches_of, rows, sources
from tests.tiny import Rows


def drawing(taken):
    """A collator that draws from every generator there is."""
    return {"x": torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])}


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_every_row_is_in_one_batch_of_one_process_with_its_place(num_processes):
    for size in (2, 3, 4, 11):
        for kind, dataset in sources(size).items():
            shares = [
                batches_of(dataset, process_index=index, num_processes=num_processes) for index in range(num_processes)
            ]
            found = dict(chain.from_iterable(shares))
            assert sum(map(len, shares)) == len(found), kind
            labels = torch.cat([found[place]["labels"] for place in sorted(found)]).tolist()
            assert labels == list(range(size)), kind
            assert [len(found[place]["labels"]) for place in sorted(found)][:-1] == [3] * (len(found) - 1)


def test_what_is_random_in_a_batch_depends_on_its_place_and_the_seed_alone():
    whole = dict(batches_of(Rows(rows(11)), drawing))
    # Every batch draws anew.
    assert len(torch.stack([batch["x"] for batch in whole.values()]).unique()) == 3 * len(whole)
    for kind, dataset in sources(11).items():
        for share in (
            {"process_index": 1, "num_processes": 2},
            {"start": 2},
            {"start": 3, "earlier": {1}},
        ):
            parts = batches_of(dataset, drawing, **share)
            assert parts and all(torch.equal(batch["x"], whole[place]["x"]) for place, batch in parts), kind
    parallel = batches_of(Rows(rows(11)), drawing, num_workers=2)
    assert all(torch.equal(batch["x"], whole[place]["x"]) for place, batch in parallel)
    other = dict(batches_of(Rows(rows(11)), drawing, seed=6))
    assert not any(torch.equal(batch["x"], other[place]["x"]) for place, batch in whole.items())


def test_the_global_random_states_are_left_alone():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    for dataset in sources(5).values():
        batches_of(dataset, drawing)
        assert states() == before


def test_a_resumed_pass_gets_the_batches_from_there_and_the_earlier_ones_it_asks_for():
    for dataset in sources(11).values():
        assert [place for place, _ in batches_of(dataset, start=2)] == [2, 3]
        assert [place for place, _ in batches_of(dataset, start=3, earlier={0})] == [0, 3]
        assert [place for place, _ in batches_of(dataset, start=4)] == []


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    args = TrainingArguments(str(tmp_path_factory.mktemp("run")), report_to="none", disable_tqdm=True, seed=9)
    return Trainer(tiny.vit(num_labels=10), args, train_dataset=tiny.digits())


@pytest.mark.parametrize("kind", ["dataset", "rows", "stream"])
def test_a_trainers_batches_have_every_example_once_and_no_unused_columns(trainer, kind):
    digits = tiny.digits().select(range(20))
    extended = digits.add_column("unused", ["text"] * 20)
    dataset = {"dataset": extended, "rows": Rows(list(extended)), "stream": extended.to_iterable_dataset()}[kind]
    batches = [batch for _, batch in BatchSource(trainer).batches(dataset, 8)]
    assert [len(batch["labels"]) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), digits["labels"][:])
    assert all(set(batch) == {"pixel_values", "labels"} for batch in batches)


@pytest.mark.parametrize("kind", ["rows", "stream of rows"])
def test_a_source_draws_by_the_trainers_seed_unless_it_is_given_another(trainer, monkeypatch, kind):
    dataset, source = sources(11)[kind], BatchSource(trainer, drawing)

    def draws(**kwargs):
        return {place: batch["x"].tolist() for place, batch in source.batches(dataset, 3, **kwargs)}

    first = draws()
    assert draws() == draws(seed=9) == first and len(first) == 4
    assert draws(start=3, earlier={1}) == {place: first[place] for place in (1, 3)}
    monkeypatch.setattr(trainer.args, "seed", 10)
    assert draws() == draws(seed=10) != first


def test_a_source_uses_the_trainers_present_collator_and_workers_unless_it_has_its_own(trainer, monkeypatch):
    source, dataset = BatchSource(trainer), Rows(rows(4))

    def naming(name):
        # Returns the collator's name, and whether it runs in a worker.
        return lambda taken: (name, torch.utils.data.get_worker_info() is not None)

    monkeypatch.setattr(trainer, "data_collator", naming("trainer's"))
    assert dict(source.batches(dataset, 2)) == dict.fromkeys(range(2), ("trainer's", False))
    monkeypatch.setattr(trainer, "data_collator", naming("later"))
    monkeypatch.setattr(trainer.args, "dataloader_num_workers", 1)
    assert dict(source.batches(dataset, 2)) == dict.fromkeys(range(2), ("later", True))
    own = dataclasses.replace(source, collator=naming("own"), num_workers=0)
    assert dict(own.batches(dataset, 2)) == dict.fromkeys(range(2), ("own", False))
    assert dict(source.batches(dataset, 2)) == dict.fromkeys(range(2), ("later", True))


def test_a_source_gives_rows_or_a_collator_without_the_columns_that_the_model_does_not_take(trainer):
    extended = tiny.digits().select(range(3)).add_column("unused", ["text"] * 3)
    source = BatchSource(trainer, collator := lambda taken: sorted(taken[0]))
    kept, same = source.rows_and_collator(extended, "training")
    assert same is collator and set(kept.column_names) == {"pixel_values", "labels"}
    kept, narrowing = source.rows_and_collator(listed := Rows(list(extended)), "training")
    assert kept is listed and narrowing([listed[0]]) == ["labels", "pixel_values"]
    assert BatchSource(trainer).rows_and_collator(extended, None)[1] is trainer.data_collator


@pytest.mark.parametrize("kind", ["data set", "rows"])
def test_a_sample_has_the_rows_that_the_seed_draws_in_their_order(trainer, kind):
    dataset, source = sources(20)[kind], BatchSource(trainer)
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(9))[:6].tolist()
    sample = source.sample(dataset, 6)
    assert [row["label"] for row in sample] == sorted(drawn)
    assert [row["label"] for row in source.sample(dataset, 6)] == sorted(drawn)
    assert source.sample(dataset, 20) is dataset and source.sample(dataset, 21) is dataset


@pytest.mark.parametrize("kind", ["stream of rows", "streamed data set"])
def test_a_sample_of_a_stream_has_its_first_rows(trainer, kind):
    sample = BatchSource(trainer).sample(sources(20)[kind], 6)
    assert is_stream(sample) and [row["label"] for row in sample] == list(range(6))
    assert [row["label"] for row in BatchSource(trainer).sample(sources(3)[kind], 6)] == [0, 1, 2]
