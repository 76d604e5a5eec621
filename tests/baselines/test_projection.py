# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_deepclean import ProjectedGradientUnlearning, SubspaceForgetting
from hf_deepclean.baselines.layer_inputs import multiply_inputs, projectable_layers
from tests import heads, tiny
from tests.baselines import forgetting


CASES = {
    "vit": (tiny.vit, forgetting.images),
    "resnet": (tiny.resnet, forgetting.images),
    "gpt2": (heads.gpt2, forgetting.texts),
}


def inputs_of(model, data, split):
    """All inputs of every layer as rows of a numpy array, one example at a time."""
    rows = {name: [] for name, module in model.named_modules() if module in projectable_layers(model).values()}
    hooks, length = [], None
    for name in rows:

        def keep(layer, args, name=name):
            if isinstance(layer, torch.nn.Conv2d):
                patches = F.unfold(args[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride)
                rows[name].append(patches[0].T.detach().numpy())
            else:
                given = args[0][:, :length] if args[0].ndim == 3 and length else args[0]
                rows[name].append(given.detach().flatten(0, -2).numpy())

        hooks.append(model.get_submodule(name).register_forward_pre_hook(keep))
    for example in forgetting.examples(data, split):
        length = int(example["attention_mask"].sum()) if "attention_mask" in example else None
        model(**{key: value for key, value in example.items() if key != "labels"})
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("case", CASES)
def test_steps_go_up_the_forget_loss_outside_of_what_the_retain_inputs_span(case):
    make_model, make_data = CASES[case]
    model, data = forgetting.seeded(make_model), make_data()
    method = ProjectedGradientUnlearning(
        retained_variance=0.8, num_train_epochs=3, per_device_train_batch_size=3, max_accuracy_drop=1.0
    )
    ours = copy.deepcopy(model)
    method.unlearn(ours, data, seed=4)

    whole, forget = inputs_of(model, data, "all"), inputs_of(model, data, "forget")
    projections = {}
    for name in whole:
        covariance = whole[name].T @ whole[name] - forget[name].T @ forget[name]
        vectors, values, _ = np.linalg.svd(covariance)
        shares = np.cumsum(np.sqrt(values)) / np.sqrt(values).sum()
        rank = int((shares <= 0.8).sum()) + 1
        projections[name] = torch.from_numpy(vectors[:, :rank] @ vectors[:, :rank].T)
    for epoch in range(3):
        for batch in data.batches("forget", 3, seed=4 + epoch):
            inputs = dict(batch)
            labels = inputs.pop("labels")
            logits = model(**inputs).logits
            if logits.ndim == 3:
                logits, labels = logits[:, :-1][labels[:, 1:] != -100], labels[:, 1:][labels[:, 1:] != -100]
            probabilities = torch.softmax(logits, dim=-1)
            loss = 0.0
            for row, label in zip(probabilities, labels, strict=True):
                loss = loss - torch.log(1 - (row[label] - 0.05)) - 0.2 * -(row * row.log()).sum()
            weights = {name: model.get_submodule(name).weight for name in projections}
            gradients = forgetting.gradients(loss / len(labels), weights)
            with torch.no_grad():
                for name, gradient in gradients.items():
                    projected = multiply_inputs(model.get_submodule(name), gradient, projections[name])
                    weights[name] -= 0.1 * (0.01 / 0.1) ** (epoch / 3) * (gradient - projected)
    forgetting.assert_close(dict(ours.named_parameters()), dict(model.named_parameters()), rtol=1e-6, atol=1e-9)


def test_it_ends_after_the_epoch_that_costs_too_much_accuracy(monkeypatch):
    data, weights = forgetting.images(size=20), []
    accuracies = iter([0.9, 0.88, 0.86, 0.84, 0.5])

    def retain_accuracy(self, model, *args):
        weights.append(model.classifier.weight.detach().clone())
        return next(accuracies)

    model = forgetting.seeded(tiny.vit)
    method = ProjectedGradientUnlearning(retained_variance=0.5)
    assert method._retain_accuracy(model, data, 0) == accuracy_of(model, data)
    monkeypatch.setattr(ProjectedGradientUnlearning, "_retain_accuracy", retain_accuracy)
    method.unlearn(model, data)
    assert len(weights) == 4
    assert all(not torch.equal(one, other) for one, other in zip(weights, weights[1:], strict=False))
    assert torch.equal(model.classifier.weight, weights[-1])


def accuracy_of(model, data):
    right = [model(e["pixel_values"]).logits.argmax() == e["labels"][0] for e in forgetting.examples(data, "retain")]
    return sum(map(bool, right)) / len(right)


def test_taking_out_directions_is_the_formula_on_singular_vectors():
    for make_model in (tiny.vit, tiny.resnet):
        model, data = forgetting.seeded(make_model), forgetting.class_request()
        ours = copy.deepcopy(model)
        SubspaceForgetting(retain_alpha=20.0, forget_alpha=2.0, max_rows=10**9).unlearn(ours, data)
        retain, forget = inputs_of(model, data, "retain"), inputs_of(model, data, "forget")
        for name, parameter in model.named_parameters():
            layer = name.removesuffix(".weight")
            expected = parameter.detach()
            if layer in retain:
                matrices = []
                for rows, alpha in ((retain[layer], 20), (forget[layer], 2)):
                    vectors, values, _ = np.linalg.svd(rows.T, full_matrices=False)
                    shares = values**2 / (values**2).sum()
                    matrices.append(vectors @ np.diag(alpha * shares / ((alpha - 1) * shares + 1)) @ vectors.T)
                projection = np.eye(len(matrices[0])) - (matrices[1] - matrices[1] @ matrices[0])
                expected = (parameter.detach().flatten(1) @ torch.from_numpy(projection.T)).view_as(parameter)
                assert not torch.equal(expected, parameter)
            torch.testing.assert_close(ours.get_parameter(name).detach(), expected, rtol=1e-7, atol=1e-9)


def test_taking_out_directions_shrinks_the_matrices_and_nothing_else():
    model, data = forgetting.seeded(tiny.vit), forgetting.class_request()
    before, state = tiny.parameters_and_buffers(model), forgetting.state_of(model)
    SubspaceForgetting(num_samples=5).unlearn(model, data, seed=1)
    assert forgetting.state_of(model) == state
    for name, value in tiny.parameters_and_buffers(model).items():
        is_matrix = value.ndim in (2, 4)
        assert torch.equal(value, before[name]) != is_matrix, name
        assert not is_matrix or value.norm() < before[name].norm()


@pytest.mark.parametrize("case", CASES)
def test_projected_steps_change_nothing_but_trainable_weights(case):
    method = ProjectedGradientUnlearning(retained_variance=0.5, num_train_epochs=2)
    forgetting.assert_contract(method, CASES[case][0], CASES[case][1]())


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_taking_out_directions_changes_nothing_but_trainable_weights(make_model):
    forgetting.assert_contract(SubspaceForgetting(max_rows=100), make_model, forgetting.class_request())


def test_what_is_no_class_cannot_be_taken_out():
    before = forgetting.seeded(heads.gpt2)
    with pytest.raises(ValueError, match="GPT2LMHeadModel does not classify whole examples"):
        SubspaceForgetting().unlearn(before, forgetting.texts())
    model = forgetting.seeded(tiny.vit)
    before = tiny.parameters_and_buffers(model)
    with pytest.raises(ValueError, match=r"\d of the \d classes to forget have examples in the retain data"):
        SubspaceForgetting().unlearn(model, forgetting.images(num_forget=6, size=30))
    assert all(torch.equal(value, before[name]) for name, value in tiny.parameters_and_buffers(model).items())


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (ProjectedGradientUnlearning, {"retained_variance": 1.0}, "must be between 0"),
        (ProjectedGradientUnlearning, {"learning_rate": 0.0}, "`learning_rate` of .* must be above 0"),
        (ProjectedGradientUnlearning, {"entropy_weight": -0.1}, "neither can be negative"),
        (ProjectedGradientUnlearning, {"num_covariance_examples": 0}, "`num_covariance_examples` of"),
        (SubspaceForgetting, {"forget_alpha": -1.0}, "`forget_alpha` of .* must be above 0"),
        (SubspaceForgetting, {"max_rows": 0}, "`max_rows` of .* must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(**values)
