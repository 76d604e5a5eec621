# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The state of one Fisher pass: sums and counts by group, and how far the pass is."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..data.batches import move_batch, num_examples
from ..models.company import Company, row_lengths
from ..models.contexts import checkpointing_mode, differentiable_mode, evaluation_mode, only_trainable
from ..models.heads import prepare_batch
from ..models.likelihood import LogLikelihoodFunction
from ..models.rows import row_signatures, select_examples, unexplained_tensors
from ..runtime.sharded_models import (
    held_parameters,
    named_parameters,
    note_trainable,
    parameters_in_passes,
    without_copies,
)
from ..runtime.shards import local_part, processes_of
from .checkpoint import PassRecord
from .checks import check_differentiable, check_fisher_type, check_loaded
from .diagonal import FisherDiagonal
from .engine.layouts import sum_dtype
from .engine.tapped_model import TappedModel
from .finite_check import check_finite_sums
from .groups import GroupedBatch, group_examples
from .lockstep import Lockstep
from .self_check import excluded_parameters, find_differing_parameters, find_hidden_parameters


# About the last-level cache of one socket.
_CACHE_BYTES = 2**25


class FisherAccumulation:
    """
    Adds up the squared per-example gradients of the batches of one pass.

    Args:
        model, parameters, fisher_type, log_likelihood_func, seed, self_check, product_dtype, accumulator_device:
            As for [`accumulate_fisher_diagonal`].
        has_fixed_length (`Callable`, *optional*):
            As for [`~models.company.Company`].

    Attributes:
        record ([`~checkpoint.PassRecord`]): How far the pass is, and what it has learnt about the model.
        lockstep ([`Lockstep`]): Gives the processes of a sharded model equally many batches.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter] | None = None,
        fisher_type: str = "empirical",
        log_likelihood_func: LogLikelihoodFunction | None = None,
        seed: int = 0,
        self_check: bool = True,
        product_dtype: torch.dtype | None = None,
        accumulator_device: str | torch.device | None = None,
        has_fixed_length: Callable[[], bool] | None = None,
    ) -> None:
        check_fisher_type(fisher_type, log_likelihood_func)
        # The taps cannot look into compiled code; the module under a compiled model is the same model.
        model = getattr(model, "_orig_mod", model)
        if parameters is None:
            parameters = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
        if not parameters:
            raise ValueError(
                "No parameter to compute the Fisher information for: none was given and none requires gradients."
            )
        check_loaded(parameters)
        check_differentiable(model)
        self.model = model
        self.held = held_parameters(model, parameters)
        self.processes = processes_of(self.held.values())
        in_passes, self._copies = parameters_in_passes(model, self.held)
        self.fisher_type = fisher_type
        self.self_check = self_check
        self.accumulator_device = accumulator_device
        self.tapped = TappedModel(
            model, in_passes, self.processes, fisher_type, log_likelihood_func, seed, product_dtype
        )
        self.lockstep = Lockstep(model, self.processes)
        self.company = Company(model, has_fixed_length)
        self.sums: dict[int, dict[str, torch.Tensor]] = {}
        self.counts: Counter[int] = Counter()
        self.record = PassRecord()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Puts the model in the modes that the pass needs, and afterwards back in its own."""
        with (
            without_copies(self._copies),
            evaluation_mode(self.model),
            only_trainable(self.model, ()),
            differentiable_mode(self.model),
            checkpointing_mode(self.model, lambda: self.tapped.taps),
        ):
            yield
        note_trainable(self.model)

    def add(
        self,
        batch: Mapping[str, Any] | None,
        groups: list[int] | None = None,
        *,
        place: int = 0,
        start: int | None = None,
    ) -> None:
        """
        Adds a batch.

        Args:
            batch (`dict[str, Any]`, *optional*):
                Model inputs and labels. `None` if only other processes of a sharded model have more.
            groups (`list[int]`, *optional*):
                The group of every example. By default all examples belong to group 0.
            place (`int`, *optional*, defaults to `0`):
                Place of the batch in the whole data set.
            start (`int`, *optional*):
                Position of the first example in the whole data set. By default it follows the examples added before.
        """
        examples = None
        if batch is not None:
            examples = self._grouped(self._prepared(batch), groups, self.counts.total() if start is None else start)
        if self.processes.are_several:
            examples = self._in_step(self.lockstep.align(examples, self.tapped.device))
        for group, members in examples.groups.items():
            if group not in self.sums:
                self.sums[group] = self._zeros()
            self.counts[group] += len(members)
        if self.record.first is None:
            self.record.first = place
        for run in examples.runs:
            # Before the first examples the sums are zeros, which saves a second set.
            is_start = self.record.num_examples == 0 and run.start == 0
            zeros = self.sums[next(iter(examples.groups))] if is_start else None
            is_learnt = self._prepare(self.company.take(examples.batch, run), zeros)
            if is_learnt and (place, run.start) != (self.record.first, 0):
                self.record.probed.append((place, run.start, run.stop))
            step = self._micro_batch_size(len(run))
            for first in range(run.start, run.stop, step):
                self._add_micro_batch(examples, range(first, min(first + step, run.stop)), place)
        self.record.position = place + 1
        self.record.num_examples = self.counts.total()

    def total(self) -> dict[str, torch.Tensor]:
        """The sums of group 0; zeros before the first batch."""
        return self.sums[0] if self.sums else self._zeros()

    def held_total(self) -> dict[str, torch.Tensor]:
        """The part of [`~FisherAccumulation.total`] that this process holds."""
        return {name: local_part(total)[0] for name, total in self.total().items()}

    def diagonals(self) -> dict[int, FisherDiagonal]:
        """The Fisher diagonal of every group."""
        if not self.sums:
            raise ValueError(
                "There was no example to compute the Fisher information on: the iterable of batches is empty."
            )
        # Sharded sums are already those of all processes; the counts are not.
        counts = sum(self.processes.gather(self.counts), Counter())
        return {
            group: FisherDiagonal(
                {name: total.contiguous() for name, total in sums.items()},
                counts[group],
                self.fisher_type,
                self.record.fallback,
            )
            for group, sums in self.sums.items()
        }

    def replay(self, batch: Mapping[str, Any], place: int, record: PassRecord) -> None:
        """Learns again what an interrupted pass learnt about the model from a batch; adds nothing to the sums."""
        examples = self._grouped(self._prepared(batch), None, 0)
        if place == record.first:
            self._prepare(self.company.take(examples.batch, examples.runs[0]))
        for _, first, stop in (probed for probed in record.probed if probed[0] == place):
            micro_batch = self.company.take(examples.batch, range(first, stop))
            if not self._prepare(micro_batch):
                with torch.enable_grad():
                    self.tapped.forward(micro_batch)

    def restore(self, record: PassRecord, sums: Mapping[str, torch.Tensor]) -> None:
        """Takes over the record and the sums of an interrupted pass."""
        self.record = record
        self.tapped.output_bytes = record.output_bytes
        self.company.reason, self.company.longest = record.apart, record.longest
        self.counts[0] = record.num_examples
        self.sums[0] = self._zeros()
        for name, total in self.sums[0].items():
            local_part(total)[0].copy_(sums[name])

    def _prepared(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return move_batch(prepare_batch(self.model, batch), self.tapped.device)

    def _grouped(self, batch: dict[str, Any], groups: list[int] | None, start: int) -> GroupedBatch:
        """Sorts a batch into examples that may run together."""
        if self.processes.are_several:
            return group_examples(self.model, batch, groups, start)
        if self.tapped.likelihood is None:
            self.tapped.find_likelihood(batch)
        if self.self_check and self.company.wants(batch):
            self._look_at(group_examples(self.model, batch, groups, start, self._kinds(batch)))
        return group_examples(self.model, batch, groups, start, self._kinds(batch))

    def _in_step(self, examples: GroupedBatch) -> GroupedBatch:
        """Divides the batches of the processes of a sharded model alike."""
        if self.tapped.likelihood is None:
            self.tapped.find_likelihood(examples.batch)
        kinds = set().union(*self.processes.gather(set(self._kinds(examples.batch) or ())))
        if len(kinds) < 2:
            return examples
        if row_signatures(self.model, examples.batch) is not None and self.company.reason is None:
            raise ValueError(
                "The rows of a batch have images, videos or sounds of different numbers or sizes, and the processes "
                "of a sharded model must all run the same layers. Run this model in one process."
            )
        return replace(examples, runs=[range(example, example + 1) for example in range(examples.size)])

    def _kinds(self, batch: dict[str, Any]) -> list[Any] | None:
        kinds = [kinds for kinds in (row_signatures(self.model, batch), self.company.kinds(batch)) if kinds]
        return list(zip(*kinds, strict=True)) if kinds else None

    def _look_at(self, examples: GroupedBatch) -> None:
        """Looks on the first batch, and on longer ones, whether examples change each other's results."""
        largest = max(examples.runs, key=len)
        self.company.look(self.company.take(examples.batch, largest), self.tapped.likelihood)
        self.record.apart, self.record.longest = self.company.reason, self.company.longest

    def _prepare(self, batch: dict[str, Any], zeros: Mapping[str, torch.Tensor] | None = None) -> bool:
        """Learns on the first batch of a kind how to treat the model; returns whether there was anything to learn."""
        is_first = self.tapped.num_kinds == 0
        if self.company.reason is not None or self.tapped.is_prepared(batch):
            return False
        if num_examples(batch) < 2 and (not is_first or unexplained_tensors(self.model, batch)):
            # Two passes would cost more than the one-example path.
            return False
        self.tapped.prepare(batch)
        if not self.self_check:
            excluded = find_hidden_parameters(self.tapped, select_examples(self.model, batch, [0]))
            self.tapped.excluded |= excluded
            return True
        pair = select_examples(self.model, batch, _pair(batch))
        zeros = self._zeros() if zeros is None else zeros
        wrong = self._differing_without_padding(pair, zeros)
        if wrong:
            by_engine = find_differing_parameters(self.tapped, pair, zeros)
            if set(wrong) - set(by_engine) and self.company.cuts:
                self.company.keep_apart("on the length to which they are padded")
                self.record.apart = self.company.reason
            self.tapped.excluded |= excluded_parameters(by_engine)
        return True

    def _differing_without_padding(self, pair: dict[str, Any], zeros: Mapping[str, torch.Tensor]) -> list[str]:
        """Compares with the reference that runs rows without padding, where the model takes rows without it."""
        if self.company.can_cut:
            try:
                return find_differing_parameters(self.tapped, pair, zeros, own_padding=True)
            except (RuntimeError, ValueError, IndexError):
                for total in zeros.values():
                    total.zero_()
        return find_differing_parameters(self.tapped, pair, zeros)

    def _micro_batch_size(self, size: int) -> int:
        """
        The number of examples that are run together, of a batch of `size`.

        On a CPU, logits that do not fit the cache cost more time than larger batches save. The result is the same.
        The processes of a sharded model must run the same passes, whatever the length of their sequences, so their
        batches are not split.
        """
        if self.company.reason is not None:
            return 1
        if self.processes.are_several or self.tapped.device.type != "cpu":
            return size
        return min(size, max(2, _CACHE_BYTES // max(1, self.tapped.output_bytes)))

    def _add_micro_batch(self, examples: GroupedBatch, chosen: range, place: int) -> None:
        batch = self.company.take(examples.batch, chosen)
        positions = examples.positions[chosen.start : chosen.stop]
        parts = [
            (
                range(max(members.start, chosen.start) - chosen.start, min(members.stop, chosen.stop) - chosen.start),
                self.sums[group],
            )
            for group, members in examples.groups.items()
            if self.processes.are_several or (members.start < chosen.stop and chosen.start < members.stop)
        ]
        if self.company.reason is not None:
            untapped = dict.fromkeys(self.tapped.parameters, self.company.reason)
            self.record.fallback |= untapped
        elif not self.tapped.is_prepared(batch):
            # A single example costs as much this way as by taps.
            untapped = dict.fromkeys(self.tapped.parameters)
        else:
            num_probes = self.tapped.num_probes
            untapped = self.tapped.add_tapped_squares_(batch, positions, parts)
            self.record.probed += [(place, chosen.start, chosen.stop)] * (self.tapped.num_probes - num_probes)
            self.record.output_bytes = self.tapped.output_bytes
            self.record.fallback |= untapped
        if untapped:
            self.tapped.add_squares_one_by_one_(batch, positions, parts, untapped)
        check_finite_sums(self.tapped, batch, positions, parts)

    def _zeros(self) -> dict[str, torch.Tensor]:
        # With the parameters' strides, so that a view of a parameter has its like in the sums; sharded like them.
        return {
            name: torch.zeros_like(
                parameter, dtype=sum_dtype(parameter), device=self.accumulator_device, requires_grad=False
            )
            for name, parameter in self.held.items()
        }


def _pair(batch: Mapping[str, Any]) -> Sequence[int]:
    """Two examples that differ in padding, if any do."""
    lengths = row_lengths(batch)
    if min(lengths) == max(lengths):
        return range(min(2, len(lengths)))
    return sorted((lengths.index(min(lengths)), lengths.index(max(lengths))))
