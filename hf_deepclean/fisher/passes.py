# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set by all processes, which continues where an interrupted pass stopped."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..data.loaders import BatchSource
from ..models.contexts import autocasting, with_gradients
from ..models.likelihood import LogLikelihoodFunction
from ..runtime.processes import gather_objects, sum_over_processes_
from .accumulation import FisherAccumulation
from .checkpoint import FisherCheckpoint, PassRecord
from .diagonal import FisherDiagonal


@dataclass(frozen=True)
class FisherPass:
    """
    Computes the Fisher diagonal of a data set in one pass, whose batches the processes share out.

    Args:
        source ([`BatchSource`]):
            Makes the batches, and draws the sample if `max_examples` limits the data set. Any object with its methods
            `batches` and `sample` will do.
        batch_size (`int`):
            Examples per batch of a process. The result does not depend on it but for rounding.
        fisher_type, log_likelihood_func, seed, accumulator_device (*optional*):
            As for [`accumulate_fisher_diagonal`].
        max_examples (`int`, *optional*):
            At most `max_examples` examples of a data set enter the pass: a random sample, or the first ones of a
            stream. By default all do.
        autocast_dtype (`str`, *optional*):
            The name of the dtype of matrix products in forward and backward passes, such as `"bfloat16"`, as of a
            training under autocast. The sums stay in float32. By default the model's own precision.

    Example:

    ```python
    >>> fisher_pass = FisherPass(BatchSource(trainer), batch_size=32, max_examples=500)
    >>> fisher = fisher_pass.compute(model, parameters_in_scope(model), dataset, "forget Fisher")
    ```
    """

    source: BatchSource
    batch_size: int
    fisher_type: str = "empirical"
    log_likelihood_func: LogLikelihoodFunction | None = None
    seed: int = 0
    accumulator_device: str | torch.device | None = None
    max_examples: int | None = None
    autocast_dtype: str | None = None

    def compute(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        dataset: Any,
        description: str | None = None,
        checkpoint: FisherCheckpoint | None = None,
    ) -> FisherDiagonal:
        """
        Computes the Fisher diagonal at the model's present weights. All processes must call this.

        Args:
            model ([`~transformers.PreTrainedModel`]):
                The model, the same in all processes, not wrapped for data parallelism.
            parameters (`dict[str, torch.nn.Parameter]`):
                The parameters in scope.
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            description (`str`, *optional*):
                Shown beside the progress bar. Without it there is no bar.
            checkpoint ([`FisherCheckpoint`], *optional*):
                Where this process saves its share of the pass, and from where it continues.

        Returns:
            [`FisherDiagonal`]: The diagonal on the examples of all processes, in every process.

        Raises:
            `ValueError`: As [`accumulate_fisher_diagonal`].
        """
        if self.max_examples is not None:
            dataset = self.source.sample(dataset, self.max_examples)

        def batches(start: int, earlier: Collection[int]) -> Iterable[tuple[int, Mapping[str, Any]]]:
            return self.source.batches(dataset, self.batch_size, description, start=start, earlier=earlier)

        autocast_dtype = None if self.autocast_dtype is None else getattr(torch, self.autocast_dtype)
        has_fixed_length = getattr(self.source, "has_fixed_length", None)
        with autocasting(model, autocast_dtype):
            return accumulate_over_processes(
                model,
                batches,
                self.batch_size,
                checkpoint=checkpoint,
                fisher_type=self.fisher_type,
                log_likelihood_func=self.log_likelihood_func,
                parameters=parameters,
                seed=self.seed,
                product_dtype=autocast_dtype,
                accumulator_device=self.accumulator_device,
                has_fixed_length=None if has_fixed_length is None else partial(has_fixed_length, dataset),
            )


