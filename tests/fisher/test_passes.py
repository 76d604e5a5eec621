# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_deepclean import accumulate_fisher_diagonal, parameters_in_scope
from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.fisher.passes import FisherPass
from tests import tiny


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny.vit(num_labels=10)


@pytest.fixture(scope="module")
def source(model, tmp_path_factory):
    arguments = TrainingArguments(str(tmp_path_factory.mktemp("trainer")), report_to="none", disable_tqdm=True, seed=3)
    return BatchSource(Trainer(model, arguments, train_dataset=tiny.digits()))


def of_rows(model, rows, size, **kwargs):
    batches = (rows.select(range(start, min(start + size, len(rows)))) for start in range(0, len(rows), size))
    return accumulate_fisher_diagonal(model, [default_data_collator(list(batch)) for batch in batches], **kwargs)


def assert_same_bits(fisher, other):
    assert (fisher.num_examples, fisher.fisher_type) == (other.num_examples, other.fisher_type)
    assert fisher.sums.keys() == other.sums.keys()
    assert all(torch.equal(total, other.sums[name]) for name, total in fisher.sums.items())


def test_every_example_counts_once_in_the_order_of_the_data_set(model, source):
    rows = tiny.digits().select(range(20))
    fisher_pass = FisherPass(source, 8, fisher_type="sampled", seed=5)
    fisher = fisher_pass.compute(model, parameters_in_scope(model), rows)
    assert_same_bits(fisher, of_rows(model, rows, 8, fisher_type="sampled", seed=5))


def test_only_the_parameters_asked_for_have_a_fisher(model, source):
    parameters = parameters_in_scope(model, target_modules=["classifier"])
    fisher = FisherPass(source, 8).compute(model, parameters, tiny.digits().select(range(5)))
    assert list(fisher.sums) == ["classifier.weight", "classifier.bias"]


def test_a_limit_draws_the_sample_of_the_source(model, source):
    rows = tiny.digits().select(range(20))
    limited = FisherPass(source, 8, max_examples=6)
    fisher = limited.compute(model, parameters_in_scope(model), rows)
    drawn = rows.select(source.sample(rows, 6).indices)
    assert fisher.num_examples == 6 and drawn["labels"] != rows["labels"][:6]
    assert_same_bits(fisher, of_rows(model, drawn, 8))
    whole = FisherPass(source, 8, max_examples=20).compute(model, parameters_in_scope(model), rows)
    assert_same_bits(whole, of_rows(model, rows, 8))


def test_of_a_stream_the_first_rows_are_taken(model, source):
    rows = tiny.digits().select(range(20))
    fisher = FisherPass(source, 8, max_examples=6).compute(
        model, parameters_in_scope(model), rows.to_iterable_dataset()
    )
    assert_same_bits(fisher, of_rows(model, rows.select(range(6)), 8))
