# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The sum of squares of every form of per-example gradients is that of its examples, for any range of examples."""

import pytest
import torch

from hf_deepclean.fisher.engine.gradients import (
    ConvolutionGradient,
    DerivedGradient,
    EmbeddingGradient,
    LinearGradient,
    OpGradient,
    PartGradient,
    PatchGradient,
    RaggedLinearGradient,
    StackedGradient,
    TiedGradient,
    summed,
)


SIZE, TOKENS = 5, 6


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def derived():
    parameter = normal(4, 3).requires_grad_()
    return DerivedGradient(StackedGradient(normal(SIZE, 3, 2)), (parameter.exp()[:2].T), parameter)


LINEAR = LinearGradient(normal(SIZE, TOKENS, 4), normal(SIZE, TOKENS, 3))
INDICES = torch.tensor([[0, 1, 1, 3, 0, 2]]).repeat(SIZE, 1)
FORMS = {
    "stacked": ((4, 3), StackedGradient(normal(SIZE, 4, 3))),
    "linear": ((4, 3), LINEAR),
    "linear_of_one_token": ((4, 3), LinearGradient(normal(SIZE, 1, 4), normal(SIZE, 1, 3))),
    "ragged": ((4, 3), RaggedLinearGradient(normal(9, 4), normal(9, 3), torch.tensor([4, 0, 0, 4, 1, 0, 3, 3, 0]))),
    "patch": ((4, 3, 1), PatchGradient(LINEAR)),
    "convolution": ((4, 3, 2), ConvolutionGradient(normal(SIZE, 4, 5), normal(SIZE, 3, 6), normal(4, 3, 2), 1,
                                                   [1], [0], [1], False, [0], 1)),
    "embedding": ((4, 3), EmbeddingGradient(INDICES, normal(SIZE, TOKENS, 3))),
    "op": ((3,), OpGradient(lambda value, n: value * normal(SIZE, 3)[n], normal(3), lambda n: normal(SIZE, 3)[n])),
    "derived": ((4, 3), derived()),
    "part": ((4, 3), PartGradient(StackedGradient(normal(SIZE, 2, 3)), lambda whole: whole[1:3])),
    "several_linear": ((4, 3), summed([LINEAR, LINEAR])),
    "several_embeddings": ((4, 3), summed([EmbeddingGradient(INDICES, normal(SIZE, TOKENS, 3))] * 2)),
    "several_derived": ((4, 3), summed([derived(), derived()])),
    "several_forms": ((4, 3), summed([LINEAR, EmbeddingGradient(INDICES, normal(SIZE, TOKENS, 3)), derived()])),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("examples", [range(SIZE), range(1, 3), range(4, 5)])
def test_squares_are_those_of_the_examples(name, examples):
    shape, form = FORMS[name]
    start = normal(*shape).square()
    expected, total = start.clone(), start.clone()
    for example in examples:
        gradient = torch.zeros(shape, dtype=torch.float64)
        form.add_example_(gradient, example)
        assert gradient.count_nonzero() > 0 or name == "ragged"
        expected += gradient.square()
    form.add_squares_(total, examples)
    assert torch.allclose(total, expected, rtol=1e-12)


def test_several_uses_are_the_sum_of_the_uses():
    for several, single in (("several_linear", "linear"), ("several_embeddings", "embedding")):
        one, two = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
        FORMS[single][1].add_squares_(one, range(SIZE))
        FORMS[several][1].add_squares_(two, range(SIZE))
        assert torch.allclose(two, 4 * one, rtol=1e-12)


@pytest.mark.parametrize("examples", [range(SIZE), range(1, 3)])
def test_a_tied_head_and_its_embeddings_have_the_square_of_their_sum(examples):
    embeddings = [EmbeddingGradient(indices, normal(SIZE, TOKENS, 3)) for indices in (INDICES, INDICES.flip(1) % 2)]
    expected, total = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    summed([LINEAR, *embeddings]).add_squares_(expected, examples)
    LINEAR.add_squares_(total, examples)
    tied = TiedGradient.of(LINEAR, torch.cat([e.indices for e in embeddings], dim=1), 4, torch.float64)
    tied.add_rest_(total, embeddings, examples)
    assert torch.allclose(total, expected, rtol=1e-12)
