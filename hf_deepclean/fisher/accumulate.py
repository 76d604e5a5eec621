# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set: batches in, a `FisherDiagonal` out."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..batches import move_batch, num_examples, select_examples, split_labels
from ..heads import find_likelihood, prepare_batch
from ..likelihood import (
    LogLikelihoodFunction,
    check_finite_log_likelihood,
    check_fisher_type,
    fisher_scores,
)
from ..modes import checkpointing_mode, differentiable_mode, evaluation_mode, only_trainable
from .diagonal import FisherDiagonal
from .reference import add_reference_squares_
from .taps import CallKey, FisherTaps, Layouts, probe_layouts


logger = logging.getLogger(__name__)


def accumulate_fisher_diagonal(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    fisher_type: str = "empirical",
    log_likelihood_func: LogLikelihoodFunction | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    seed: int = 0,
    self_check: bool = True,
) -> FisherDiagonal:
    """
    Computes the exact diagonal of the Fisher information, `1/N sum_n (d log p(y_n | x_n, w) / dw)^2`.

    Gradients are squared per example and then summed, with dropout off and normalisation layers in eval mode; the
    result does not depend on how the examples are batched. The model is left as it was found.

    Section 3 of [DeepClean](https://huggingface.co/papers/2311.10448).

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model; not wrapped for data parallelism, whose gradients are averages.
        batches (`Iterable[dict[str, Any]]`):
            Batches of model inputs, with the targets under `"labels"` (or `"start_positions"` and `"end_positions"`)
            and the example axis first in every tensor. Packed documents count as one example each.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"` (the given labels), `"sampled"` (labels drawn from the model, seeded by example position) or
            `"expected"` (the exact expectation over classes; one backward pass per class).
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default that of the model's head, which is checked against the model's own loss.
        parameters (`dict[str, torch.nn.Parameter]`, *optional*):
            Named parameters of the model to compute the diagonal for, by default all that require gradients.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.
        self_check (`bool`, *optional*, defaults to `True`):
            Whether to compare two examples of the first batch with one-example passes. Parameters that differ take
            the one-example path for the whole data set, with a warning that names them.

    Returns:
        [`FisherDiagonal`]: Sums in float32, or float64 for float64 parameters.

    Raises:
        `ValueError`: If there is no example or no parameter, if the labels do not fit the head, if the likelihood is
            not the one the model was trained on, or if a likelihood or a squared gradient is not finite.

    Example:

    ```python
    >>> fisher = accumulate_fisher_diagonal(model, dataloader)
    >>> fisher.mean()["classifier.weight"].shape
    ```
    """
    check_fisher_type(fisher_type, log_likelihood_func)
    if parameters is None:
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(
            "No parameter to compute the Fisher information for: none was given and none requires gradients."
        )
    with evaluation_mode(model), only_trainable(model, ()), differentiable_mode(model), checkpointing_mode(model):
        accumulation = _Accumulation(model, parameters, fisher_type, log_likelihood_func, seed)
        for batch in batches:
            batch = move_batch(prepare_batch(model, batch), next(iter(parameters.values())).device)
            if accumulation.position == 0:
                accumulation.prepare(batch, self_check)
            accumulation.add(batch)
    if accumulation.position == 0:
        raise ValueError(
            "There was no example to compute the Fisher information on: the iterable of batches is empty."
        )
    return FisherDiagonal(accumulation.sums, accumulation.position, fisher_type, accumulation.fallback)


