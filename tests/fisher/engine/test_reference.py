# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the definition itself with closed forms."""

import torch
from torch import nn

from hf_deepclean.fisher.engine.reference import add_reference_squares_, visit_example_gradients


class LogisticRegression(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4, bias=False, dtype=torch.float64)

    def forward(self, x):
        return (self.linear(x),)


def fisher(model, batch, fisher_type):
    sums = {"linear.weight": torch.zeros(4, 3, dtype=torch.float64)}
    add_reference_squares_(sums, model, batch, dict(model.named_parameters()), fisher_type)
    return sums["linear.weight"]


def test_equals_the_closed_forms_of_logistic_regression():
    model = LogisticRegression()
    x, labels = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1, 1])
    batch, p = {"x": x, "labels": labels}, model(x)[0].softmax(dim=1).detach()
    # d log p_y / dw_c = (1[c = y] - p_c) x
    given = (nn.functional.one_hot(labels, 4) - p).square().T @ x.square()
    assert torch.allclose(fisher(model, batch, "empirical"), given, rtol=1e-12)
    # E_y (1[c = y] - p_c)^2 = p_c (1 - p_c)
    expectation = (p * (1 - p)).T @ x.square()
    assert torch.allclose(fisher(model, batch, "expected"), expectation, rtol=1e-12)


def test_gradients_arrive_whole_under_every_name_and_leave_nothing_behind():
    model = LogisticRegression()
    weight = model.linear.weight
    weight.grad = torch.ones_like(weight)
    batch = {"x": torch.randn(2, 3, dtype=torch.float64), "labels": torch.tensor([3, 0])}
    arrived = []
    visit_example_gradients(lambda *visit: arrived.append(visit), model, batch, {"first": weight, "second": weight})
    assert [(example, name) for example, name, _ in arrived] == [
        (example, name) for example in range(2) for name in ("first", "second")
    ]
    for example, _, gradient in arrived:
        score = model(batch["x"][example : example + 1])[0].log_softmax(dim=1)[0, batch["labels"][example]]
        assert torch.allclose(gradient, torch.autograd.grad(score, weight)[0], rtol=1e-12)
    assert (weight.grad == 1).all() and not weight._backward_hooks
