# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The record of an unlearning run. Console tables, JSON, public report, plots and card are made from it."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ..evaluation.recovery import RelearningResult
from ..evaluation.stages import BEFORE, REFERENCE, StageResult
from ..reset.natural import NaturalResetResult
from ..selection.search import SelectionSearch
from ..selection.subtraction import KeptFisherResult
from ..selection.sweep import GammaTrial
from .console import format_report
from .json_record import JsonRecord
from .plan import RunPlan
from .provenance import Provenance
from .results import IntegrityResult, SelectionResult
from .shortfalls import find_shortfalls


REPORT_NAME = "report.json"


@dataclass(frozen=True)
class UnlearningReport(JsonRecord):
    """
    Everything an unlearning run measured.

    Args:
        model_class (`str`): Class of the model.
        settings (`dict[str, Any]`): The unlearning and repair settings that were used. `reset_value_from` says where
            the checkpoint before fine-tuning was found, and `base_checkpoint` says it to people, or what it costs that
            none was.
        selection ([`SelectionResult`]): Which weights were reset.
        num_fisher_examples (`dict[str, int]`): Examples in the forget and in the retain Fisher.
        stages (`dict[str, StageResult]`): Results by stage; `STAGES` and `QUANTIZATION_STAGES` list the stages.
        integrity ([`IntegrityResult`]): Which weights changed and which did not.
        seconds (`dict[str, float]`): Wall-clock seconds per phase.
        versions (`dict[str, str]`): Versions of the libraries.
        seed (`int`): The seed.
        fisher_fallback (`dict[str, str]`): Parameters without a batched rule, with the reason. Their Fisher is exact
            too.
        kept_fisher ([`KeptFisherResult`], *optional*): What the kept Fisher was used for, if the run had one.
        provenance ([`Provenance`]): Where the model before unlearning comes from.
        gamma_trials (`tuple[GammaTrial, ...]`): Results at other thresholds, if `gamma_sweep` was set.
        relearning ([`RelearningResult`], *optional*): How fast training on the forget data brings them back, if that
            was measured.
        further_relearning (`dict[str, RelearningResult]`): The same for training on other data; `RELEARNING_DATA`
            lists them.
        search ([`SelectionSearch`], *optional*): The trials of the selection `"auto"`.
        natural ([`NaturalResetResult`], *optional*): What a natural reset did.
        retained_by_round (`tuple[float, ...]`): What the model knew of the retain data after each round of the repair.
        plan ([`RunPlan`], *optional*): What the run was planned to do and to cost. `None` in a report of an earlier
            version.
        saved (`dict[str, str]`): Digests of what the run saved: of all tensors under `"weights"`, and of every other
            file under its name. Empty in a report of an earlier version.
    """

    # It holds the names of requests, and how many rows were forgotten.
    _file_mode: ClassVar[int] = 0o600

    model_class: str
    settings: dict[str, Any]
    selection: SelectionResult
    num_fisher_examples: dict[str, int]
    stages: dict[str, StageResult]
    integrity: IntegrityResult
    seconds: dict[str, float]
    versions: dict[str, str]
    seed: int
    fisher_fallback: dict[str, str] = field(default_factory=dict)
    kept_fisher: KeptFisherResult | None = None
    provenance: Provenance = Provenance()
    gamma_trials: tuple[GammaTrial, ...] = ()
    relearning: RelearningResult | None = None
    further_relearning: dict[str, RelearningResult] = field(default_factory=dict)
    search: SelectionSearch | None = None
    natural: NaturalResetResult | None = None
    retained_by_round: tuple[float, ...] = ()
    plan: RunPlan | None = None
    saved: dict[str, str] = field(default_factory=dict)

    def relearning_by_data(self) -> dict[str, RelearningResult]:
        """All relearning results, by the data that the copy was trained on."""
        own = {} if self.relearning is None else {"forget": self.relearning}
        return own | self.further_relearning

    def of_request(self, name: str) -> "UnlearningReport":
        """
        The report on one of several requests that were answered together: all figures of the forget data are those of
        this request's rows. Relearning is left out, because it is measured for all requests together.

        Args:
            name (`str`):
                Name of the request.

        Raises:
            `ValueError`: If there is no such request.
        """
        known = list(self.stages[BEFORE].requests)
        if name not in known:
            raise ValueError(
                f"There is no request {name!r}. The requests of this run are {', '.join(known) or 'not named'}."
            )
        return replace(
            self,
            stages={stage: result.of_request(name) for stage, result in self.stages.items()},
            gamma_trials=tuple(trial.of_request(name) for trial in self.gamma_trials),
            relearning=None,
            further_relearning={},
        )

    def gaps_to_reference(self, stage: str) -> dict[str, float]:
        """
        Every figure of a stage minus the figure of the reference model. 0 is the target.

        Args:
            stage (`str`):
                The stage, such as `"after_repair"`.

        Raises:
            `ValueError`: If the run had no reference model.
        """
        if REFERENCE not in self.stages:
            raise ValueError(
                "This run had no reference model. Pass `reference_model`, retrained without the forget data."
            )
        reference = self.stages[REFERENCE].figures()
        return {
            name: value - reference[name] for name, value in self.stages[stage].figures().items() if name in reference
        }

    def forget_penalty(self) -> float:
        """The weight of the [`ForgetPenalty`] in the repair, 0 if the repair had none."""
        if self.search is None or self.search.unseen_losses is None:
            return 0.0
        return self.settings.get("forget_penalty", 0.0)

    def shortfalls(self) -> list[str]:
        """
        Sentences about what the run did not reach, whatever the rule of selection: retained data, or a class of them,
        that the repair did not bring back, a mean loss of them that rose, and forget data that do not look like unseen
        data, or as if their classes were unknown; then also what training anew would cost. Empty if nothing fell
        short.
        """
        return find_shortfalls(self.stages, self.search, self.plan)

    def __str__(self) -> str:
        return format_report(self)


def load_report(path: str | os.PathLike[str]) -> UnlearningReport:
    """
    Loads the report of a finished run.

    Args:
        path (`str`):
            The output directory of the run, or the report.json in it.

    Raises:
        `FileNotFoundError`: If there is no report.
        `ValueError`: If the file is not the report of a run.
    """
    file = Path(path) / REPORT_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {file}. Only the output directory of a finished run holds a report: call `unlearn()` first, "
            "which writes it."
        )
    try:
        return UnlearningReport.load(file)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{file} is not the report of a run ({type(error).__name__}: {error}). Pass the output directory of the "
            "run: a published folder holds only the public form of the report."
        ) from None
