# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch.func import functional_call, hessian
from torch.nn import functional as F

from hf_deepclean import FirstOrderInfluence, SecondOrderInfluence
from hf_deepclean.baselines.influence import lissa
from tests import heads, tiny
from tests.baselines import forgetting


CASES = {
    "vit": (tiny.vit, forgetting.images),
    "resnet": (tiny.resnet, forgetting.images),
    "gpt2": (heads.gpt2, forgetting.texts),
}


def relabelled(data):
    rows = [{**row, "labels": (row["labels"] + 1) % tiny.NUM_LABELS} for row in data.forget_dataset.rows]
    return tiny.Rows(rows)


def difference(model, data, corrected):
    """The summed gradients of the corrected minus those of the forget rows, one example at a time."""
    parameters = forgetting.parameters_of(model)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    signed = [(row, -1) for row in data.forget_dataset.rows] + [(row, 1) for row in corrected.rows]
    for row, sign in signed:
        loss = forgetting.negative_log_likelihood(model, forgetting.collate([row]))
        for name, gradient in forgetting.gradients(loss, parameters).items():
            sums[name] += sign * gradient
    return sums


@pytest.mark.parametrize("case", CASES)
def test_the_first_order_step_follows_the_sum_of_forget_gradients(case):
    make_model, make_data = CASES[case]
    model, data = forgetting.seeded(make_model), make_data()
    step = difference(model, data, tiny.Rows([]))
    expected = {name: parameter - 0.03 * step[name] for name, parameter in model.named_parameters()}
    FirstOrderInfluence(0.03, per_device_batch_size=3).unlearn(model, data)
    forgetting.assert_close(dict(model.named_parameters()), expected)


def test_corrected_rows_take_the_place_of_the_forget_data():
    model, data = forgetting.seeded(tiny.vit), forgetting.images()
    step = difference(model, data, relabelled(data))
    expected = {name: parameter - 0.03 * step[name] for name, parameter in model.named_parameters()}
    same = copy.deepcopy(model)
    FirstOrderInfluence(0.03, relabelled(data)).unlearn(model, data)
    forgetting.assert_close(dict(model.named_parameters()), expected)
    before = tiny.parameters_and_buffers(same)
    FirstOrderInfluence(0.03, data.forget_dataset).unlearn(same, data)
    forgetting.assert_close(dict(same.named_parameters()), {name: before[name] for name in expected}, atol=1e-12)


