# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The state of one Fisher pass."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ..data.batches import move_batch, num_examples, select_examples, split_labels
from ..models.contexts import checkpointing_mode, differentiable_mode, evaluation_mode, only_trainable
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import LogLikelihoodFunction, check_finite_log_likelihood
from ..runtime.sharded_models import (
    held_parameters,
    named_parameters,
    note_trainable,
    parameters_in_passes,
    without_copies,
)
from ..runtime.shards import add_full_tensor_, local_part, processes_of
from .checkpoint import PassRecord
from .checks import check_fisher_type
from .diagonal import FisherDiagonal
from .engine.layouts import sum_dtype
from .engine.probe import CallKey, Layouts, probe_layouts
from .engine.reference import visit_example_gradients
from .engine.scores import fisher_scores
from .engine.taps import FisherTaps


logger = logging.getLogger(__name__)

# About the last-level cache of one socket.
_CACHE_BYTES = 2**25


class FisherAccumulation:
    """
    The state of one pass: sums and counts by group, the position in the data, and what is known of the ops.

    Args:
        model, parameters, fisher_type, log_likelihood_func, seed, self_check, product_dtype:
            As for [`accumulate_fisher_diagonal`].

    Attributes:
        record ([`~checkpoint.PassRecord`]): How far the pass is, and what it has learnt of the model on the way.
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
    ) -> None:
        check_fisher_type(fisher_type, log_likelihood_func)
        # A compiled model would compile the taps in; the module under it is the same model.
        model = getattr(model, "_orig_mod", model)
        if parameters is None:
            parameters = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
        if not parameters:
            raise ValueError(
                "No parameter to compute the Fisher information for: none was given and none requires gradients."
            )
        _check_present(parameters)
        _check_differentiable(model)
        self.model = model
        self.held = held_parameters(model, parameters)
        self.processes = processes_of(self.held.values())
        self.parameters, self.copies = parameters_in_passes(model, self.held)
        self.accumulator_device = accumulator_device
        self.fisher_type = fisher_type
        self.log_likelihood_func = log_likelihood_func
        self.seed = seed
        self.self_check = self_check
        self.product_dtype = product_dtype
        self.sums: dict[int, dict[str, torch.Tensor]] = {}
        self.counts: Counter[int] = Counter()
        self.spare: dict[str, Any] | None = None
        self.taps: AbstractContextManager[Any] = nullcontext()
        self.layouts: Layouts = {}
        self.not_probed: set[CallKey] = set()
        self.excluded: dict[str, str] = {}
        self.record = PassRecord()
        self._is_prepared = False
        self._current: tuple[int, int, int] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The model as the pass needs it, afterwards as it was."""
        with (
            without_copies(self.copies),
            evaluation_mode(self.model),
            only_trainable(self.model, ()),
            differentiable_mode(self.model),
            checkpointing_mode(self.model, lambda: self.taps),
        ):
            yield
        note_trainable(self.model)

    def diagonals(self) -> dict[int, FisherDiagonal]:
        if not self.sums:
            raise ValueError(
                "There was no example to compute the Fisher information on: the iterable of batches is empty."
            )
        # What shards hold is the sum over the processes already; the counts are not yet.
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

    def in_step(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any] | None]:
        """
        The batches; in a sharded model, whose processes must run the same passes, `None` where only others have more.
        """
        if not self.processes.are_several:
            yield from batches
            return
        iterator = iter(batches)
        while True:
            batch = next(iterator, None)
            if all(self.processes.gather(batch is None)):
                return
            yield batch

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
            batch (`dict[str, Any]`):
                Model inputs and labels; none where only other processes of a sharded model have more.
            groups (`list[int]`, *optional*):
                The group of every example; by default all belong to group 0.
            place (`int`, *optional*, defaults to `0`):
                Which batch of the whole data set it is.
            start (`int`, *optional*):
                Position of its first example in the whole data set, by default after the examples added before.
        """
        parts: dict[int, range] = {}
        positions: Sequence[int] = ()
        if batch is not None:
            batch = self._prepared(batch)
            start, size = self.counts.total() if start is None else start, num_examples(batch)
            if groups is not None and len(groups) != size:
                raise ValueError(
                    f"A batch holds {size} documents in {len(groups)} rows; packed rows have no single group. Do not "
                    "pack."
                )
            positions = range(start, start + size)
            parts = {0: range(size)}
            if groups is not None:
                order = sorted(range(size), key=groups.__getitem__)
                batch, positions = select_examples(batch, order), [start + index for index in order]
                ends = dict(zip(sorted(groups), range(1, size + 1), strict=True))
                starts = [0, *ends.values()]
                parts = {group: range(first, end) for (group, end), first in zip(ends.items(), starts, strict=False)}
        if self.processes.are_several:
            batch, positions, parts = self._level(batch, positions, parts)
        size = num_examples(batch)
        for group, examples in parts.items():
            if group not in self.sums:
                self.sums[group] = self._zeros()
            self.counts[group] += len(examples)
        sums = [(examples, self.sums[group]) for group, examples in parts.items()]
        if not self._is_prepared:
            self.record.first = place
            self._prepare(batch, sums[0][1])
        step = self._micro_batch_size(size)
        for first in range(0, size, step):
            micro_batch = range(first, min(first + step, size))
            self._current = (place, micro_batch.start, micro_batch.stop)
            self._add_micro_batch(
                select_examples(batch, micro_batch) if step < size else batch,
                positions[micro_batch.start : micro_batch.stop],
                [
                    (range(max(examples.start, first) - first, min(examples.stop, micro_batch.stop) - first), part)
                    for examples, part in sums
                    if self.processes.are_several or (examples.start < micro_batch.stop and first < examples.stop)
                ],
            )
        self._current = None
        self.record.position = place + 1
        self.record.num_examples = self.counts.total()

    def total(self) -> dict[str, torch.Tensor]:
        """The sums of group 0; zeros before the first batch."""
        return self.sums[0] if self.sums else self._zeros()

    def held_total(self) -> dict[str, torch.Tensor]:
        """What this process holds of them."""
        return {name: local_part(total)[0] for name, total in self.total().items()}

    def replay(self, batch: Mapping[str, Any], place: int, record: PassRecord) -> None:
        """Learns of the model again what an interrupted pass learnt from a batch; adds nothing."""
        batch = self._prepared(batch)
        if place == record.first:
            self._prepare(batch, self._zeros())
        for _, first, stop in (probed for probed in record.probed if probed[0] == place):
            micro_batch = select_examples(batch, range(first, stop)) if stop - first < num_examples(batch) else batch
            with torch.enable_grad():
                self._forward(split_labels(micro_batch)[0], micro_batch)

    def restore(self, record: PassRecord, sums: Mapping[str, torch.Tensor]) -> None:
        """Goes on from what an interrupted pass had."""
        self.record = record
        self.counts[0] = record.num_examples
        self.sums[0] = self._zeros()
        for name, total in self.sums[0].items():
            local_part(total)[0].copy_(sums[name])

    def _prepared(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return move_batch(prepare_batch(self.model, batch), next(iter(self.parameters.values())).device)

    def _level(
        self, batch: dict[str, Any] | None, positions: Sequence[int], parts: dict[int, range]
    ) -> tuple[dict[str, Any], Sequence[int], dict[int, range]]:
        """
        Makes the passes of this process those of all: as many examples, of which the added ones belong to no group,
        and all groups, though this process has no example of some.
        """
        needs_example = batch is None and self.spare is None
        size = 0 if batch is None else len(positions)
        found = self.processes.gather((size, list(parts), needs_example))
        if batch is not None:
            self.spare = select_examples(batch, [0])
        if any(needs for *_, needs in found):
            spares = self.processes.gather(self.spare and move_batch(self.spare, torch.device("cpu")))
            if needs_example:
                device = next(iter(self.parameters.values())).device
                self.spare = move_batch(next(spare for spare in spares if spare is not None), device)
        num_added = max(other for other, *_ in found) - size
        batch = select_examples(self.spare if batch is None else batch, [*range(size), *[0] * num_added])
        groups = sorted({group for _, others, _ in found for group in others})
        return batch, [*positions, *[0] * num_added], {group: parts.get(group, range(0)) for group in groups}

    def _micro_batch_size(self, size: int) -> int:
        """
        The number of examples that are run together, of `size`.

        On a CPU, logits that do not fit the cache cost more than larger batches save. The result is the same. The
        processes of a sharded model must run the same passes, whatever the length of their sequences.
        """
        if self.processes.are_several or next(iter(self.parameters.values())).device.type != "cpu":
            return size
        return min(size, max(2, _CACHE_BYTES // max(1, self.record.output_bytes)))

    def _add_micro_batch(
        self,
        batch: dict[str, Any],
        positions: Sequence[int],
        sums: Sequence[tuple[range, Mapping[str, torch.Tensor]]],
    ) -> None:
        untapped = self._add_tapped(batch, positions, sums)
        self.record.fallback |= untapped
        if untapped:
            self._add_one_by_one(batch, positions, untapped, sums)
        self._check_finite(batch, positions, sums)

    def _add_one_by_one(
        self,
        batch: dict[str, Any],
        positions: Sequence[int],
        names: Iterable[str],
        sums: Sequence[tuple[range, Mapping[str, torch.Tensor]]],
    ) -> None:
        together = self.processes.are_several

        def add(example: int, name: str, gradient: torch.Tensor) -> None:
            for examples, part in sums:
                if example in examples:
                    add_full_tensor_(part[name], gradient.to(part[name].dtype).square())
                elif together:
                    add_full_tensor_(part[name], torch.zeros_like(gradient, dtype=part[name].dtype))

        examples = range(num_examples(batch))
        visit_example_gradients(add, together=together, **self._reference_arguments(batch, positions, names, examples))

    def _zeros(self) -> dict[str, torch.Tensor]:
        # With the parameters' strides, so that a view of a parameter has its like in the sums; sharded like them.
        return {
            name: torch.zeros_like(
                parameter, dtype=sum_dtype(parameter), device=self.accumulator_device, requires_grad=False
            )
            for name, parameter in self.held.items()
        }

    def _prepare(self, batch: dict[str, Any], zeros: dict[str, torch.Tensor]) -> None:
        """Finds out, on the first batch, how the model is to be treated; `zeros` are zeros again afterwards."""
        self._is_prepared = True
        self.likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)
        self.layouts = probe_layouts(self.model, batch, self.parameters)
        two = select_examples(batch, range(min(2, num_examples(batch))))
        if self.self_check:
            self._compare_with_reference(two, zeros)
            for total in zeros.values():
                total.zero_()
        else:
            self._find_unseen(select_examples(two, [0]))

    def _add_tapped(
        self,
        batch: dict[str, Any],
        positions: Sequence[int],
        sums: Sequence[tuple[range, Mapping[str, torch.Tensor]]],
    ) -> dict[str, str]:
        """Adds what the taps can; returns the other parameters with the reason."""
        inputs, labels = split_labels(batch)
        with torch.enable_grad():
            taps, outputs = self._forward(inputs, batch)
            scores = list(
                fisher_scores(
                    self.likelihood,
                    inputs,
                    outputs,
                    labels,
                    self.fisher_type,
                    positions=positions,
                    seed=self.seed,
                )
            )
        del outputs
        while scores:
            taps.backward(scores.pop(0), sums, retain_graph=bool(scores))
        return taps.untapped | self.excluded

    def _forward(self, inputs: dict[str, Any], batch: dict[str, Any]) -> tuple[FisherTaps, Any]:
        tapped = {name: p for name, p in self.parameters.items() if name not in self.excluded}
        while True:
            taps = self.taps = FisherTaps(tapped, self.layouts, num_examples(batch), self.product_dtype)
            with taps:
                outputs = self.model(**inputs)
            if all(self.processes.gather(taps.missing <= self.not_probed)):
                taps.agree(self.processes)
                self.record.output_bytes = max(map(_num_bytes, tree_leaves(outputs))) // num_examples(batch)
                return taps, outputs
            # The model takes a way through its ops that it has not taken before, such as that of a padded batch.
            self.layouts = probe_layouts(self.model, batch, tapped) | self.layouts
            self.not_probed |= taps.missing
            if self._current is not None:
                self.record.probed.append(self._current)

    def _reference_arguments(
        self,
        batch: dict[str, Any],
        positions: Sequence[int],
        names: Iterable[str],
        examples: Sequence[int],
    ) -> dict[str, Any]:
        return {
            "model": self.model,
            "batch": batch,
            "parameters": {name: self.parameters[name] for name in names},
            "fisher_type": self.fisher_type,
            "likelihood": self.likelihood,
            "positions": positions,
            "seed": self.seed,
            "examples": examples,
        }

    def _compare_with_reference(self, batch: dict[str, Any], differences: dict[str, torch.Tensor]) -> None:
        examples = range(num_examples(batch))
        untapped = self._add_tapped(batch, examples, [(examples, differences)])
        checked = [name for name, p in self.parameters.items() if name not in untapped and p.numel()]
        if not checked:
            return
        # The sums serve both: what remains when the reference is subtracted is the difference.
        largest = dict.fromkeys(checked, 0.0)

        def subtract(example: int, name: str, gradient: torch.Tensor) -> None:
            square = gradient.to(differences[name].dtype).square()
            largest[name] = max(largest[name], square.max().item())
            add_full_tensor_(differences[name], -square)

        visit_example_gradients(
            subtract,
            together=self.processes.are_several,
            **self._reference_arguments(batch, examples, checked, examples),
        )
        remaining = {name: local_part(differences[name])[0].abs() for name in checked}
        remaining = {name: value.max().item() if value.numel() else 0.0 for name, value in remaining.items()}
        figures = torch.tensor([list(largest.values()), list(remaining.values())], dtype=torch.float64)
        figures = self.processes.largest(figures)
        largest, remaining = (dict(zip(checked, row, strict=True)) for row in figures.tolist())
        wrong = []
        for name in checked:
            # A precision of bfloat16 in the products shows in the squares.
            precision = max(
                torch.finfo(dtype).eps for dtype in (self.parameters[name].dtype, self.product_dtype) if dtype
            )
            # Gradients that are zero but for rounding (key biases under a softmax) are noise and cannot be compared.
            size = max(largest[name], max(1e-8, precision) * max(largest.values()))
            # Where the reference is not finite there is nothing to compare; the pass will say so.
            if remaining[name] > min(0.5, 1e4 * precision) * size:
                wrong.append(name)
        if wrong:
            self.excluded = dict.fromkeys(wrong, "differed from the one-example reference in the self-check")
            logger.warning(
                f"The batched Fisher of {len(wrong)} parameters differs from the one-example reference on the first "
                f"batch; they take the exact one-example path, which is slower: {_modules_of(wrong)}."
            )

    def _find_unseen(self, example: dict[str, Any]) -> None:
        """A parameter that no op showed is unused, or was used where the taps do not see: autograd knows which."""
        taps, _ = self._forward(split_labels(example)[0], example)
        unseen = {name for name in self.parameters if not taps.num_uses[name] and name not in taps.untapped}
        hidden = {}

        def exclude(example: int, name: str, gradient: torch.Tensor) -> None:
            if name in unseen:
                hidden[name] = "used where no op shows it"

        anywhere = set().union(*self.processes.gather(unseen))
        if anywhere:
            names = [name for name in self.parameters if name in anywhere]
            visit_example_gradients(exclude, **self._reference_arguments(example, [0], names, [0]))
            for found in self.processes.gather(hidden):
                self.excluded |= found

    def _check_finite(
        self,
        batch: dict[str, Any],
        positions: Sequence[int],
        sums: Sequence[tuple[range, Mapping[str, torch.Tensor]]],
    ) -> None:
        # One answer for all parameters: reading each would make a device wait once per parameter and batch.
        finite = [local_part(total)[0].sum().isfinite() for _, part in sums for total in part.values()]
        if all(self.processes.gather(bool(torch.stack([value.to(finite[0].device) for value in finite]).all()))):
            return
        with torch.no_grad():
            inputs, labels = split_labels(batch)
            log_likelihood = self.likelihood(inputs, self.model(**inputs), labels)
        problems: list[str] = []

        def check(example: int, name: str, gradient: torch.Tensor) -> None:
            if not gradient.to(sum_dtype(gradient)).square().isfinite().all():
                problems.append(
                    f"The squared gradient of {name} is not finite for the example at position {positions[example]}. "
                    "Check that example and the model's weights; a half-precision model may overflow: try float32."
                )

        for example, position in enumerate(positions):
            try:
                check_finite_log_likelihood(log_likelihood[example : example + 1], position)
            except ValueError as error:
                problems.append(str(error))
            visit_example_gradients(check, **self._reference_arguments(batch, positions, self.parameters, [example]))
            # All processes of a sharded model stop at the same place.
            for found in self.processes.gather(problems):
                if found:
                    raise ValueError(found[0])
        raise ValueError(
            f"The sum of squared gradients overflowed in the batch that starts at position {min(positions)}. "
            "Use a float64 model, or scale the likelihood down."
        )


def _check_present(parameters: Mapping[str, torch.Tensor]) -> None:
    """Refuses parameters whose values are not loaded."""
    absent = [name for name, parameter in parameters.items() if parameter.is_meta]
    if absent:
        raise ValueError(
            f"{len(absent)} parameters, {absent[0]} first, are offloaded: they have no values between their layers' "
            "forward passes. Load the model without offloading to the CPU or the disk, over several devices if it "
            'does not fit one (`device_map="balanced"`), or leave these parameters out of scope.'
        )


def _check_differentiable(model: nn.Module) -> None:
    """Refuses models whose layers compute their parameters' gradients themselves, past autograd."""
    if getattr(getattr(model, "config", None), "model_type", None) == "reformer":
        raise ValueError(
            f"{type(model).__name__} has reversible layers, which write their parameters' gradients past autograd and "
            "only in training mode, with dropout on: per-example gradients cannot be taken. Use another architecture."
        )


def _num_bytes(output: Any) -> int:
    return output.nbytes if isinstance(output, torch.Tensor) else 0


def _modules_of(names: Sequence[str], num_shown: int = 8) -> str:
    """The modules that own the parameters, each once."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    rest = len(modules) - num_shown
    return ", ".join(modules[:num_shown]) + (f" and {rest} modules more" if rest > 0 else "")
