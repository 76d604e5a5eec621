# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The public report: the record that card, plots and the published `report.json` are made from."""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..evaluation.measures import Measure, trial_measure
from ..evaluation.samples import MIN_SAMPLE
from ..evaluation.stages import AFTER_REPAIR, BEFORE, QUANTIZATION_STAGES, REFERENCE, STAGES, StageResult
from ..report.json_record import JsonRecord
from ..report.report import UnlearningReport
from ..selection.fisher_plane import FisherPlane
from ..selection.search import SMALL_REQUEST
from .public_records import PublicIntegrity, PublicMeasure, PublicRelearning, PublicTrial, ResetShare
from .redaction import (
    Redaction,
    check_disclosure,
    public_measures,
    public_quantiles,
    public_relearning,
    public_trial_figures,
    round_to_digits,
    withheld_measure,
)


logger = logging.getLogger(__name__)

# The settings that are published. Others may hold paths, ids or names that tell where the data came from.
SETTINGS = (
    *("fisher_type", "reset_value", "reset_scope", "num_train_epochs", "max_steps", "learning_rate"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "bf16", "fp16", "forget_penalty", "hard_example_share", "pretrained_hub_id"),
)

# Both together are the training data, whose number may be known.
_TRAINING_DATA = ("forget", "retain")

