# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from hf_deepclean import AdaptiveDampening, LossFreeDampening, SelectiveSynapticDampening
from tests import heads, tiny
from tests.baselines import forgetting


CASES = {
    "vit": (tiny.vit, forgetting.images),
    "resnet": (tiny.resnet, forgetting.images),
    "gpt2": (heads.gpt2, forgetting.texts),
}


def fisher(model, data, split):
    """The mean Fisher diagonal, one example at a time."""
    parameters = forgetting.parameters_of(model)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for example in forgetting.examples(data, split):
        loss = forgetting.negative_log_likelihood(model, example)
        for name, gradient in forgetting.gradients(loss, parameters).items():
            sums[name] += gradient**2
    return {name: total / data.num_examples(split) for name, total in sums.items()}


def dampened(model, forget, whole, threshold, constant):
    expected = {}
    for name, parameter in forgetting.parameters_of(model).items():
        factor = torch.minimum(torch.ones_like(parameter), constant * whole[name] / forget[name])
        expected[name] = torch.where(forget[name] > threshold * whole[name], factor * parameter, parameter).detach()
    return expected


def assert_dampened(model, before, expected, whole):
    """Compares weights whose importance is more than rounding; key biases under a softmax have no other importance."""
    num_changed, largest = 0, max(float(values.max()) for values in whole.values())
    for name, parameter in forgetting.parameters_of(model).items():
        known = whole[name] > 1e-12 * largest
        num_changed += int((parameter != before[name])[known].sum())
        torch.testing.assert_close(parameter[known].detach(), expected[name][known], rtol=1e-8, atol=1e-12)
    assert num_changed > 10


@pytest.mark.parametrize("case", CASES)
def test_weights_above_the_threshold_shrink_by_the_ratio_of_exact_fishers(case):
    make_model, make_data = CASES[case]
    model, data = forgetting.seeded(make_model), make_data()
    before, whole = tiny.parameters_and_buffers(model), fisher(model, data, "all")
    expected = dampened(model, fisher(model, data, "forget"), whole, 1.5, 0.7)
    SelectiveSynapticDampening(1.5, 0.7, per_device_batch_size=3).unlearn(model, data)
    assert_dampened(model, before, expected, whole)


def test_no_weight_can_exceed_a_threshold_of_one_over_the_share(caplog):
    model, data = forgetting.seeded(tiny.vit), forgetting.images(num_forget=2, size=10)
    before = tiny.parameters_and_buffers(model)
    SelectiveSynapticDampening(selection_weighting=5.0).unlearn(model, data)
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert "the forget data are 20.0% of all" in caplog.text
    assert "Below 5 weights may be selected" in caplog.text


def test_the_adaptive_threshold_is_a_percentile_of_the_ratios():
    model, data = forgetting.seeded(tiny.resnet), forgetting.images()
    before, forget, whole = (
        tiny.parameters_and_buffers(model),
        fisher(model, data, "forget"),
        fisher(model, data, "all"),
    )
    ratios = torch.cat([(forget[name] / whole[name]).flatten() for name in forget])
    ratios = ratios[ratios.isfinite()].numpy()
    percent = math.log(1 + 100 * 4 / 14)
    expected = dampened(model, forget, whole, np.percentile(ratios, 100 - percent), 1.0)
    AdaptiveDampening().unlearn(model, data)
    assert_dampened(model, before, expected, whole)
    num_changed = sum(int((p != before[name]).sum()) for name, p in model.named_parameters())
    assert num_changed == pytest.approx(len(ratios) * percent / 100, rel=0.02)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_without_losses_the_importance_is_the_size_of_a_batch_gradient_of_squared_outputs(case, batch_size):
    make_model, make_data = CASES[case]
    model, data = forgetting.seeded(make_model), make_data()
    parameters, before = forgetting.parameters_of(model), tiny.parameters_and_buffers(model)

    def importance(split):
        sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for batch in data.batches(split, batch_size):
            inputs = dict(batch)
            labels = inputs.pop("labels")
            logits = model(**inputs).logits
            if logits.ndim == 3:
                logits = logits[:, :-1][labels[:, 1:] != -100]
            mean = (logits**2).sum() / len(labels)
            for name, gradient in forgetting.gradients(mean, parameters).items():
                sums[name] += gradient.abs() * len(labels)
        return sums, data.num_examples(split)

    (forget, num_forget), (retain, num_retain) = importance("forget"), importance("retain")
    whole = {name: (forget[name] + retain[name]) / (num_forget + num_retain) for name in forget}
    forget = {name: total / num_forget for name, total in forget.items()}
    expected = dampened(model, forget, whole, 1.2, 1.0)
    LossFreeDampening(1.2, per_device_batch_size=batch_size).unlearn(model, data)
    assert_dampened(model, before, expected, whole)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "method", [SelectiveSynapticDampening(1.2), AdaptiveDampening(), LossFreeDampening(1.2)], ids=lambda m: type(m)
)
def test_nothing_but_trainable_weights_changes(method, case):
    forgetting.assert_contract(method, CASES[case][0], CASES[case][1]())


def test_loss_free_importances_need_logits_of_single_choices():
    data = forgetting.images()
    with_own = type(data)(data.forget_dataset, data.retain_dataset, data.data_collator, lambda o, y: -o.logits[:, 0])
    with pytest.raises(ValueError, match="the probabilities of single choices"):
        LossFreeDampening().unlearn(forgetting.seeded(tiny.vit), with_own)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SelectiveSynapticDampening(selection_weighting=0), "selection_weighting"),
        (lambda: SelectiveSynapticDampening(dampening_constant=-1.0), "dampening_constant"),
        (lambda: AdaptiveDampening(dampening_constant=float("nan")), "dampening_constant"),
        (lambda: LossFreeDampening(per_device_batch_size=0), "per_device_batch_size"),
    ],
)
def test_values_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"`{name}` of .* must be above 0"):
        make()


def test_a_model_without_trainable_parameters_is_refused():
    model = tiny.vit().requires_grad_(False)
    with pytest.raises(ValueError, match="No parameter of this ViTForImageClassification requires gradients"):
        AdaptiveDampening().unlearn(model, forgetting.images())