@with_gradients
def accumulate_over_processes(
    model: nn.Module,
    batches: Callable[[int, Collection[int]], Iterable[tuple[int, Mapping[str, Any]]]],
    batch_size: int,
    *,
    checkpoint: FisherCheckpoint | None = None,
    **kwargs: Any,
) -> FisherDiagonal:
    """
    Computes the Fisher diagonal of a data set whose batches the processes share out. All processes must call this.

    Every process sums over its own batches and exchanges nothing; at the end sums and counts are added up once. The
    processes of a sharded model run their batches in step, and they start an interrupted pass anew.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, as for [`accumulate_fisher_diagonal`], the same in all processes.
        batches (`Callable`):
            Called with a place in the data set and a collection of earlier places. Yields the batches of this process
            at the earlier places and from the place on, each with its place. See [`seeded_batches`].
        batch_size (`int`):
            Number of examples in every batch but the last.
        checkpoint ([`FisherCheckpoint`], *optional*):
            Where this process saves its share from time to time, and from where it continues.
        kwargs:
            As for [`accumulate_fisher_diagonal`].

    Returns:
        [`FisherDiagonal`]: The diagonal on the examples of all processes, in every process.

    Raises:
        `ValueError`: As [`accumulate_fisher_diagonal`].
    """
    accumulation = FisherAccumulation(model, **kwargs)
    saved = None if checkpoint is None else checkpoint.load()
    # The shares of the processes of a sharded model are of use only together.
    is_complete = all(accumulation.processes.gather(saved is not None and saved[0].is_complete))
    if is_complete:
        accumulation.restore(*saved)
        return _over_processes(accumulation)
    if accumulation.processes.are_several:
        saved = None
    with accumulation.running():
        _add_batches(accumulation, batches, batch_size, checkpoint, saved)
    accumulation.record.is_complete = True
    if checkpoint is not None:
        checkpoint.save(accumulation.record, accumulation.held_total())
    return _over_processes(accumulation)


def _add_batches(
    accumulation: FisherAccumulation,
    batches: Callable[[int, Collection[int]], Iterable[tuple[int, Mapping[str, Any]]]],
    batch_size: int,
    checkpoint: FisherCheckpoint | None,
    saved: tuple[PassRecord, dict[str, torch.Tensor]] | None,
) -> None:
    """Adds the batches that an interrupted pass has not added, and saves the pass from time to time."""
    start, replayed = 0, set()
    if saved is not None:
        start = saved[0].position
        replayed = {saved[0].first, *(place for place, *_ in saved[0].probed)}
    for item in accumulation.lockstep.batches(batches(start, replayed)):
        place, batch = (0, None) if item is None else item
        if place < start:
            accumulation.replay(batch, place, saved[0])
            continue
        if saved is not None:
            accumulation.restore(*saved)
            start, saved = 0, None
        before = accumulation.record.num_examples
        accumulation.add(batch, place=place, start=place * batch_size)
        num_added = accumulation.record.num_examples - before
        if num_added > batch_size and accumulation.fisher_type == "sampled":
            raise ValueError(
                f"The rows of this data set hold several documents each ({num_added} in {batch_size} rows), and "
                "sampled labels depend on the position of a row. Give every document a row of its own, or use "
                "`fisher_type='empirical'`."
            )
        if checkpoint is None:
            continue
        if accumulation.processes.are_several:
            checkpoint.interruption.share(accumulation.processes.gather)
            checkpoint.interruption.check()
        elif checkpoint.is_due():
            checkpoint.save(accumulation.record, accumulation.held_total())
    if saved is not None:
        accumulation.restore(*saved)


def _over_processes(accumulation: FisherAccumulation) -> FisherDiagonal:
    sums, record = accumulation.total(), accumulation.record
    shares = gather_objects((record.num_examples, record.fallback))
    num_examples = sum(count for count, _ in shares)
    if num_examples == 0:
        raise ValueError("There was no example to compute the Fisher information on: the data set is empty.")
    if not accumulation.processes.are_several:
        # Sharded sums are already those of all processes.
        sum_over_processes_(sums.values())
    fallback = {name: reason for _, found in shares for name, reason in found.items()}
    return FisherDiagonal(
        {name: total.contiguous() for name, total in sums.items()}, num_examples, accumulation.fisher_type, fallback
    )
