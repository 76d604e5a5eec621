# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What of a report others may see: the record that card, pictures and the published `report.json` are made from."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..evaluation.intervals import wilson_interval
from ..evaluation.predictions import LOSS_QUANTILES, SplitResult
from ..report.report import (
    QUANTIZATION_STAGES,
    STAGES,
    IntegrityResult,
    JsonRecord,
    RelearningResult,
    StageResult,
    UnlearningReport,
    estimates_of_split,
)
from ..selection.fisher_plane import FisherPlane


FORGET_DISCLOSURES = ("withheld", "size", "description")

# Figures of fewer forgotten examples would say something of single ones.
MIN_FORGET_EXAMPLES = 50
# Of a distribution, no less than so many examples lie between two of its published points.
_MIN_EXAMPLES_PER_BIN = 10

# Of the settings only these: others may hold paths, ids or names that say where the data came from.
_SETTINGS = (
    *("fisher_type", "reset_value", "reset_scope", "num_train_epochs", "max_steps", "learning_rate"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "bf16", "fp16", "forget_penalty", "hard_example_share"),
)

# Shares of independent examples, and all shares.
_SIMPLE_SHARES = (
    *("accuracy", "verbatim", "all tokens right", "membership TPR at 1 % FPR", "Min-K% membership TPR at 1 % FPR"),
)
_SHARES = (*_SIMPLE_SHARES, "token accuracy", "extraction strength")
# A module within the first numbered one of its name.
_LAYER = re.compile(r"(?P<stack>.*?)\.(?P<layer>\d+)(?P<rest>\..+)")
_NUMBER = re.compile(r"\.\d+(?=\.|$)")

_AREAS = ("membership AUC", "Min-K% membership AUC")


@dataclass(frozen=True)
class Figure:
    """
    A published figure.

    Args:
        value (`float`): The value, rounded.
        interval (`tuple[float, float]`, *optional*): Its 95 % interval.
    """

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Measure:
    """
    One measure on one data set, at every stage.

    Args:
        split (`str`): `"forget"`, `"retain"`, `"unseen"`, `"eval"`, or `"eval 1"` and so on.
        name (`str`): Such as `"accuracy"` or `"membership AUC"`.
        unit (`str`): `"share"` (0 to 1), or `"number"`.
        num_examples (`dict[str, int]`): Examples of every data set that enters it; see [`PublicReport`].
        figures (`dict[str, Figure]`): The figures by stage, see `STAGES` and `QUANTIZATION_STAGES`.
    """

    split: str
    name: str
    unit: str
    num_examples: dict[str, int]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class ResetShare:
    """
    How much of the modules of one kind in one layer was reset.

    Args:
        layer (`str`): Number of the layer, or empty outside the layers.
        kind (`str`): Name of the module within its layer, with `*` for further numbers.
        num_selected (`int`): Weights that were reset.
        num_in_scope (`int`): Weights that could have been.
        share (`float`): The one divided by the other.
    """

    layer: str
    kind: str
    num_selected: int
    num_in_scope: int
    share: float


@dataclass(frozen=True)
class PublicTrial:
    """
    What another threshold would have done.

    Args:
        gamma (`float`): The ratio of forget to retain Fisher above which weights were reset.
        share (`float`): Share of the weights in scope that this reset.
        figures (`dict[str, float]`): By data set, the measure of `PublicReport.trial_measure` after the reset alone.
    """

    gamma: float
    share: float
    figures: dict[str, float]


@dataclass(frozen=True)
class PublicRelearning:
    """
    How fast the forgotten data are learned again.

    Args:
        measure (`str`): What was measured on them.
        learning_rate (`float`): The rate of the training.
        steps (`tuple[int, ...]`): After how many steps.
        curves (`dict[str, tuple[float, ...]]`): Of the cleaned model (`after_repair`) and of the `reference`.
        excess (`float`, *optional*): How much more of them the cleaned model recalls by it than the reference.
        num_forget_examples (`int`, *optional*): At most so many of them were trained on, if only a few; none if
            withheld.
    """

    measure: str
    learning_rate: float
    steps: tuple[int, ...]
    curves: dict[str, tuple[float, ...]]
    excess: float | None = None
    num_forget_examples: int | None = None