def only(model, *names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def full_hessian(model, batch, names):
    """The Hessian matrix of the summed losses, by functional differentiation."""
    parameters = {name: model.get_parameter(name).detach() for name in names}

    def loss(values):
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        logits = functional_call(model, values, kwargs=inputs).logits
        return F.cross_entropy(logits, batch["labels"], reduction="sum")

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        blocks = hessian(loss)(parameters)
    sizes = {name: parameter.numel() for name, parameter in parameters.items()}
    rows = [torch.cat([blocks[a][b].reshape(sizes[a], sizes[b]) for b in names], dim=1) for a in names]
    return torch.cat(rows)


@pytest.mark.parametrize("with_correction", [False, True])
@pytest.mark.parametrize("case", ["vit", "resnet"])
def test_the_second_order_step_solves_with_the_damped_hessian_of_what_remains(case, with_correction):
    make_model, make_data = CASES[case]
    data = make_data()
    names = ["classifier.weight", "classifier.bias"] if case == "vit" else ["classifier.1.weight", "classifier.1.bias"]
    names.append(next(name for name, _ in make_model().named_parameters() if name.endswith("layernorm_after.bias")
                      or name.endswith("embedder.normalization.bias")))  # fmt: skip
    model = only(forgetting.seeded(make_model), *names)
    names = list(forgetting.parameters_of(model))
    corrected = relabelled(data) if with_correction else None
    remaining = (corrected.rows if corrected else []) + data.retain_dataset.rows
    matrix = full_hessian(model, forgetting.collate(remaining), names)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    scale = 1.1 * float(eigenvalues.max())
    damping = float(max(0.4, -2 * eigenvalues.min() / scale))
    step = difference(model, data, corrected or tiny.Rows([]))
    flat = torch.cat([step[name].flatten() for name in names])
    solved = torch.linalg.solve(matrix + damping * scale * torch.eye(len(matrix), dtype=matrix.dtype), flat)
    before = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    SecondOrderInfluence(
        scale, damping, max_iterations=60, corrected_dataset=corrected, per_device_batch_size=8
    ).unlearn(model, data)
    after = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    torch.testing.assert_close(after, before - solved, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("case", ["gpt2", "vit"])
def test_products_with_the_hessian_are_differences_of_gradients(case):
    """One iteration of LiSSA from `u = D` needs one product, which central differences also give."""
    make_model, make_data = CASES[case]
    model, data = forgetting.seeded(make_model), make_data()
    step, scale, damping, size = difference(model, data, tiny.Rows([])), 50.0, 0.1, 1e-5
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter += sign * size * step[name]
        loss = sum(forgetting.negative_log_likelihood(moved, batch) for batch in forgetting.examples(data, "retain"))
        ends.append(forgetting.gradients(loss, forgetting.parameters_of(moved)))
    expected = {}
    for name, parameter in model.named_parameters():
        product = (ends[0][name] - ends[1][name]) / (2 * size)
        expected[name] = parameter - (step[name] + (1 - damping) * step[name] - product / scale) / scale
    SecondOrderInfluence(scale, damping, max_iterations=1).unlearn(model, data)
    forgetting.assert_close(dict(model.named_parameters()), expected, rtol=1e-5, atol=1e-6)


def test_a_convex_problem_comes_close_to_its_optimum_without_the_forgotten():
    """Trains the head on fixed features to convergence, with a penalty that takes the place of the damping."""
    data, penalty = forgetting.images(num_forget=3, size=60), 10.0
    names = ["classifier.weight", "classifier.bias"]
    start = only(forgetting.seeded(tiny.vit), *names)

    def optimum(split):
        model = copy.deepcopy(start)
        weights = [model.get_parameter(name) for name in names]
        optimizer = torch.optim.LBFGS(
            weights, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )
        batch = next(iter(data.batches(split, 100)))

        def closure():
            optimizer.zero_grad()
            loss = forgetting.negative_log_likelihood(model, batch)
            loss = loss + penalty / 2 * sum(weight.square().sum() for weight in weights)
            loss.backward()
            return loss

        optimizer.step(closure)
        model.zero_grad()
        return model

    def flat(model):
        return torch.cat([model.get_parameter(name).detach().flatten() for name in names])

    trained, retrained = optimum("all"), optimum("retain")
    distance = (flat(trained) - flat(retrained)).norm()
    second, first = copy.deepcopy(trained), copy.deepcopy(trained)
    SecondOrderInfluence(scale=200.0, damping=penalty / 200.0, max_iterations=80).unlearn(second, data)
    assert (flat(second) - flat(retrained)).norm() < 0.1 * distance
    FirstOrderInfluence(1e-3).unlearn(first, data)
    assert (flat(second) - flat(retrained)).norm() < (flat(first) - flat(retrained)).norm() < distance


def test_lissa_solves_linear_systems_in_float64():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T
    vector, scale, damping = torch.arange(12, dtype=torch.float64), 1.5 * float(matrix.trace()), 0.01
    found = lissa(lambda v: [matrix @ v[0]], [vector], scale, damping, 20_000, 100)[0]
    expected = torch.linalg.solve(matrix / scale + damping * torch.eye(12, dtype=torch.float64), vector)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "method",
    [
        FirstOrderInfluence(1e-3),
        SecondOrderInfluence(scale=1e4, damping=0.1, hessian_batch_size=3, max_iterations=8, per_device_batch_size=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_nothing_but_trainable_weights_changes(method, case):
    forgetting.assert_contract(method, CASES[case][0], CASES[case][1]())


def test_a_scale_that_is_too_small_is_told_and_leaves_the_model_as_it_was():
    model, data = forgetting.seeded(tiny.vit), forgetting.images()
    before = tiny.parameters_and_buffers(model)
    with pytest.raises(ValueError, match="LiSSA does not converge at the scale 0.01"):
        SecondOrderInfluence(scale=0.01).unlearn(model, data)
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (FirstOrderInfluence, {"unlearning_rate": 0.0}, "`unlearning_rate` of .* must be above 0"),
        (SecondOrderInfluence, {"scale": -1.0}, "`scale` of .* must be above 0"),
        (SecondOrderInfluence, {"damping": 1.0}, "`damping` is 1.0 but must be at least 0"),
        (SecondOrderInfluence, {"max_iterations": 0}, "`max_iterations` of .* must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(**values)