# The name of a module in a layer: the layer is the first number in it.
_LAYER = re.compile(r"(?P<stack>.*?)\.(?P<layer>\d+)(?P<rest>\..+)")
_NUMBER = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True)
class PublicReport(JsonRecord):
    """
    The public form of an [`UnlearningReport`]: a closed list of fields, none of which tells which data were forgotten.
    It never holds figures by class or names of evaluation sets.

    With `disclosure="withheld"` it does not tell the number of forgotten examples either:

    - Figures of the forgotten examples are those of 50 examples drawn from them, and figures of the retained ones
      and the unseen ones those of 200, or of 50 if they are fewer than 200; see [`evaluation.samples`].
    - Numbers of other examples are lower bounds: the next lower of 1, 2 and 5 times a power of ten.
    - Shares and areas of the forgotten and the retained examples are rounded to 2 points, others to one; all other
      figures to two digits.
    - Intervals of shares and areas are computed from the rounded figure and that few examples alone.
    - Metrics of the caller on all these examples are left out.
    - Which weights were reset, and how many, is left out: counts, modules, the plane of both Fishers, thresholds and
      results at other thresholds. Weights without a forget Fisher are the words that no forgotten example has, and
      their number is as good as the number of examples.
    - Figures of fewer than 50 forgotten or retained examples are left out, and so are the rule of the selection, the
      seed and the seconds.

    Args:
        disclosure (`str`): `"withheld"`, `"size"` or `"description"`.
        description (`str`, *optional*): The owner's description of the forgotten data.
        model_class (`str`): Class of the model.
        settings (`dict[str, Any]`): Settings of the Fisher pass, the reset and the repair.
        rule (`str`, *optional*): The rule of the selection; none if withheld.
        gamma (`float`, *optional*): The ratio of forget to retain Fisher above which weights were reset; none if
            withheld.
        num_in_scope (`int`): Weights that could be reset.
        num_selected (`int`, *optional*): Weights that were reset; none if withheld.
        share (`float`, *optional*): `num_selected / num_in_scope`; none if withheld.
        modules (`tuple[ResetShare, ...]`): The same counts by layer and kind of module; empty if withheld.
        measures (`tuple[PublicMeasure, ...]`): The results.
        withheld (`tuple[str, ...]`): Data sets whose results are left out because they have too few examples.
        loss_quantiles (`dict[str, dict[str, dict[str, float]]]`): Quantiles of the losses by stage and data set.
        loss_unit (`str`): The unit of the losses.
        integrity ([`PublicIntegrity`]): Which weights changed and which did not.
        versions (`dict[str, str]`): Versions of the libraries.
        seconds (`float`, *optional*): Wall-clock seconds of the run; none if withheld.
        seed (`int`, *optional*): The seed; none if withheld, because it may have drawn the forget data.
        plane ([`FisherPlane`], *optional*): Numbers of weights by both Fishers; none if withheld.
        trial_measure (`str`, *optional*): The measure of the trials.
        trials (`tuple[PublicTrial, ...]`): Results at other thresholds; empty if withheld.
        relearning ([`PublicRelearning`], *optional*): How fast training on the forgotten data brings them back.
        further_relearning (`dict[str, PublicRelearning]`): The same for training on other data; `RELEARNING_DATA`
            lists them.
        base_model (`str`, *optional*): Hub id of the original model, or of an adapter's base model.
        base_model_revision (`str`, *optional*): Its commit.
        commitment (`str`, *optional*): The keyed commitment to the forgotten data, see [`ForgetCommitment`].
        frozen_share (`float`): Share of all weights that were frozen and out of scope.
        drawn (`bool`): Whether figures are those of drawn examples. False in reports of earlier versions and if not
            withheld.
    """

    disclosure: str
    description: str | None
    model_class: str
    settings: dict[str, Any]
    rule: str | None
    gamma: float | None
    num_in_scope: int
    num_selected: int | None
    share: float | None
    modules: tuple[ResetShare, ...]
    measures: tuple[PublicMeasure, ...]
    withheld: tuple[str, ...]
    loss_quantiles: dict[str, dict[str, dict[str, float]]]
    loss_unit: str
    integrity: PublicIntegrity
    versions: dict[str, str]
    seconds: float | None
    seed: int | None = None
    plane: FisherPlane | None = None
    trial_measure: str | None = None
    trials: tuple[PublicTrial, ...] = ()
    relearning: PublicRelearning | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    commitment: str | None = None
    further_relearning: dict[str, PublicRelearning] = field(default_factory=dict)
    frozen_share: float = 0.0
    drawn: bool = False

    @classmethod
    def of(
        cls,
        report: UnlearningReport,
        disclosure: str | None = None,
        description: str | None = None,
        *,
        commitment: str | None = None,
    ) -> "PublicReport":
        """
        Makes the public form of a report.

        Args:
            report ([`UnlearningReport`]):
                The report of the run.
            disclosure (`str`, *optional*):
                What the public report tells about the forgotten data: `"withheld"` (nothing), `"size"` (their number)
                or `"description"` (their number and a description). By default the `forget_disclosure` of the run.
            description (`str`, *optional*):
                The owner's description of the forgotten data. By default the `forget_description` of the run.
            commitment (`str`, *optional*):
                The keyed commitment to the forgotten data.

        Raises:
            `ValueError`: If `disclosure` is unknown, or does not fit `description`.
        """
        if disclosure is None:
            disclosure = report.settings.get("forget_disclosure", "withheld")
            if description is None:
                description = report.settings.get("forget_description")
        check_disclosure(disclosure, description)
        names = _public_names(report)
        stages = {stage: report.stages[stage] for stage in STAGES | QUANTIZATION_STAGES if stage in report.stages}
        policy = Redaction(False)
        if disclosure == "withheld":
            policy = Redaction(True, _without_drawn(stages))
            stages = {stage: result.of_sample() for stage, result in stages.items()}
        selection, gamma = report.selection, report.selection.gamma
        share = selection.num_selected / selection.num_in_scope
        forget = stages[BEFORE].splits["forget"]
        relearning = {} if "forget" in policy.left_out else report.relearning_by_data()
        if policy.withholds:
            relearning = {data: found.sample for data, found in relearning.items() if found.sample is not None}
        relearning = {data: public_relearning(found, policy) for data, found in relearning.items()}
        public = cls(
            disclosure=disclosure,
            description=description if disclosure == "description" else None,
            model_class=report.model_class,
            settings=_public_settings(report, policy),
            rule=None if policy.withholds else selection.rule,
            # Infinite if the retain Fisher of all selected weights is 0.
            gamma=round_to_digits(gamma, 4) if gamma is not None and math.isfinite(gamma) else None,
            num_in_scope=selection.num_in_scope,
            num_selected=selection.num_selected,
            share=round(share, 4),
            modules=tuple(_reset_shares(selection.per_module)),
            measures=tuple(public_measures(stages, names, policy)),
            withheld=policy.left_out,
            loss_quantiles=_loss_quantiles(stages, policy),
            loss_unit="nats" if forget.tokens is None else "nats per token",
            integrity=PublicIntegrity(**vars(report.integrity)),
            versions=dict(report.versions),
            seconds=round_to_digits(sum(report.seconds.values()), 3),
            seed=None if policy.withholds else report.seed,
            plane=None if selection.plane is None else _rounded(selection.plane),
            trial_measure=trial_measure(forget).name if report.gamma_trials else None,
            trials=_public_trials(report, trial_measure(forget), names, policy),
            relearning=relearning.pop("forget", None),
            further_relearning=relearning,
            base_model=report.provenance.base_model,
            base_model_revision=report.provenance.revision,
            commitment=commitment,
            frozen_share=round(selection.frozen_share, 4),
            drawn=policy.withholds,
        )
        return public._without_selection() if policy.withholds else public

    def as_withheld(self) -> "PublicReport":
        """
        What this version publishes of a report that an earlier version has published as `"withheld"`: nothing that was
        measured on all forgotten or retained examples. Of a report of this version it is the same.
        """
        if self.drawn:
            return self
        policy = Redaction(True, _TRAINING_DATA)
        return replace(
            self._without_selection(),
            measures=tuple(
                withheld_measure(measure, policy)
                for measure in self.measures
                if not policy.hides(measure.split, measure.name)
            ),
            withheld=policy.left_out,
            loss_quantiles={},
            relearning=None,
            further_relearning={},
            drawn=True,
        )

    def _without_selection(self) -> "PublicReport":
        """Without what follows from the selected weights and from the time, which follow from the forgotten rows."""
        return replace(
            self,
            gamma=None,
            num_selected=None,
            share=None,
            modules=(),
            integrity=replace(self.integrity, num_selected_changed=None, num_frozen_weights=None),
            seconds=None,
            plane=None,
            trial_measure=None,
            trials=(),
        )

    def relearning_by_data(self) -> dict[str, PublicRelearning]:
        """All relearning results, by the data that the copy was trained on."""
        own = {} if self.relearning is None else {"forget": self.relearning}
        return own | self.further_relearning

    def measure(self, split: str, name: str) -> PublicMeasure | None:
        """Finds a measure by its data set and name."""
        return next((m for m in self.measures if (m.split, m.name) == (split, name)), None)