@dataclass(frozen=True)
class PublicReport(JsonRecord):
    """
    The public form of an [`UnlearningReport`]: a closed list of fields, none of which tells which data were forgotten.

    With `disclosure="withheld"` nothing tells how many they were either. Counts of examples are then lower bounds: 50
    for the forgotten ones, else the next lower of 1, 2 and 5 times a power of ten. Every interval is that of as few
    examples, so that it holds and does not give the number away. Figures are rounded so that the number cannot be
    read off them, those of fewer than 50 forgotten examples are left out, and so are the rule of selection, the seed
    and the seconds of the phases. In every form there are no figures by class and no names of evaluation sets.

    Args:
        disclosure (`str`): `"withheld"`, `"size"` or `"description"`.
        description (`str`, *optional*): What was forgotten, in the owner's words.
        model_class (`str`): Class of the model.
        settings (`dict[str, Any]`): Settings of the Fisher pass, the reset and the repair.
        rule (`str`, *optional*): The rule of selection; none if withheld.
        gamma (`float`, *optional*): The ratio of forget to retain Fisher from which weights were reset.
        num_in_scope (`int`): Weights that could be reset.
        num_selected (`int`): Weights that were.
        share (`float`): The one divided by the other.
        modules (`tuple[ResetShare, ...]`): The same by layer and kind of module.
        measures (`tuple[Measure, ...]`): The results.
        withheld (`tuple[str, ...]`): Data sets whose results are left out, because they have too few examples.
        loss_quantiles (`dict[str, dict[str, dict[str, float]]]`): Quantiles of the losses by stage and data set.
        loss_unit (`str`): What the losses are.
        integrity ([`IntegrityResult`]): What changed and what did not.
        versions (`dict[str, str]`): Versions of the libraries.
        seconds (`float`): Wall-clock seconds of the run.
        seed (`int`, *optional*): The seed; none if withheld, because it may have drawn the data to forget.
        plane ([`FisherPlane`], *optional*): Numbers of weights by both Fishers.
        trial_measure (`str`, *optional*): What the trials measured.
        trials (`tuple[PublicTrial, ...]`): What other thresholds would have done.
        relearning ([`PublicRelearning`], *optional*): How fast the forgotten data are learned again by training on
            them.
        further_relearning (`dict[str, PublicRelearning]`): The same by training on other data, see `RELEARNING_DATA`.
        base_model (`str`, *optional*): Hub id of the model from before, or of an adapter's base.
        base_model_revision (`str`, *optional*): Its commit.
        commitment (`str`, *optional*): The keyed commitment to the forgotten data, see [`ForgetCommitment`].
    """

    disclosure: str
    description: str | None
    model_class: str
    settings: dict[str, Any]
    rule: str | None
    gamma: float | None
    num_in_scope: int
    num_selected: int
    share: float
    modules: tuple[ResetShare, ...]
    measures: tuple[Measure, ...]
    withheld: tuple[str, ...]
    loss_quantiles: dict[str, dict[str, dict[str, float]]]
    loss_unit: str
    integrity: IntegrityResult
    versions: dict[str, str]
    seconds: float
    seed: int | None = None
    plane: FisherPlane | None = None
    trial_measure: str | None = None
    trials: tuple[PublicTrial, ...] = ()
    relearning: PublicRelearning | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    commitment: str | None = None
    further_relearning: dict[str, PublicRelearning] = field(default_factory=dict)

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
        The public form of a report.

        Args:
            report ([`UnlearningReport`]):
                The report of the run.
            disclosure (`str`, *optional*):
                What it tells of the forgotten data: `"withheld"` (nothing), `"size"` (how many there were) or
                `"description"` (what they were, too). By default the `forget_disclosure` of the run.
            description (`str`, *optional*):
                What they were, in the owner's words, by default the `forget_description` of the run.
            commitment (`str`, *optional*):
                The keyed commitment to the forgotten data.

        Raises:
            `ValueError`: If the two do not fit together.
        """
        if disclosure is None:
            disclosure = report.settings.get("forget_disclosure", "withheld")
            if description is None:
                description = report.settings.get("forget_description")
        check_disclosure(disclosure, description)
        policy = _Policy(disclosure == "withheld")
        names = _public_names(report)
        stages = {stage: report.stages[stage] for stage in STAGES | QUANTIZATION_STAGES if stage in report.stages}
        left_out = tuple(
            split for split, result in stages["before"].splits.items() if policy.is_too_small(split, result)
        )
        selection, gamma = report.selection, report.selection.gamma
        share = selection.num_selected / selection.num_in_scope
        settings = {name: report.settings[name] for name in _SETTINGS if name in report.settings}
        if "forget_penalty" in settings:
            settings["forget_penalty"] = report.forget_penalty()
        of_tokens = stages["before"].splits["forget"].tokens is not None
        trial_measure = _trial_measure(stages["before"].splits["forget"])
        relearning = {} if "forget" in left_out else report.relearning_by_data()
        relearning = {data: _relearning(found, policy) for data, found in relearning.items()}
        return cls(
            disclosure=disclosure,
            description=description if disclosure == "description" else None,
            model_class=report.model_class,
            settings=settings,
            rule=None if policy.withholds else selection.rule,
            # Infinite where all selected weights have a retain Fisher of 0.
            gamma=_significant(gamma, 4) if gamma is not None and math.isfinite(gamma) else None,
            num_in_scope=selection.num_in_scope,
            num_selected=selection.num_selected,
            share=round(share, 4),
            modules=tuple(_reset_shares(selection.per_module)),
            measures=tuple(_measures(stages, names, policy)),
            withheld=left_out,
            loss_quantiles={
                stage: quantiles
                for stage, result in stages.items()
                if stage in ("before", "after_repair", "reference") and (quantiles := _loss_quantiles(result, policy))
            },
            loss_unit="nats per token" if of_tokens else "nats",
            integrity=report.integrity,
            versions=dict(report.versions),
            seconds=_significant(sum(report.seconds.values()), 1 if policy.withholds else 3),
            seed=None if policy.withholds else report.seed,
            plane=None if selection.plane is None else _rounded(selection.plane),
            trial_measure=trial_measure if report.gamma_trials else None,
            trials=tuple(
                PublicTrial(
                    trial.gamma,
                    round(trial.num_selected / selection.num_in_scope, 4),
                    {} if trial.result is None else _trial_figures(trial.result, trial_measure, names, policy),
                )
                for trial in report.gamma_trials
            ),
            relearning=relearning.pop("forget", None),
            further_relearning=relearning,
            base_model=report.provenance.base_model,
            base_model_revision=report.provenance.revision,
            commitment=commitment,
        )

    def relearning_by_data(self) -> dict[str, PublicRelearning]:
        """All measurements of relearning by the data that were trained on."""
        own = {} if self.relearning is None else {"forget": self.relearning}
        return own | self.further_relearning

    def measure(self, split: str, name: str) -> Measure | None:
        """A measure by its data set and name, or none."""
        return next((m for m in self.measures if (m.split, m.name) == (split, name)), None)


def check_disclosure(disclosure: str, description: str | None) -> None:
    """
    Refuses a disclosure that does not exist, and a description that is missing or would not be shown.

    Raises:
        `ValueError`: Says what to pass.
    """
    if disclosure not in FORGET_DISCLOSURES:
        allowed = ", ".join(map(repr, FORGET_DISCLOSURES))
        raise ValueError(f"`forget_disclosure` is {disclosure!r} but must be one of {allowed}.")
    if (disclosure == "description") != bool(description):
        raise ValueError(
            "`forget_disclosure='description'` publishes what was forgotten in your words: give these as "
            "`forget_description`, and leave it out with 'withheld' and 'size', which do not show it."
        )


@dataclass(frozen=True)
class _Policy:
    """
    How figures are rounded and counts given.

    Args:
        withholds (`bool`): Whether numbers of examples must not be found out.
    """

    withholds: bool

    def is_too_small(self, split: str, result: SplitResult) -> bool:
        return self.withholds and split == "forget" and result.num_examples < MIN_FORGET_EXAMPLES

    def count(self, split: str, number: int) -> int:
        """The published number of examples, at most the true one."""
        if not self.withholds:
            return number
        return MIN_FORGET_EXAMPLES if split == "forget" else _rung(number)

    def figure(
        self, name: str, value: float, interval: tuple[float, float] | None, numbers: Mapping[str, int]
    ) -> Figure:
        """A figure of the given numbers of examples, with an interval of the published ones."""
        if not math.isfinite(value):
            interval = None
        if self.withholds and interval is not None:
            public = {split: self.count(split, number) for split, number in numbers.items()}
            interval = _widened(name, value, interval, numbers, public)
        rounded = self.rounding(name, min(self.count(split, number) for split, number in numbers.items()))
        return Figure(rounded(value), None if interval is None else (rounded(interval[0]), rounded(interval[1])))

    def rounding(self, name: str, number: int) -> Callable[[float], float]:
        """A share of few examples in tenths of a percent would tell how many they were."""
        if name in (*_SHARES, *_AREAS):
            decimals = 2 if self.withholds and number < 1000 else 3
            return lambda value: round(value, decimals)
        digits = 2 if self.withholds and number < 1000 else 3
        return lambda value: _significant(value, digits)


def _measures(stages: Mapping[str, StageResult], names: Mapping[str, str], policy: _Policy) -> list[Measure]:
    found: dict[tuple[str, str], Measure] = {}

    def add(split: str, name: str, numbers: Mapping[str, int], stage: str, value: float, interval: Any) -> None:
        unit = "share" if name in _SHARES else "number"
        public = {names[part]: policy.count(part, number) for part, number in numbers.items()}
        measure = found.setdefault((split, name), Measure(names[split], name, unit, public, {}))
        measure.figures[stage] = policy.figure(name, value, interval, numbers)

    for stage, result in stages.items():
        for split, of_split in result.splits.items():
            if policy.is_too_small(split, of_split):
                continue
            for name, (value, interval) in estimates_of_split(of_split).items():
                if name in of_split.metrics and split == "forget" and policy.withholds:
                    # What the caller's own metric gives away by its decimals is not known.
                    continue
                add(split, name, {split: of_split.num_examples}, stage, value, interval)
        if policy.is_too_small("forget", result.splits["forget"]):
            continue
        for name, (value, interval) in result.joint_estimates().items():
            numbers = {"forget": result.splits["forget"].num_examples}
            if "membership" in name:
                numbers["unseen"] = result.splits["unseen"].num_examples
            add("forget", name, numbers, stage, value, interval)
    return list(found.values())


def _widened(
    name: str,
    value: float,
    interval: tuple[float, float],
    numbers: Mapping[str, int],
    public: Mapping[str, int],
) -> tuple[float, float]:
    """The interval that as many examples as are published would have."""
    number, fewest = min(numbers.values()), min(public.values())
    # The variance of an area under the curve is at most A (1 - A) over the smaller number, as that of a share:
    # Birnbaum and Klose, Bounds for the variance of the Mann-Whitney statistic (1957).
    if name in (*_SIMPLE_SHARES, *_AREAS):
        return wilson_interval(value * fewest, fewest)
    factor = math.sqrt(number / fewest)
    if name == "perplexity":
        # An unlearned language model may well have one of infinity.
        with suppress(OverflowError):
            return tuple(value * (end / value) ** factor for end in interval)  # type: ignore[return-value]
        return interval[0], math.inf
    low, high = (value + (end - value) * factor for end in interval)
    if name in _SHARES:
        return max(0.0, low), min(1.0, high)
    # What cannot be negative, such as a divergence, has no interval that is.
    return max(0.0, low) if interval[0] >= 0 else low, high


def _rung(number: int) -> int:
    """The largest of 1, 2 and 5 times a power of ten that is not above a number."""
    power = 10 ** (len(str(number)) - 1)
    return max(step * power for step in (1, 2, 5) if step * power <= number)


def _significant(value: float, digits: int) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits}g}")


def _public_names(report: UnlearningReport) -> dict[str, str]:
    """What the data sets are called; the names of evaluation sets are the caller's."""
    splits = list(report.stages["before"].splits)
    named = [split for split in splits if split.startswith("eval_")]
    numbered = {split: f"eval {number}" if len(named) > 1 else "eval" for number, split in enumerate(named, 1)}
    return {split: numbered.get(split, split) for split in splits}


