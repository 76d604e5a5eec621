# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from itertools import cycle

import pytest
import torch

from hf_deepclean.evaluation.relearning import evaluated_steps, relearning_curve

from .. import heads, tiny


def names_of(model):
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("num_steps", "steps"), [(1, (0, 1)), (2, (0, 1, 2)), (5, (0, 1, 2, 4, 5)), (8, (0, 1, 2, 4, 8))]
)
def test_it_is_evaluated_before_after_powers_of_two_and_in_the_end(num_steps, steps):
    assert evaluated_steps(num_steps) == steps
    model, batches = tiny.randomized(tiny.vit()), tiny.in_batches(tiny.image_batch(), 3)
    seen = relearning_curve(model, names_of(model), cycle(batches), lambda copy: copy, num_steps, 1e-3)
    assert len(seen) == len(steps)


def test_every_step_is_one_of_plain_adamw_on_the_mean_over_the_examples():
    model, batches = tiny.randomized(tiny.vit()), tiny.in_batches(tiny.image_batch(), 3)

    def weights(copy):
        return [parameter.detach().clone() for parameter in copy.parameters()]

    curve = relearning_curve(model, names_of(model), cycle(batches), weights, 6, 1e-2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    expected = [weights(model)]
    for step, batch in zip(range(1, 7), cycle(batches), strict=False):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        expected += [weights(model)] if step in (1, 2, 4, 6) else []
    for ours, theirs in zip(curve, expected, strict=True):
        assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("make_model", [lambda: tiny.vit(hidden_dropout_prob=0.2), tiny.resnet])
def test_the_model_stays_as_it_was_and_only_the_named_parameters_of_the_copy_are_trained(make_model):
    model = tiny.randomized(make_model(), torch.float32)
    batches = tiny.in_batches(tiny.image_batch(dtype=torch.float32), 4)
    next(model.parameters()).requires_grad_(False)
    model.get_parameter(names_of(model)[-1]).grad = torch.ones_like(model.get_parameter(names_of(model)[-1]))
    before = tiny.parameters_and_buffers(model)
    flags = [(p.requires_grad, p.grad) for p in model.parameters()], [m.training for m in model.modules()]
    named = names_of(model)[::2]
    first, *_, last = relearning_curve(model, named, cycle(batches), tiny.parameters_and_buffers, 4, 1e-2)
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert flags == ([(p.requires_grad, p.grad) for p in model.parameters()], [m.training for m in model.modules()])
    assert all(torch.equal(value, before[name]) for name, value in first.items())
    assert {name for name, value in last.items() if not torch.equal(value, before[name])} == set(named)


def test_steps_too_small_for_half_precision_add_up():
    model = tiny.randomized(heads.gpt2(), torch.bfloat16)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(1.0)
    # Less than half of what lies between 1 and its neighbours.
    norms = relearning_curve(
        model,
        ["transformer.ln_f.weight"],
        cycle([heads.text("next")]),
        lambda copy: copy.transformer.ln_f.weight.detach().clone(),
        16,
        5e-4,
    )
    assert torch.equal(norms[0], norms[1])
    assert (norms[0] != norms[-1]).float().mean() > 0.5


def test_the_curve_ends_where_the_likelihoods_are_no_numbers(caplog):
    model = tiny.randomized(tiny.vit(), torch.float32)
    batches = tiny.in_batches(tiny.image_batch(dtype=torch.float32), 4)
    assert len(relearning_curve(model, names_of(model), cycle(batches), id, 8, 1e30)) < 5
    assert "the learning rate 1e+30 is too high" in caplog.text


def test_a_language_model_learns_its_texts():
    model, batch = tiny.randomized(heads.gpt2(), torch.float32), heads.text("next")

    def loss(copy):
        copy.eval()
        with torch.no_grad():
            return copy(**batch).loss.item()

    curve = relearning_curve(model, names_of(model), cycle([batch]), loss, 20, 1e-2)
    assert curve[-1] < 0.5 * curve[0]
    assert model.config.use_cache
