# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a run was planned to do and to cost."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunPlan:
    """
    What a run does at most, and what that costs in row passes. A row pass is the forward and the backward pass of one
    row, as in training.

    Args:
        budget (`float`): Share of the training that the run may cost.
        training_steps (`int`, *optional*): Optimizer steps of the training that made the model, if they are known.
        training_passes (`float`, *optional*): The row passes of that training.
        passes (`dict[str, float]`): The planned row passes by phase, in the order of the phases. Phases over a stream,
            whose length is unknown, are not in it.
        evaluation_passes (`float`, *optional*): The row passes of the evaluations for the report, which do not count
            in the budget. `None` with a stream.
        max_fisher_examples (`int`, *optional*): At most this many examples of each data set enter its Fisher; `None`
            for all.
        num_trials (`int`): Number of trials of the selection `"auto"`.
        num_trial_examples (`int`): At most this many forget and retain examples are evaluated in a trial.
        num_repair_steps (`int`): Number of optimizer steps of the repair.
        is_repair_cut (`bool`): Whether these are fewer than `num_train_epochs` epochs.
        max_repair_rounds (`int`): At most this many rounds of the repair.
        num_forget, num_retain (`int`, *optional*): Number of rows of the data sets; `None` for a stream.
        max_evaluated_examples (`int`): At most this many retain rows are evaluated at every stage.
        notes (`tuple[str, ...]`): What the owner should know of the plan.
        over_budget (`str`, *optional*): Says that the budget does not suffice, with both figures.
        is_within_an_epoch (`bool`): Whether a round of the repair reads the retain set at most once.
        retrain_instead (`str`, *optional*): Says that training anew is cheaper, with both figures.
    """

    budget: float
    training_steps: int | None
    training_passes: float | None
    passes: dict[str, float]
    evaluation_passes: float | None
    max_fisher_examples: int | None
    num_trials: int
    num_trial_examples: int
    num_repair_steps: int
    is_repair_cut: bool
    max_repair_rounds: int
    num_forget: int | None
    num_retain: int | None
    max_evaluated_examples: int
    notes: tuple[str, ...] = ()
    over_budget: str | None = None
    is_within_an_epoch: bool = False
    retrain_instead: str | None = None

    @property
    def budget_passes(self) -> float | None:
        """The row passes that the run may cost. `None` if the length of the training is unknown."""
        return None if self.training_passes is None else self.budget * self.training_passes

    @property
    def total(self) -> float:
        """The planned row passes, without those of the evaluations."""
        return sum(self.passes.values())

    def rows(self, seconds: Mapping[str, float]) -> list[list[str]]:
        """
        Returns the plan as rows of a table.

        Args:
            seconds (`dict[str, float]`):
                The estimated or measured seconds by phase.
        """
        known = self.training_passes is not None
        rows = [["plan", "row passes", *(["of the training"] if known else []), "seconds"]]

        def add(name: str, passes: float | None, of: float | None) -> None:
            share = (
                "" if passes is None or not self.training_passes else f"{100 * passes / self.training_passes:.1f} %"
            )
            cells = ["" if passes is None else f"{passes:,.0f}", *([share] if known else [])]
            rows.append([name, *cells, "" if of is None else f"{of:.1f}"])

        for phase, passes in self.passes.items():
            add(phase, passes, seconds.get(phase))
        add("together", self.total, sum(seconds.get(phase, 0.0) for phase in self.passes))
        if known:
            add("budget", self.budget_passes, None)
        add("evaluation (beside the budget)", self.evaluation_passes, seconds.get("evaluation"))
        return rows

    def sentences(self) -> list[str]:
        """What the owner should know, first whether to train anew instead."""
        return [sentence for sentence in (self.retrain_instead, self.over_budget, *self.notes) if sentence]

    def after_a_shortfall(self) -> list[str]:
        """What else can be done where the run fell short."""
        found = []
        if self.is_repair_cut:
            found.append(
                f"The plan gave the repair {self.num_repair_steps:,} steps, fewer than `num_train_epochs` epochs; "
                "`max_steps` sets their number."
            )
        if self.training_steps is not None and None not in (self.num_forget, self.num_retain):
            share = self.num_retain / (self.num_forget + self.num_retain)
            found.append(
                f"The run was planned within {self.total:,.0f} row passes. If it matters, fine-tune the checkpoint "
                f"again without these rows: about {max(1, round(share * self.training_steps)):,} steps, "
                f"{share * self.training_passes:,.0f} row passes. Or raise `budget`."
            )
        return found
