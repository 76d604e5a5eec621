# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.fisher.engine.layouts import Ragged, Regular, UnknownLayout, layout_of


def examples(*indices):
    """Distinct rows for every example, `(batch_size, num_tokens, width)`."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, generator=generator)[list(indices)]


FORMS = {
    "examples_first": (lambda x: x, Regular(0, 1)),
    "tokens_first": (lambda x: x.transpose(0, 1), Regular(1, 1)),
    "examples_last": (lambda x: x.permute(1, 2, 0), Regular(2, 1)),
    "flattened": (lambda x: x.flatten(0, 1), Regular(0, 4)),
    "flattened_tokens_first": (lambda x: x.transpose(0, 1).flatten(0, 1), Regular(0, 4, interleaved=True)),
    "shared": (lambda x: torch.ones(4, 3), None),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_and_taken_apart(name):
    form, layout = FORMS[name]
    assert layout_of(form(examples(0, 1)).shape, form(examples(0, 1, 0))) == layout
    if layout is not None:
        batch = form(examples(0, 1, 2, 3))
        assert layout.fits(batch, 4) and not layout.fits(batch, 3)
        first = layout.example_first(batch, 4)
        for example in range(4):
            alone = form(examples(example))
            assert torch.equal(layout.example(batch, example), alone)
            assert torch.equal(first[example].reshape(alone.shape), alone)


def test_rows_in_another_order_are_not_taken_for_examples():
    rows = examples(0, 1, 0).flatten(0, 1)
    with pytest.raises(UnknownLayout):
        layout_of(torch.Size([8, 3]), rows[torch.randperm(12, generator=torch.Generator().manual_seed(1))])


@pytest.mark.parametrize(("two", "three"), [((8, 3), (11, 3)), ((2, 2), (3, 3)), ((2, 3), (3, 3, 1))])
def test_shapes_that_do_not_follow_the_batch_are_not_recognised(two, three):
    with pytest.raises(UnknownLayout):
        layout_of(torch.Size(two), torch.zeros(three))


def test_a_sum_per_example_is_that_of_the_example_alone():
    batch = torch.randn(4, 5, 3).double()
    expected = batch.sum(dim=1)
    assert torch.allclose(Regular(0, 1).sum_per_example(batch, 1, 4), expected)
    assert torch.allclose(Regular(0, 5).sum_per_example(batch.flatten(0, 1), 1, 4), expected)
    order = torch.randperm(20)
    ragged = Ragged(torch.arange(4).repeat_interleave(5)[order])
    assert torch.allclose(ragged.sum_per_example(batch.flatten(0, 1)[order], 1, 4), expected)