def _public_names(report: UnlearningReport) -> dict[str, str]:
    """The published names of the data sets. Evaluation sets are numbered, because their names are the caller's."""
    splits = list(report.stages[BEFORE].splits)
    named = [split for split in splits if split.startswith("eval_")]
    numbered = {split: f"eval {number}" if len(named) > 1 else "eval" for number, split in enumerate(named, 1)}
    return {split: numbered.get(split, split) for split in splits}


def _without_drawn(stages: Mapping[str, StageResult]) -> tuple[str, ...]:
    """The data sets with fewer rows than are drawn for publication. Earlier versions drew none."""
    if any(result.sample is None for result in stages.values()):
        logger.warning(
            "The run was measured by a version of hf_deepclean that did not draw rows for publication, and figures of "
            "all rows tell how many there are. So the results on the forgotten and the retained data are left out. "
            'Run again to publish them, or publish the number of rows too (`forget_disclosure="size"`).'
        )
        return _TRAINING_DATA
    drawn = stages[BEFORE].sample.splits
    return tuple(split for split in _TRAINING_DATA if drawn[split].num_examples < MIN_SAMPLE)


def _public_settings(report: UnlearningReport, policy: Redaction) -> dict[str, Any]:
    settings = {name: report.settings[name] for name in SETTINGS if name in report.settings}
    if "forget_penalty" in settings:
        settings["forget_penalty"] = report.forget_penalty()
    most = report.settings.get("max_repair_rounds", 1)
    if policy.withholds and most > 1 and settings.get("max_steps", -1) <= 0:
        # Many forgotten rows need more rounds.
        settings["max_repair_rounds"] = most
    elif not policy.withholds and len(report.retained_by_round) > 1:
        settings["repair_rounds"] = len(report.retained_by_round)
    if not policy.withholds and report.stages[BEFORE].splits["forget"].num_examples <= SMALL_REQUEST:
        settings["small_request"] = True
    return settings


def _loss_quantiles(stages: Mapping[str, StageResult], policy: Redaction) -> dict[str, dict[str, dict[str, float]]]:
    shown = {stage: stages[stage] for stage in (BEFORE, AFTER_REPAIR, REFERENCE) if stage in stages}
    quantiles = {stage: public_quantiles(result, policy) for stage, result in shown.items()}
    return {stage: of_stage for stage, of_stage in quantiles.items() if of_stage}


def _public_trials(
    report: UnlearningReport, measure: Measure, names: Mapping[str, str], policy: Redaction
) -> tuple[PublicTrial, ...]:
    return tuple(
        PublicTrial(
            trial.gamma,
            round(trial.num_selected / report.selection.num_in_scope, 4),
            {} if trial.result is None else public_trial_figures(trial.result, measure, names, policy),
        )
        for trial in report.gamma_trials
    )


def _rounded(plane: FisherPlane) -> FisherPlane:
    shares = tuple((round_to_digits(gamma, 3), round(share, 4)) for gamma, share in plane.share_by_gamma)
    return replace(plane, share_by_gamma=shares)


def _reset_shares(per_module: Mapping[str, tuple[int, int]]) -> list[ResetShare]:
    """Adds up modules by layer and kind. Modules that differ by further numbers, such as experts, are of one kind."""
    places = {name: _LAYER.fullmatch(name) for name in per_module}
    stacks = {place["stack"] for place in places.values() if place}
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for name, (selected, total) in per_module.items():
        place = places[name]
        layer, kind = ("", name) if place is None else (place["layer"], _NUMBER.sub(".*", place["rest"])[1:])
        if place is not None and len(stacks) > 1:
            # Encoder and decoder, for example.
            kind = f"{place['stack']}.*.{kind}"
        before = counts.get((layer, kind), (0, 0))
        counts[layer, kind] = (before[0] + selected, before[1] + total)
    return [
        ResetShare(layer, kind, selected, total, round(selected / total, 4))
        for (layer, kind), (selected, total) in counts.items()
    ]
