# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Estimates on a sample what an unlearning run would do and cost. Nothing is changed or written."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import torch

from ..data.held_out import HOW_TO_HOLD_OUT
from ..data.streams import is_stream
from ..evaluation.relearning import evaluated_steps
from ..fisher.diagonal import FisherDiagonal
from ..models.contexts import checkpointing_activations, restoring
from ..models.heads import model_class_name
from ..models.scope import frozen_share
from ..phases import Phases
from ..repair.plan import RepairPlan
from ..report.plan import RunPlan
from ..report.results import SelectionResult
from ..report.tables import align_columns, format_console_table
from ..reset.resetter import Reset
from ..runtime.processes import num_processes


@dataclass(frozen=True)
class UnlearningPreview:
    """
    Estimates of an unlearning run, from a sample of its data. Other examples, longer texts and other load of the
    machine change them.

    Args:
        model_class (`str`): Class of the model.
        selection ([`SelectionResult`]): The weights that would be reset if the sample were the whole data.
        num_sampled (`dict[str, int]`): Number of forget and retain examples in the sample.
        num_repair_steps (`int`): Number of optimizer steps of the repair.
        seconds (`dict[str, float]`): Estimated wall-clock seconds per phase.
        fisher_bytes (`int`): Memory of the sums of both Fishers, which are held at the same time, in bytes.
        optimizer_bytes (`int`): Memory of the optimizer's state and of the selected indices, in bytes.
        unseen (`str`): Where the unseen data come from, or how to hold some out.
        base_checkpoint (`str`): What the weights are rewound to, or what it costs that no checkpoint is at hand.
        plan ([`RunPlan`], *optional*): What the run may do and cost, beside the training.
    """

    model_class: str
    selection: SelectionResult
    num_sampled: dict[str, int]
    num_repair_steps: int
    seconds: dict[str, float]
    fisher_bytes: int
    optimizer_bytes: int
    unseen: str = ""
    base_checkpoint: str = ""
    plan: RunPlan | None = None

    def __str__(self) -> str:
        sample = " and ".join(f"{count:,} {split} examples" for split, count in self.num_sampled.items())
        selected, total = self.selection.num_selected, self.selection.num_in_scope
        seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in self.seconds.items())
        lines = [
            f"Dry run of {self.model_class}: nothing was changed or written. Everything below is an estimate from "
            f"{sample}.",
            "",
            *align_columns(self.selection.rows()),
            "",
            f"The rule {self.selection.rule!r} would reset about {selected:,} of {total:,} weights.",
            *self.selection.frozen_notes(),
            f"Estimated seconds: {seconds}; {sum(self.seconds.values()):.1f} in all, of which the repair takes "
            f"{self.num_repair_steps:,} steps.",
            f"Memory beside model and activations: Fisher sums {_size(self.fisher_bytes)}, optimizer state "
            f"{_size(self.optimizer_bytes)}.",
            *(note for note in (self.base_checkpoint, self.unseen) if note),
            *([] if self.plan is None else self.plan.sentences()),
            *([] if self.plan is None else ["", format_console_table(self.plan.rows(self.seconds))]),
        ]
        return "\n".join(lines)


class TimedCollator:
    """
    A collator that records when it is called, so that the time from batch to batch is known.

    Args:
        collator (`Callable`):
            The collator, called in this process. If it has its own random generator, the generator does not change.
    """

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collator = copy.copy(collator)
        if isinstance(getattr(collator, "generator", None), torch.Generator):
            self.collator.generator = collator.generator.clone_state()
        self.starts: list[float] = []
        self.sizes: list[int] = []

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        self.starts.append(time.perf_counter())
        self.sizes.append(len(rows))
        return self.collator(rows)

    def seconds(self, num_examples: int) -> float:
        """
        Estimates the seconds that `num_examples` take, from the batches since the last call. Then forgets these
        batches.

        The first batch is a warm-up: its additional time is counted once.

        Args:
            num_examples (`int`):
                Number of examples.
        """
        ends = [*self.starts[1:], time.perf_counter()]
        spans = [end - start for start, end in zip(self.starts, ends, strict=True)]
        sizes = self.sizes
        self.starts, self.sizes = [], []
        if len(spans) == 1:
            return spans[0] * max(1.0, num_examples / sizes[0])
        per_example = sum(spans[1:]) / sum(sizes[1:])
        return max(0.0, spans[0] - per_example * sizes[0]) + per_example * num_examples


