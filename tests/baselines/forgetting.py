# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Small unlearning requests, and plain losses for the formulas of the baselines."""

import torch
from torch.nn import functional as F

from hf_deepclean.baselines.data import UnlearningData
from tests import heads, tiny


def seeded(make_model):
    """A model with the same random weights in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny.randomized(make_model())


def rows_of(batch):
    size = len(batch["labels"])
    return [{key: value[row] for key, value in batch.items()} for row in range(size)]


def collate(rows):
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def request(batch, num_forget):
    rows = rows_of(batch)
    return UnlearningData(tiny.Rows(rows[:num_forget]), tiny.Rows(rows[num_forget:]), collate)


def images(num_forget=4, size=14):
    return request(tiny.image_batch(size), num_forget)


def class_request(forgotten=1, size=40):
    """A request to forget all examples of one class."""
    batch = tiny.image_batch(size)
    order = (batch["labels"] != forgotten).long().argsort(stable=True)
    return request({key: value[order] for key, value in batch.items()}, int((batch["labels"] == forgotten).sum()))


def texts(labels="next"):
    batch = heads.text(labels, (7, 4, 6, 5, 7, 3))
    return request(batch, 2)


def examples(data, split):
    return list(data.batches(split, 1))


def negative_log_likelihood(model, batch):
    """The negative log-likelihood summed over the scored choices, written as plainly as possible."""
    inputs = dict(batch)
    labels = inputs.pop("labels")
    logits = model(**inputs, use_cache=False).logits if hasattr(model.config, "use_cache") else model(**inputs).logits
    if logits.ndim == 3:
        shifted = type(model).__name__.endswith("LMHeadModel")
        logits, labels = (logits[:, :-1], labels[:, 1:]) if shifted else (logits, labels)
        logits, labels = logits.flatten(0, 1), labels.flatten()
    return F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)


def parameters_of(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(value, parameters, **kwargs):
    found = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True, **kwargs)
    return dict(zip(parameters, found, strict=True))


def state_of(model):
    """What a method must leave as it was, besides values of parameters and buffers."""
    return (
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        [module.training for module in model.modules()],
        getattr(model.config, "use_cache", None),
        [len(module._forward_pre_hooks) for module in model.modules()],
    )


def assert_close(found, expected, rtol=1e-8, atol=1e-11):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.detach(), expected[name].detach(), rtol=rtol, atol=atol, msg=name)


def assert_contract(method, make_model, data):
    """Checks that equal seeds give equal bits, and that only trainable parameters change."""
    results = []
    for _ in range(2):
        model = seeded(make_model)
        frozen = next(name for name, _ in model.named_parameters())
        model.get_parameter(frozen).requires_grad_(False)
        model.train()
        before, state, drawn = tiny.parameters_and_buffers(model), state_of(model), torch.get_rng_state()
        method.unlearn(model, data, seed=3)
        assert state_of(model) == state
        assert torch.equal(torch.get_rng_state(), drawn)
        results.append(tiny.parameters_and_buffers(model))
        trainable = parameters_of(model)
        changed = {name for name, value in results[-1].items() if not torch.equal(value, before[name])}
        assert changed and changed <= trainable.keys()
        assert all(value.isfinite().all() for value in results[-1].values())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
