# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The plain step, hf_deepclean, and methods that need only torch.

A method is a function of a model and its log-likelihood. It does the work that is done once, and returns the function
to be measured: from a batch to `sum_n (d log p(y_n | x_n, w) / dw)^2` of every parameter that requires gradients.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from hf_deepclean import accumulate_fisher_diagonal, accumulate_fisher_diagonals
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from hf_deepclean.models.likelihood import Likelihood
from tests.benchmarks.models import Batch, LogLikelihood


Squares = dict[str, torch.Tensor]
Run = Callable[[Batch], Squares]
Method = Callable[[nn.Module, LogLikelihood], Run]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def zeros(model: nn.Module) -> Squares:
    return {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}


def split(batch: Batch) -> tuple[Batch, torch.Tensor]:
    return {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]


def in_chunks(batch: Batch, size: int) -> list[Batch]:
    return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, len(batch["labels"]), size)]


def loss(model: nn.Module, log_likelihood: LogLikelihood, batch: Batch) -> torch.Tensor:
    inputs, labels = split(batch)
    return -log_likelihood(model(**inputs), labels).sum()


def plain_step(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    """The unit of time and memory: a forward and backward pass, without a Fisher."""

    def run(batch: Batch) -> Squares:
        loss(model, log_likelihood, batch).backward()
        model.zero_grad()
        return {}

    return run


def repeated(batch: Batch, num_batches: int, starts: list[float] | None) -> Iterator[Batch]:
    """A data set of equal batches; notes in `starts` when each batch was asked for."""
    for _ in range(num_batches):
        if starts is not None:
            starts.append(time.perf_counter())
        yield batch


def hf_deepclean(model: nn.Module, log_likelihood: LogLikelihood, kwargs: Mapping[str, Any]) -> Run:
    def run(batch: Batch, num_batches: int = 1, starts: list[float] | None = None) -> Squares:
        batches = repeated(batch, num_batches, starts)
        fisher = accumulate_fisher_diagonal(model, batches, parameters=trainable(model), **kwargs)
        return {name: total.div_(num_batches) for name, total in fisher.sums.items()}

    return run


def two_groups(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    """
    One pass for two groups of alternating examples, such as forget and retain set. Their sums add up to those of the
    whole batch.
    """

    def run(batch: Batch, num_batches: int = 1, starts: list[float] | None = None) -> Squares:
        batch = batch | {"group": torch.arange(len(batch["labels"])) % 2}
        batches = repeated(batch, num_batches, starts)
        first, second = accumulate_fisher_diagonals(
            model, batches, group_column="group", parameters=trainable(model)
        ).values()
        return {name: total.add_(second.sums[name]).div_(num_batches) for name, total in first.sums.items()}

    return run


def reference(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    def run(batch: Batch) -> Squares:
        sums = zeros(model)
        likelihood = Likelihood("custom", log_likelihood)
        add_reference_squares_(sums, model, batch, trainable(model), likelihood=likelihood)
        return sums

    return run


def one_example_loop(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    def run(batch: Batch) -> Squares:
        sums = zeros(model)
        for example in in_chunks(batch, 1):
            loss(model, log_likelihood, example).backward()
            for name, parameter in trainable(model).items():
                if parameter.grad is not None:
                    sums[name].addcmul_(parameter.grad, parameter.grad)
            model.zero_grad()
        return sums

    return run


def vmap_of_grad(model: nn.Module, log_likelihood: LogLikelihood, chunk_size: int | None = None) -> Run:
    def example_loss(parameters: Squares, example: Batch) -> torch.Tensor:
        inputs, labels = split({key: value[None] for key, value in example.items()})
        return -log_likelihood(functional_call(model, parameters, (), inputs), labels).sum()

    gradients_of = vmap(grad(example_loss), in_dims=(None, 0))

    def run(batch: Batch) -> Squares:
        parameters = {name: parameter.detach() for name, parameter in trainable(model).items()}
        sums = zeros(model)
        for chunk in in_chunks(batch, chunk_size or len(batch["labels"])):
            gradients = gradients_of(parameters, chunk)
            for name in sums:
                sums[name] += gradients.pop(name).square().sum(0)
        return sums

    return run


PLAIN = "plain step"
REFERENCE = "one-example reference"

# Variants of the engine, a table row each, with their arguments of `accumulate_fisher_diagonal`.
VARIANTS: dict[str, dict[str, Any]] = {
    "hf_deepclean": {},
    "hf_deepclean, sampled": {"fisher_type": "sampled"},
    "hf_deepclean, bfloat16 products": {"product_dtype": torch.bfloat16},
}

ENGINE: dict[str, Method] = {name: partial(hf_deepclean, kwargs=kwargs) for name, kwargs in VARIANTS.items()}
ENGINE["hf_deepclean, two groups in one pass"] = two_groups
OWN: dict[str, Method] = {PLAIN: plain_step} | ENGINE | {REFERENCE: reference}
TORCH: dict[str, Method] = {
    "one-example loop": one_example_loop,
    "torch.func vmap(grad)": vmap_of_grad,
    "torch.func vmap(grad), chunks of 2": partial(vmap_of_grad, chunk_size=2),
}