def _loss_quantiles(result: StageResult, policy: _Policy) -> dict[str, dict[str, float]]:
    """At the same levels for all, so that they can be compared."""
    shown = {split: result.splits[split] for split in ("forget", "unseen") if split in result.splits}
    shown = {split: of_split for split, of_split in shown.items() if not policy.is_too_small(split, of_split)}
    numbers = {split: policy.count(split, of_split.num_examples) for split, of_split in shown.items()}
    # Every one, every second, or the middle one of the nine deciles.
    fewest = min(numbers.values(), default=0)
    step = next((step for step in (1, 2, 5) if fewest * step >= 10 * _MIN_EXAMPLES_PER_BIN), None)
    if step is None:
        return {}
    levels = [f"{100 * level:.0f} %" for level in LOSS_QUANTILES[step - 1 :: step]]
    quantiles = {}
    for split, of_split in shown.items():
        rounded = policy.rounding("mean loss", numbers[split])
        quantiles[split] = dict(zip(levels, map(rounded, of_split.loss_deciles[step - 1 :: step]), strict=True))
    return quantiles


def _trial_measure(result: SplitResult) -> str:
    if result.tokens is None:
        return "mean loss" if result.accuracy is None else "accuracy"
    return "all tokens right" if result.tokens.extraction_strength is None else "verbatim"


