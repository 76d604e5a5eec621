# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from datasets import Dataset
from torch.utils.data import Subset

from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.evaluation.results import summarize_predictions
from hf_deepclean.evaluation.samples import MAX_EVALUATED_EXAMPLES, drawn_rows, rows_to_evaluate, sample_size
from tests.attacks.simulated_runs import answers, draw


@pytest.mark.parametrize(
    ("split", "number", "size"),
    [("forget", 49, 49), ("forget", 50, 50), ("forget", 700, 50), ("retain", 199, 50), ("unseen", 5000, 200)],
)
def test_a_fixed_number_of_rows_is_drawn_from_any_number_that_is_enough(split, number, size):
    assert sample_size(split, number) == size
    rows = drawn_rows(split, answers([np.zeros(1)] * number, is_text=False))
    assert len(set(rows.tolist())) == len(rows) == size and rows.max() < number


@pytest.mark.parametrize("is_text", [False, True])
def test_the_sample_of_a_stage_and_of_its_requests_is_the_result_of_the_drawn_rows(is_text):
    generator = np.random.default_rng(0)
    predictions = {
        split: answers(draw(number, 1.0, is_text, generator), is_text)
        for split, number in {"forget": 130, "retain": 90, "unseen": 210, "eval": 60}.items()
    }
    first, second = range(70), range(70, 130)
    evaluator = Evaluator(None, {"forget": range(130)}, 1, requests={"a": first, "b": second})
    result = evaluator._summarize(predictions)
    assert result.sample.splits.keys() == {"forget", "retain", "unseen"}
    for split, found in result.sample.splits.items():
        drawn = predictions[split].select(drawn_rows(split, predictions[split]))
        assert found == summarize_predictions(drawn)
    assert (result.sample.membership.num_forget, result.sample.membership.num_unseen) == (50, 200)
    published = result.of_request("b").of_sample()
    of_request = predictions["forget"].select(second)
    drawn = of_request.select(drawn_rows("forget", of_request))
    assert published.splits["forget"] == summarize_predictions(drawn)
    assert published.splits["retain"] == result.sample.splits["retain"]
    assert published.splits["eval"] == result.splits["eval"]
    assert published.membership.num_forget == 50


def test_rows_without_scored_tokens_are_not_drawn():
    rows = [np.ones(int(length)) for length in np.random.default_rng(0).integers(0, 2, 300)]
    drawn = drawn_rows("forget", answers(rows, is_text=True))
    assert len(drawn) == 50 and all(len(rows[row]) for row in drawn)


def test_a_large_retain_set_is_evaluated_on_a_fixed_sample_with_every_class_to_forget():
    labels = np.random.default_rng(0).integers(0, 5, 9000)
    # The first is in a random sample of 2,000 hardly ever, and the second is not retained.
    labels[4000] = 7
    retain, forget = Dataset.from_dict({"label": labels}), Dataset.from_dict({"label": [7, 8, 1]})
    sample = rows_to_evaluate(retain, forget)
    rows = np.array(sample.indices)
    assert len(sample) == MAX_EVALUATED_EXAMPLES == len(set(sample.indices)) and list(rows) == sorted(rows)
    assert set(labels[rows]) == {0, 1, 2, 3, 4, 7}
    assert rows_to_evaluate(retain, forget).indices == sample.indices
    shares = np.bincount(labels[rows], minlength=8)[:5] / len(rows)
    assert np.abs(shares - 0.2).max() < 0.03


def test_what_is_small_or_does_not_tell_its_classes_is_evaluated_whole():
    forget, many = Dataset.from_dict({"text": ["a"]}), Dataset.from_dict({"text": ["b"] * 2001})
    assert len(rows_to_evaluate(many, forget)) == 2000
    for retain in (
        many.select(range(2000)),
        many.to_iterable_dataset(),
        Subset(many, range(2001)),
        many.with_transform(lambda rows: {"labels": rows["text"]}),
    ):
        assert rows_to_evaluate(retain, forget) is retain
