# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification

from hf_deepclean.evaluation.predictions import predict_examples
from hf_deepclean.models.heads import find_likelihood, num_classes
from tests import heads, tiny


ONE_HOT = torch.eye(tiny.NUM_LABELS, dtype=torch.long)
MULTI = {"problem_type": "multi_label_classification"}


def batch_with(labels=None, **others):
    batch = tiny.text_batch()
    return batch | {"labels": batch["labels"] if labels is None else labels(batch["labels"])} | others


def tokens():
    return BertForTokenClassification(tiny.bert().config)


CASES = {
    "lists of one": (tiny.bert, batch_with(lambda y: y[:, None]), r"lists of one \(shape \(11, 1\)\).*\[0\]"),
    "one-hot": (tiny.bert, batch_with(lambda y: ONE_HOT[y]), "a value for each of the 4 classes.*`argmax`"),
    "several values": (tiny.bert, batch_with(lambda y: y[:, None].expand(-1, 3)), r"labels have shape \(11, 3\)"),
    "fractions": (tiny.bert, batch_with(lambda y: y.float()), "dtype torch.float32.*`dataset.cast_column"),
    "whole numbers": (lambda: tiny.bert(num_labels=1), batch_with(), "is a regression.*log_likelihood_func=lambda"),
    "numbers": (lambda: tiny.bert(num_labels=1), batch_with(lambda y: y / 2), "is a regression"),
    "several labels": (lambda: tiny.bert(**MULTI), batch_with(lambda y: ONE_HOT[y].float()), "gives several labels"),
    "several integers": (lambda: tiny.bert(**MULTI), batch_with(lambda y: ONE_HOT[y]), "gives several labels"),
    "too few labels": (tiny.bert, batch_with(lambda y: y[:3]), "3 labels for 11 examples"),
    "classes for tokens": (tokens, batch_with(), "scores every token, and the labels have one value per row"),
    "classes for a language model": (heads.gpt2, batch_with(), "scores every token"),
    "labels of words": (tokens, batch_with(lambda y: y[:, None].expand(-1, 6)), "6 labels for"),
    "no tokens": (tiny.bert, {"labels": torch.zeros(2, dtype=torch.long)}, "has no `input_ids`.*only labels"),
    "no images": (tiny.vit, tiny.text_batch(), r"has no `pixel_values`.*\['attention_mask', 'input_ids'\]"),
    "unknown tokens": (tiny.bert, batch_with(input_ids=torch.full((11, 8), 50)), "88 token ids .* 0 to 49"),
    "negative tokens": (tiny.bert, batch_with(input_ids=torch.full((11, 8), -1)), "88 token ids lie outside"),
    "fractions of tokens": (
        tiny.bert,
        batch_with(input_ids=torch.ones(11, 8)),
        "`input_ids` have dtype torch.float32",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_model_cannot_take_is_refused_by_its_own_cause_and_remedy(case):
    make_model, batch, message = CASES[case]
    with pytest.raises(ValueError, match=message) as error:
        predict_examples(make_model(), [batch])
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("cast", [torch.Tensor.bool, torch.Tensor.int, torch.Tensor.byte])
def test_classes_of_any_whole_type_are_classes(cast):
    model, batch = tiny.randomized(tiny.bert(num_labels=2)), batch_with(lambda y: y % 2)
    found = predict_examples(model, [batch | {"labels": cast(batch["labels"])}])
    expected = predict_examples(model, [batch])
    assert np.array_equal(found.log_likelihood, expected.log_likelihood)
    assert np.array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("case", ["whole numbers", "several integers"])
def test_the_likelihood_that_a_message_advises_is_that_of_the_head_up_to_a_constant(case):
    make_model, batch, _ = CASES[case]
    model = tiny.randomized(make_model())
    assert num_classes(model) is None
    with pytest.raises(ValueError) as error:
        predict_examples(model, [batch])
    function = eval(re.search(r"`log_likelihood_func=(lambda .*)`", str(error.value)).group(1), {"torch": torch})
    loss = -predict_examples(model, [batch], function).log_likelihood.mean()
    own = model(**{**batch, "labels": batch["labels"].double()}).loss.item()
    assert loss == pytest.approx(own / 2 if case == "whole numbers" else own * tiny.NUM_LABELS)


@pytest.mark.parametrize("returned", [None, (1, 2), np.zeros(11), torch.zeros(()), torch.zeros(3)])
def test_logits_for_metrics_have_a_row_per_example(returned):
    with pytest.raises(ValueError, match="`preprocess_logits_for_metrics` returned .* for 11 examples"):
        predict_examples(tiny.bert(), [tiny.text_batch()], preprocess_logits=lambda logits, labels: returned)


def test_a_model_without_a_head_is_named_as_such():
    with pytest.raises(ValueError, match="as those of a model without a head do. Load it with the auto class"):
        find_likelihood(tiny.bert().bert, tiny.text_batch())