def _trial_figures(result: StageResult, measure: str, names: Mapping[str, str], policy: _Policy) -> dict[str, float]:
    figures = {}
    for split, of_split in result.splits.items():
        if not policy.is_too_small(split, of_split):
            rounded = policy.rounding(measure, policy.count(split, of_split.num_examples))
            value, _ = estimates_of_split(of_split)[measure]
            figures[names[split]] = rounded(value)
    return figures


def _relearning(found: RelearningResult, policy: _Policy) -> PublicRelearning:
    rounded = policy.rounding(found.measure, MIN_FORGET_EXAMPLES)
    curves = {stage: tuple(map(rounded, curve)) for stage, curve in found.curves.items()}
    excess, number = found.excess(), found.num_forget_examples
    # Nobody asks for more of them than there are.
    if policy.withholds and number is not None and number > MIN_FORGET_EXAMPLES:
        number = None
    excess = None if excess is None else rounded(excess)
    return PublicRelearning(found.measure, found.learning_rate, found.steps, curves, excess, number)


def _rounded(plane: FisherPlane) -> FisherPlane:
    shares = tuple((_significant(gamma, 3), round(share, 4)) for gamma, share in plane.share_by_gamma)
    return replace(plane, share_by_gamma=shares)


def _reset_shares(per_module: Mapping[str, tuple[int, int]]) -> list[ResetShare]:
    """Modules of one layer that differ by further numbers, such as experts, count as one kind."""
    places = {name: _LAYER.fullmatch(name) for name in per_module}
    stacks = {place["stack"] for place in places.values() if place}
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for name, (selected, total) in per_module.items():
        place = places[name]
        layer, kind = ("", name) if place is None else (place["layer"], _NUMBER.sub(".*", place["rest"])[1:])
        if place is not None and len(stacks) > 1:
            # Such as an encoder and a decoder.
            kind = f"{place['stack']}.*.{kind}"
        before = counts.get((layer, kind), (0, 0))
        counts[layer, kind] = (before[0] + selected, before[1] + total)
    return [
        ResetShare(layer, kind, selected, total, round(selected / total, 4))
        for (layer, kind), (selected, total) in counts.items()
    ]
