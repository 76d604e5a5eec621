# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.data.batches import num_examples, split_labels


def test_start_and_end_positions_are_stacked():
    batch = {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([[3], [4]]), "x": torch.ones(2, 1)}
    inputs, labels = split_labels(batch)
    assert list(inputs) == ["x"]
    assert labels.tolist() == [[1, 3], [2, 4]]
    assert num_examples(batch) == 2


@pytest.mark.parametrize("keys", [[], ["start_positions"], ["end_positions"]])
def test_a_batch_without_labels_is_refused_by_its_keys(keys):
    with pytest.raises(ValueError, match=r"""start_positions" and "end_positions"\) but has only the keys .*'x'"""):
        split_labels({key: torch.ones(2) for key in [*keys, "x"]})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (None, "the data collator returned a value of type NoneType"),
        ([1], "the data collator returned a value of type list"),
        ({"labels": [0, 1]}, 'must hold a tensor under "labels".* a value of type list'),
        ({"labels": torch.tensor(1)}, "one label per example, and the data collator returned a single one"),
    ],
)
def test_what_is_no_batch_is_refused_as_what_it_is(batch, message):
    with pytest.raises(ValueError, match=message):
        split_labels(batch)
