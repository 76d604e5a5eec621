# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What an unlearning run would do and cost, estimated on a sample; nothing is changed or written."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..report.results import SelectionResult
from ..report.tables import aligned


@dataclass(frozen=True)
class UnlearningPreview:
    """
    Estimates of an unlearning run, from a sample of its data. All of them are estimates: other examples, longer texts
    and other load of the machine change them.

    Args:
        model_class (`str`): Class of the model.
        selection ([`SelectionResult`]): The weights that would be reset if the sample were all there is.
        num_sampled (`dict[str, int]`): Examples of the forget and the retain data in the sample.
        num_repair_steps (`int`): Optimizer steps of the repair.
        seconds (`dict[str, float]`): Estimated wall-clock seconds per phase.
        fisher_bytes (`int`): Memory of the sums of the forget and the retain Fisher, which are held at the same time.
        optimizer_bytes (`int`): Memory of the optimizer's state and of the selected indices.
    """

    model_class: str
    selection: SelectionResult
    num_sampled: dict[str, int]
    num_repair_steps: int
    seconds: dict[str, float]
    fisher_bytes: int
    optimizer_bytes: int

    def __str__(self) -> str:
        sample = " and ".join(f"{count:,} {split} examples" for split, count in self.num_sampled.items())
        selected, total = self.selection.num_selected, self.selection.num_in_scope
        seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in self.seconds.items())
        lines = [
            f"Dry run of {self.model_class}: nothing was changed or written. Everything below is an estimate from "
            f"{sample}.",
            "",
            *aligned(self.selection.rows()),
            "",
            f"The rule {self.selection.rule!r} would reset about {selected:,} of {total:,} weights.",
            f"Estimated seconds: {seconds}; {sum(self.seconds.values()):.1f} in all, of which the repair takes "
            f"{self.num_repair_steps:,} steps.",
            f"Memory beside model and activations: Fisher sums {_size(self.fisher_bytes)}, optimizer state "
            f"{_size(self.optimizer_bytes)}.",
        ]
        return "\n".join(lines)


class TimedCollator:
    """
    A collator that notes when it is called, so that the time from batch to batch is known.

    Args:
        collator (`Callable`):
            The collator, called in this process. If it has a random generator of its own, that stays as it is.
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
        The time that `num_examples` take, if those since the last call are like them; starts anew.

        The first batch is a warm-up: what it took beyond the others is counted once.

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


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.2f} GiB"
