# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set by all processes, which goes on where an earlier one was interrupted."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..data.loaders import BatchSource
from ..models.likelihood import LogLikelihoodFunction
from ..runtime.processes import gather_objects, sum_over_processes_
from .accumulation import FisherAccumulation
from .checkpoint import FisherCheckpoint, PassRecord
from .diagonal import FisherDiagonal


def accumulate_over_processes(
    model: nn.Module,
    batches: Callable[[int, Collection[int]], Iterable[tuple[int, Mapping[str, Any]]]],
    batch_size: int,
    *,
    checkpoint: FisherCheckpoint | None = None,
    **kwargs: Any,
) -> FisherDiagonal:
    """
    Computes the Fisher diagonal of a data set whose batches are shared out over the processes.

    Every process sums over its own batches, without a word to the others; then the sums and counts are added up once.
    Those of a sharded model go through their batches in step, and an interrupted pass of theirs starts anew.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            As for [`accumulate_fisher_diagonal`], the same in all processes.
        batches (`Callable`):
            Called with a place in the data set and with further places before it; yields this process's batches from
            there, and the further ones, each with its place. See [`seeded_batches`].
        batch_size (`int`):
            Examples of every batch but the last.
        checkpoint ([`FisherCheckpoint`], *optional*):
            Where this process's share is saved from time to time.
        kwargs:
            As for [`accumulate_fisher_diagonal`].

    Returns:
        [`FisherDiagonal`]: That of all processes' examples, in every process.

    Raises:
        `ValueError`: As [`accumulate_fisher_diagonal`].
    """
    accumulation = FisherAccumulation(model, **kwargs)
    saved = None if checkpoint is None else checkpoint.load()
    # A sharded model's processes are in step: what one has is of use with what the others have.
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
    start, replayed = 0, set()
    if saved is not None:
        start = saved[0].position
        replayed = {saved[0].first, *(place for place, *_ in saved[0].probed)}
    for item in accumulation.in_step(batches(start, replayed)):
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
                f"The rows of this data set hold several documents each ({num_added} in {batch_size}), and labels are "
                "drawn by an example's position. Give every document a row of its own, or use "
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
        # What shards hold is the sum over the processes already.
        sum_over_processes_(sums.values())
    fallback = {name: reason for _, found in shares for name, reason in found.items()}
    return FisherDiagonal(
        {name: total.contiguous() for name, total in sums.items()}, num_examples, accumulation.fisher_type, fallback
    )


@dataclass(frozen=True)
class FisherPass:
    """
    Computes Fisher diagonals of data sets.

    Args:
        source ([`BatchSource`]):
            Makes the batches.
        batch_size (`int`):
            Examples per batch and process.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            Whose labels the gradients are taken at.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood.
        seed (`int`, *optional*, defaults to `0`):
            Seed of sampled labels.
        accumulator_device (`str`, *optional*):
            Where the sums are kept.
        max_examples (`int`, *optional*):
            At most this many examples, drawn at random.
    """

    source: BatchSource
    batch_size: int
    fisher_type: str = "empirical"
    log_likelihood_func: LogLikelihoodFunction | None = None
    seed: int = 0
    accumulator_device: str | None = None
    max_examples: int | None = None

    def compute(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        dataset: Any,
        description: str,
        checkpoint: FisherCheckpoint | None = None,
    ) -> FisherDiagonal:
        if self.max_examples is not None:
            dataset = self.source.sample(dataset, self.max_examples)
        return accumulate_over_processes(
            model,
            lambda start, earlier: self.source.batches(
                dataset, self.batch_size, description, start=start, earlier=earlier
            ),
            self.batch_size,
            checkpoint=checkpoint,
            fisher_type=self.fisher_type,
            log_likelihood_func=self.log_likelihood_func,
            parameters=parameters,
            seed=self.seed,
            accumulator_device=self.accumulator_device,
        )