class _Accumulation:
    """The state of one pass: sums, the position in the data, and what is known of the model's ops."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        fisher_type: str,
        log_likelihood_func: LogLikelihoodFunction | None,
        seed: int,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.fisher_type = fisher_type
        self.log_likelihood_func = log_likelihood_func
        self.seed = seed
        self.sums = self._zeros()
        self.position = 0
        self.layouts: Layouts = {}
        self.not_probed: set[CallKey] = set()
        self.excluded: dict[str, str] = {}
        self.fallback: dict[str, str] = {}

    def prepare(self, batch: dict[str, Any], self_check: bool) -> None:
        self.likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)
        self.layouts = probe_layouts(self.model, batch, self.parameters)
        if self_check:
            self._self_check(select_examples(batch, range(min(2, num_examples(batch)))))

    def add(self, batch: dict[str, Any]) -> None:
        untapped = self._add_tapped(self.sums, batch)
        self.fallback |= untapped
        if untapped:
            self._add_reference(self.sums, batch, untapped)
        self._check_finite(batch)
        self.position += num_examples(batch)

    def _zeros(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.zeros_like(
                parameter,
                dtype=torch.promote_types(parameter.dtype, torch.float32),
                requires_grad=False,
            )
            for name, parameter in self.parameters.items()
        }

    def _add_tapped(self, sums: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, str]:
        """Adds what the taps can; returns the other parameters with the reason."""
        inputs, labels = split_labels(batch)
        with torch.enable_grad():
            taps, outputs = self._forward(batch)
            scores = list(
                fisher_scores(
                    self.likelihood,
                    inputs,
                    outputs,
                    labels,
                    self.fisher_type,
                    first_position=self.position,
                    seed=self.seed,
                )
            )
        for index, score in enumerate(scores):
            taps.backward(score, [(range(len(labels)), sums)], retain_graph=index + 1 < len(scores))
        return taps.untapped | self.excluded

    def _forward(self, batch: dict[str, Any]) -> tuple[FisherTaps, Any]:
        inputs, labels = split_labels(batch)
        tapped = {name: p for name, p in self.parameters.items() if name not in self.excluded}
        while True:
            taps = FisherTaps(tapped, self.layouts, len(labels))
            with taps:
                outputs = self.model(**inputs)
            if taps.missing <= self.not_probed:
                return taps, outputs
            # The model takes a way through its ops that it has not taken before, such as that of a padded batch.
            self.layouts = probe_layouts(self.model, batch, tapped) | self.layouts
            self.not_probed |= taps.missing

    def _add_reference(
        self,
        sums: dict[str, torch.Tensor],
        batch: dict[str, Any],
        names: Iterable[str],
        examples: list[int] | None = None,
    ) -> None:
        add_reference_squares_(
            sums,
            self.model,
            batch,
            {name: self.parameters[name] for name in names},
            self.fisher_type,
            likelihood=self.likelihood,
            first_position=self.position,
            seed=self.seed,
            examples=examples,
        )

    def _self_check(self, batch: dict[str, Any]) -> None:
        tapped, reference = self._zeros(), self._zeros()
        untapped = self._add_tapped(tapped, batch)
        checked = [name for name, p in self.parameters.items() if name not in untapped and p.numel()]
        if not checked:
            return
        self._add_reference(reference, batch, checked)
        largest = max(reference[name].max().item() for name in checked)
        wrong = []
        for name in checked:
            precision = torch.finfo(self.parameters[name].dtype).eps
            # Gradients that are zero but for rounding (key biases under a softmax) are noise and cannot be compared.
            size = max(reference[name].max().item(), max(1e-8, precision) * largest)
            tolerance = min(0.5, 1e4 * precision) * size
            # Where the reference is not finite there is nothing to compare; the pass will say so.
            if (tapped[name] - reference[name]).abs().max().item() > tolerance:
                wrong.append(name)
        if wrong:
            self.excluded = dict.fromkeys(wrong, "differed from the one-example reference in the self-check")
            logger.warning(
                f"The batched Fisher of {len(wrong)} parameters differs from the one-example reference on the first "
                f"batch; they take the exact one-example path, which is slower: {', '.join(wrong)}."
            )

    def _check_finite(self, batch: dict[str, Any]) -> None:
        # One answer for all parameters: reading each would make a device wait once per parameter and batch.
        if torch.stack([total.sum().isfinite() for total in self.sums.values()]).all():
            return
        with torch.no_grad():
            inputs, labels = split_labels(batch)
            log_likelihood = self.likelihood(inputs, self.model(**inputs), labels)
        for example in range(num_examples(batch)):
            position = self.position + example
            check_finite_log_likelihood(log_likelihood[example : example + 1], position)
            squares = self._zeros()
            self._add_reference(squares, batch, self.parameters, [example])
            for name, square in squares.items():
                if not square.isfinite().all():
                    raise ValueError(
                        f"The squared gradient of {name} is not finite for the example at position {position}. "
                        "Check that example and the model's weights; a half-precision model may overflow: try float32."
                    )
        raise ValueError(
            f"The sum of squared gradients overflowed in the batch that starts at position {self.position}. "
            "Use a float64 model, or scale the likelihood down."
        )