@dataclass(frozen=True)
class PreviewRun:
    """
    A dry run on samples of the data.

    Args:
        phases ([`Phases`]):
            The phases of the run, with their own clock, and with `timer` as the collator of their source.
        timer ([`TimedCollator`]):
            Times the batches.
    """

    phases: Phases
    timer: TimedCollator

    def preview(self, num_examples: int) -> UnlearningPreview:
        """
        Runs all phases on samples. Weights, buffers, gradients, training flags and random states are restored
        afterwards.

        Args:
            num_examples (`int`):
                Size of the samples. Each phase takes at least two batches.

        Returns:
            [`UnlearningPreview`]
        """
        phases = self.phases
        with restoring(phases.model):
            fishers, seconds = self._fishers(num_examples)
            selection, search, found = phases.select_weights(*fishers.values())
            if phases.is_natural and found is None:
                phases = phases.rewinding()
            reset, plan = phases.make_resetter(found).reset(selection), phases.plan_repair(search)
            try:
                step, optimizer_bytes = self._measure_repair_step(reset, num_examples)
            finally:
                reset.undo()
            with phases.clock.phase("verification"):
                reset.guard.verify(phases.model)
            seconds["evaluation"] = self._evaluation_seconds(num_examples)
        return UnlearningPreview(
            model_class=model_class_name(phases.model),
            selection=SelectionResult.of(selection, frozen_share=frozen_share(phases.model, phases.args.reset_scope)),
            num_sampled={split: fisher.num_examples for split, fisher in fishers.items()},
            num_repair_steps=phases.plan.num_repair_steps,
            seconds=self._estimate_run(seconds, step, plan),
            fisher_bytes=sum(total.nbytes for fisher in fishers.values() for total in fisher.sums.values()),
            optimizer_bytes=optimizer_bytes,
            unseen=_unseen_note(self.phases.request.splits, phases.args.unseen_share_of_eval),
            base_checkpoint=phases.request.base_checkpoint.sentence(phases.request.reset_value),
            plan=phases.plan,
        )

    def _fishers(self, num_examples: int) -> tuple[dict[str, FisherDiagonal], dict[str, float]]:
        """Computes the Fishers of samples, and the seconds that Fishers of the whole data sets would take."""
        fishers, seconds = {}, {"evaluation": 0.0}
        for split in ("forget", "retain"):
            dataset = self.phases.request.splits[split]
            size = max(num_examples, 2 * self.phases.args.per_device_fisher_batch_size * num_processes())
            sample = self.phases.source.sample(dataset, size)
            fishers[split] = self.phases.compute_fisher(sample, f"{split} Fisher, sample")
            size = min(len(dataset), self.phases.max_fisher_examples(dataset) or len(dataset))
            seconds[f"{split} Fisher"] = self.timer.seconds(math.ceil(size / num_processes()))
        return fishers, seconds

    def _evaluation_seconds(self, num_examples: int) -> float:
        """Estimates the seconds of one evaluation of a model on all data sets."""
        size = max(num_examples, 2 * self.phases.args.eval_batch_size * num_processes())
        source, evaluator = self.phases.source, self.phases.make_evaluator()
        splits = evaluator.splits
        samples = {split: source.sample(splits[split], size) for split in ("forget", "retain")}
        replace(evaluator, splits=samples, compute_metrics=None).evaluate(self.phases.model)
        return self.timer.seconds(math.ceil(sum(map(len, splits.values())) / num_processes()))

    def _measure_repair_step(self, reset: Reset, num_examples: int) -> tuple[float, int]:
        """Measures the seconds of the second optimizer step, and the bytes that the optimizer holds."""
        args, model, source = self.phases.args, self.phases.model, self.phases.source
        trainer = self.phases.trainer.sibling(reset, self.timer)
        sample = source.sample(
            self.phases.request.retain_dataset, max(num_examples, 2 * args.train_batch_size * num_processes())
        )
        batches = chain.from_iterable(source.batches(sample, args.train_batch_size) for _ in count())
        with (
            trainer.only_selected_trainable(),
            checkpointing_activations(model, args),
        ):
            optimizer = trainer.create_optimizer()
            for group in optimizer.param_groups:
                # The work is the same, but the weights do not move.
                group["lr"] = 0.0
            model.train()
            for _ in range(2):
                start = time.perf_counter()
                for _, batch in islice(batches, args.gradient_accumulation_steps):
                    with trainer.accelerator.autocast():
                        loss = trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=1)
                    loss.backward()
                optimizer.step()
                model.zero_grad()
                seconds = time.perf_counter() - start
        self.timer.seconds(0)
        held = [*reset.selection.indices.values()]
        held += [value for state in optimizer.state.values() for value in state.values()]
        return seconds, sum(tensor.nbytes for tensor in held)

    def _estimate_run(self, seconds: dict[str, float], step: float, plan: RepairPlan) -> dict[str, float]:
        """Estimates the seconds of all phases from those of the Fishers, of an evaluation and of a repair step."""
        args, timed = self.phases.args, self.phases.clock.seconds
        evaluation, num_models = seconds["evaluation"], len(self.phases.request.models_to_compare)
        if plan.make_penalty is not None:
            # The penalty takes a forward and a backward pass of a forget batch, and a forward pass of an unseen batch.
            step *= 1 + (1 + 1 / 3) / (plan.make_penalty().period * args.gradient_accumulation_steps)
        seconds = seconds | {
            "evaluation": (2 + num_models) * evaluation,
            "selection": timed["selection"],
            **{phase: timed[phase] for phase in ("natural reset", "reset") if phase in timed},
            "repair": self.phases.plan.num_repair_steps * step + timed["verification"],
        }
        if args.gamma_sweep:
            seconds["gamma sweep"] = len(args.gamma_sweep) * (seconds["reset"] + evaluation)
        if args.relearning_steps > 0:
            splits = self.phases.make_evaluator().splits
            of_forget = evaluation * len(splits["forget"]) / sum(map(len, splits.values()))
            steps = args.relearning_steps * step / args.gradient_accumulation_steps
            curve = steps + len(evaluated_steps(args.relearning_steps)) * of_forget
            seconds["relearning"] = len(set(args.relearning_data)) * num_models * curve
        if args.quantization_bits:
            seconds["quantization"] = len(set(args.quantization_bits)) * num_models * evaluation
        if args.random_mask_control:
            seconds["control"] = seconds["reset"] + seconds["repair"] + 2 * evaluation
        return seconds


def check_no_streams(splits: Mapping[str, Any]) -> None:
    """
    Refuses a preview of streams, whose rows cannot be counted or drawn.

    Args:
        splits (`dict[str, Any]`):
            The data sets by name.
    """
    streams = [split for split, dataset in splits.items() if is_stream(dataset)]
    if streams:
        raise ValueError(
            f"A preview draws a sample and counts the rows, but the {streams[0]} data are a stream. Preview an "
            "unlearner with a part of them as a `datasets.Dataset`."
        )


def _unseen_note(splits: Mapping[str, Any], share: float | None) -> str:
    if "unseen" not in splits:
        return f"Membership would not be measured, and the repair would have no penalty. {HOW_TO_HOLD_OUT}"
    if share is None:
        return ""
    return (
        f"{len(splits['unseen']):,} unseen examples are taken from the evaluation data, whose figures leave them out."
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"
