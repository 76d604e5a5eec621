# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The entrance of the engine: adds the squared per-example gradients of a batch to sums."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ...data.batches import num_examples, split_labels
from ...models.heads import find_likelihood
from ...models.likelihood import Likelihood, LogLikelihoodFunction
from ...models.rows import row_signatures
from ...runtime.shards import Processes, add_full_tensor_
from .probe import CallKey, Layouts, probe_layouts
from .reference import visit_example_gradients
from .scores import fisher_scores
from .taps import FisherTaps


# Ranges of examples, each with the sums that their squared gradients are added to.
Parts = Sequence[tuple[range, Mapping[str, torch.Tensor]]]


class TappedModel:
    """
    Runs a model on batches and adds the squared gradients of every example's score to sums.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in the modes that a Fisher pass needs.
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters in scope, as the ops of the model's forward passes see them.
        processes ([`~runtime.shards.Processes`]):
            The processes that hold the model's shards.
        fisher_type, log_likelihood_func, seed, product_dtype:
            As for [`accumulate_fisher_diagonal`].

    Attributes:
        likelihood ([`~models.likelihood.Likelihood`]): How examples are scored. Known after
            [`~TappedModel.find_likelihood`].
        excluded (`dict[str, str]`): Parameters that always take the one-example path, with the reason.
        taps: The taps of the last forward pass. A checkpointed layer runs again in them.
        output_bytes (`int`): Size of an example's largest output in the last forward pass.
        num_probes (`int`): How often a batch took ops that no earlier batch took.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        processes: Processes,
        fisher_type: str,
        log_likelihood_func: LogLikelihoodFunction | None,
        seed: int,
        product_dtype: torch.dtype | None,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.processes = processes
        self.fisher_type = fisher_type
        self.log_likelihood_func = log_likelihood_func
        self.seed = seed
        self.product_dtype = product_dtype
        self.excluded: dict[str, str] = {}
        self.taps: AbstractContextManager[Any] = nullcontext()
        self.output_bytes = 0
        self.num_probes = 0
        self.likelihood: Likelihood | None = None
        # By the images of an example: with other images, ops have other shapes.
        self._layouts: dict[Hashable, Layouts] = {}
        self._not_probed: dict[Hashable, set[CallKey]] = defaultdict(set)

    @property
    def device(self) -> torch.device:
        """The device that batches must be on."""
        return next(iter(self.parameters.values())).device

    def find_likelihood(self, batch: dict[str, Any]) -> None:
        """Finds out on a first batch how examples are scored."""
        self.likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)

    def prepare(self, batch: dict[str, Any]) -> None:
        """Finds out on a first batch of its kind where examples lie in the tensors of ops."""
        self._layouts[self._kind(batch)] = probe_layouts(self.model, batch, self.parameters)

    @property
    def num_kinds(self) -> int:
        """Number of kinds of examples that were prepared for."""
        return len(self._layouts)

    def is_prepared(self, batch: dict[str, Any]) -> bool:
        """Whether an earlier batch had examples with images like those of this batch."""
        return self._kind(batch) in self._layouts

    def _kind(self, batch: dict[str, Any]) -> Hashable:
        signatures = row_signatures(self.model, batch)
        return None if signatures is None else signatures[0]

    def forward(self, batch: dict[str, Any]) -> tuple[FisherTaps, Any]:
        """
        Runs the model under taps; probes it again where the batch takes ops that no earlier batch took.

        Returns:
            `tuple[FisherTaps, Any]`: The taps, and the model's outputs.
        """
        inputs, kind = split_labels(batch)[0], self._kind(batch)
        tapped = {name: p for name, p in self.parameters.items() if name not in self.excluded}
        while True:
            taps = self.taps = FisherTaps(tapped, self._layouts.get(kind, {}), num_examples(batch), self.product_dtype)
            with taps:
                outputs = self.model(**inputs)
            if all(self.processes.gather(taps.missing <= self._not_probed[kind])):
                taps.agree(self.processes)
                self.output_bytes = max(map(_num_bytes, tree_leaves(outputs))) // num_examples(batch)
                return taps, outputs
            self._layouts[kind] = probe_layouts(self.model, batch, tapped) | self._layouts.get(kind, {})
            self._not_probed[kind] |= taps.missing
            self.num_probes += 1

    def add_tapped_squares_(self, batch: dict[str, Any], positions: Sequence[int], parts: Parts) -> dict[str, str]:
        """
        Adds the squared gradients of the parameters that the taps can follow, from one backward pass per score.

        Args:
            batch (`dict[str, Any]`):
                Model inputs and labels.
            positions (`Sequence[int]`):
                The position of every example in the data set.
            parts (`list[tuple[range, dict[str, torch.Tensor]]]`):
                Ranges of examples, each with the sums to add to.

        Returns:
            `dict[str, str]`: The other parameters, with the reason.
        """
        inputs, labels = split_labels(batch)
        with torch.enable_grad():
            taps, outputs = self.forward(batch)
            scores = list(
                fisher_scores(
                    self.likelihood, inputs, outputs, labels, self.fisher_type, positions=positions, seed=self.seed
                )
            )
        del outputs
        while scores:
            taps.backward(scores.pop(0), parts, retain_graph=bool(scores))
        return taps.untapped | self.excluded

    def add_squares_one_by_one_(
        self, batch: dict[str, Any], positions: Sequence[int], parts: Parts, names: Iterable[str]
    ) -> None:
        """Adds the squared gradients of the named parameters by one pass per example; as [`add_tapped_squares_`]."""
        together = self.processes.are_several

        def add(example: int, name: str, gradient: torch.Tensor) -> None:
            for examples, sums in parts:
                if example in examples:
                    add_full_tensor_(sums[name], gradient.to(sums[name].dtype).square())
                elif together:
                    add_full_tensor_(sums[name], torch.zeros_like(gradient, dtype=sums[name].dtype))

        self.visit_example_gradients(add, batch, positions, names, together=together)

    def visit_example_gradients(
        self,
        visit: Callable[[int, str, torch.Tensor], None],
        batch: dict[str, Any],
        positions: Sequence[int],
        names: Iterable[str],
        *,
        examples: Collection[int] | None = None,
        together: bool = False,
        own_padding: bool = False,
    ) -> None:
        """Runs the one-example reference for the named parameters; see [`visit_example_gradients`]."""
        visit_example_gradients(
            visit,
            self.model,
            batch,
            {name: self.parameters[name] for name in names},
            self.fisher_type,
            likelihood=self.likelihood,
            positions=positions,
            seed=self.seed,
            examples=examples,
            together=together,
            own_padding=own_padding,
        )


def _num_bytes(output: Any) -> int:
    return output.nbytes if isinstance(output, torch.Tensor) else 0
