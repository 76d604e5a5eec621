# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The definition of the Fisher diagonal, one example at a time: slow and general. Every fast path must equal it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ...data.batches import num_examples, split_labels
from ...models.contexts import checkpointing_mode, differentiable_mode, evaluation_mode, only_trainable
from ...models.heads import find_likelihood, without_padding
from ...models.likelihood import Likelihood
from ...models.rows import select_examples
from ...runtime.sharded_models import held_parameters
from ...runtime.shards import Turns
from .scores import fisher_scores


def visit_example_gradients(
    visit: Callable[[int, str, torch.Tensor], None],
    model: nn.Module,
    batch: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    fisher_type: str = "empirical",
    *,
    likelihood: Likelihood | None = None,
    positions: Sequence[int] | None = None,
    seed: int = 0,
    examples: Collection[int] | None = None,
    together: bool = False,
    own_padding: bool = False,
) -> None:
    """
    Computes the gradients whose squares add up to the Fisher diagonal, by a forward and backward pass per example.

    Args:
        visit (`Callable`):
            Called with the example, a parameter's name and the gradient of one score of the example, as soon as the
            backward pass has computed it. So the gradients of all parameters are never in memory together. It must not
            change the gradient. It is not called for parameters that the score does not depend on.
        model (`torch.nn.Module`):
            The model. It runs in eval mode.
        batch (`dict[str, Any]`):
            A batch from [`~heads.prepare_batch`].
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters to differentiate by.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            See [`fisher_scores`], also for `positions` and `seed`.
        likelihood ([`~likelihood.Likelihood`], *optional*):
            How examples are scored. By default [`~heads.find_likelihood`] finds out.
        examples (`Collection[int]`, *optional*):
            Indices of the examples to run, by default all.
        together (`bool`, *optional*, defaults to `False`):
            Whether the processes of a sharded model run `visit` together. It is then called for every parameter, in
            the same order in all processes, with a gradient of zeros if the score does not depend on the parameter.
        own_padding (`bool`, *optional*, defaults to `False`):
            Whether examples run without the padding that other examples of the batch gave them.
    """
    likelihood = find_likelihood(model, batch) if likelihood is None else likelihood
    positions = range(num_examples(batch)) if positions is None else positions
    with (
        evaluation_mode(model),
        differentiable_mode(model),
        checkpointing_mode(model),
        only_trainable(model, list(held_parameters(model, parameters).values())),
    ):
        for example in range(num_examples(batch)) if examples is None else examples:
            one = select_examples(model, batch, [example])
            inputs, labels = split_labels(without_padding(model, one) if own_padding else one)
            with torch.enable_grad():
                outputs = model(**inputs)
                scores = list(
                    fisher_scores(
                        likelihood, inputs, outputs, labels, fisher_type, positions=[positions[example]], seed=seed
                    )
                )
            del outputs
            while scores:
                score = scores.pop(0)
                if not score.requires_grad:
                    continue
                with _handing_over(parameters, partial(visit, example), together):
                    torch.autograd.grad(
                        score.sum(), list(parameters.values()), allow_unused=True, retain_graph=bool(scores)
                    )


@contextmanager
def _handing_over(
    parameters: Mapping[str, nn.Parameter], visit: Callable[[str, torch.Tensor], None], together: bool
) -> Iterator[None]:
    """Hands every gradient to `visit`, and keeps nothing of its size."""
    names = defaultdict(list)
    for name, parameter in parameters.items():
        names[parameter].append(name)
    # About the order in which a backward pass reaches the parameters, so that few gradients have to wait.
    turns = Turns(reversed(parameters) if together else ())

    def hand_over(parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        for name in names[parameter]:
            if together:
                turns.ready(name, partial(visit, name, gradient))
            else:
                visit(name, gradient)
        return gradient.new_zeros(()).expand_as(gradient)

    hooks = [parameter.register_hook(partial(hand_over, parameter)) for parameter in names]
    try:
        yield
        turns.finish(lambda name: visit(name, torch.zeros_like(parameters[name], requires_grad=False)))
    finally:
        for hook in hooks:
            hook.remove()


def add_reference_squares_(
    sums: Mapping[str, torch.Tensor],
    model: nn.Module,
    batch: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    fisher_type: str = "empirical",
    **kwargs: Any,
) -> None:
    """
    Adds `(d score / dw)^2` of every example of a batch to `sums`, one example at a time.

    Args:
        sums (`dict[str, torch.Tensor]`):
            Sums in the shapes of the parameters; added to in place.
        model, batch, parameters, fisher_type, kwargs:
            As for [`visit_example_gradients`].
    """

    def add(example: int, name: str, gradient: torch.Tensor) -> None:
        sums[name].add_(gradient.to(sums[name].dtype).square())

    visit_example_gradients(add, model, batch, parameters, fisher_type, **kwargs)
