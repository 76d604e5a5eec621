# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from itertools import cycle

import pytest
import torch

from hf_deepclean import relearning_excess, steps_to_reach
from hf_deepclean.evaluation.relearning import evaluated_steps, relearning_curve
from tests import heads, tiny


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
    # Less than half of the distance between 1 and the next number.
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


def test_the_excess_is_the_largest_difference_of_the_movements():
    assert relearning_excess([0.5, 0.6, 0.9, 0.8], [0.7, 0.7, 0.75, 0.8]) == pytest.approx(0.4 - 0.05)
    assert relearning_excess([0.2, 0.25], [0.9, 1.0]) == 0
    assert relearning_excess([0.5, 0.4], [0.5, 0.3]) == pytest.approx(0.1)


def test_no_model_relearns_more_than_itself_and_only_movements_count():
    curve = [0.1, 0.4, 0.3]
    assert relearning_excess(curve, curve) == 0
    assert relearning_excess(curve, [0.3, 0.3, 0.3]) == pytest.approx(0.3)
    assert relearning_excess(curve, [0.8, 0.8, 0.8]) == pytest.approx(0.3)


def test_a_curve_that_ended_early_is_compared_as_far_as_it_goes():
    assert relearning_excess([0.1, 0.2], [0.1, 0.1, 0.0]) == pytest.approx(0.1)


def test_the_steps_are_those_of_the_first_value_at_the_level():
    assert steps_to_reach([0.1, 0.5, 0.4, 0.9], (0, 1, 2, 4), 0.5) == 1
    assert steps_to_reach([0.1, 0.5, 0.4, 0.9], (0, 1, 2, 4), 0.6) == 4
    assert steps_to_reach([0.1, 0.5], (0, 1, 2, 4), 0.6) is None
    assert steps_to_reach([0.7], (0, 1), 0.6) == 0


@pytest.mark.parametrize("wrong", [[], [0.1, float("nan")]])
def test_curves_without_numbers_are_refused(wrong):
    for call in (lambda: relearning_excess(wrong, [0.1]), lambda: relearning_excess([0.1], wrong)):
        with pytest.raises(ValueError, match="number for every evaluated step"):
            call()
    with pytest.raises(ValueError, match="number for every evaluated step"):
        steps_to_reach(wrong, (0, 1), 0.5)


def test_a_curve_with_more_values_than_steps_is_refused():
    with pytest.raises(ValueError, match="3 values"):
        steps_to_reach([0.1, 0.2, 0.3], (0, 1), 0.5)


def test_a_model_that_was_only_scrambled_relearns_more_than_one_that_never_learned():
    batches = tiny.in_batches(tiny.image_batch(), 11)
    model = tiny.randomized(tiny.vit())

    def confidence(copy):
        copy.eval()
        with torch.no_grad():
            return -copy(**batches[0]).loss.item()

    trained = relearning_curve(model, names_of(model), cycle(batches), lambda copy: copy, 40, 5e-3)[-1]
    with torch.no_grad():
        trained.classifier.bias += torch.tensor([4.0, -4.0, 0.0, 0.0])
    curves = [
        relearning_curve(one, ["classifier.bias"], cycle(batches), confidence, 16, 0.3) for one in (trained, model)
    ]
    assert relearning_excess(*curves) > 0.5
    assert steps_to_reach(curves[0], evaluated_steps(16), curves[1][-1]) is not None
