# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The table of all measures. Reports, public reports, cards, plots and summaries read it.

The caller's own metrics (`SplitResult.metrics`) may have any name and are not in the table.
"""

from dataclasses import dataclass
from typing import Literal

from .results import SplitResult, TokenResult


# A figure, and its 95 % interval if it has one.
Estimate = tuple[float, tuple[float, float] | None]

Kind = Literal["share of examples", "share of tokens", "area", "loss", "perplexity", "divergence"]


@dataclass(frozen=True)
class Measure:
    """
    What a figure measures.

    Args:
        name (`str`): Name of the figure in reports, tables and cards.
        kind (`str`): `"share of examples"` or `"share of tokens"` (both from 0 to 1), `"area"` (under a curve, from 0
            to 1), `"loss"`, `"perplexity"` or `"divergence"`.
        direction (`int`): 1 if the figure rises with what the model knows of the data, -1 if it falls, 0 if neither.
        explanation (`str`): What it measures and which values are good, in the words of the card.
        hub_type (`str`, *optional*): The Hub's name of the metric, for the metadata of a card. None if the Hub has no
            name for it; the metadata then use `name`.
        needs_unseen (`bool`): Whether the figure compares the forget data with unseen data.
    """

    name: str
    kind: Kind
    direction: int
    explanation: str = ""
    hub_type: str | None = None
    needs_unseen: bool = False

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share, which is shown in percent."""
        return self.kind in ("share of examples", "share of tokens")


ACCURACY = Measure(
    "accuracy",
    "share of examples",
    1,
    "*Accuracy*: share of examples whose most probable class is the label. Higher is better on retained, evaluation "
    "and unseen data. On the forgotten data the reference's value is the target; above it the model still knows them.",
    "accuracy",
)
TOKEN_ACCURACY = Measure(
    "token accuracy",
    "share of tokens",
    1,
    "*Token accuracy*: share of scored tokens that are the model's first choice. Higher is better on data to keep. On "
    "the forgotten data the reference's value is the target.",
    "accuracy",
)
MEAN_LOSS = Measure(
    "mean loss",
    "loss",
    -1,
    "*Mean loss*: negative log-likelihood of an example, in nats. Lower is better on data to keep. On the forgotten "
    "data the reference's value is the target: a lower loss means that the model still knows them, a much higher loss "
    "that they stand out as forgotten.",
    "loss",
)
PERPLEXITY = Measure(
    "perplexity",
    "perplexity",
    -1,
    "*Perplexity*: exponential of the mean loss per token. Lower is better on data to keep. On the forgotten data the "
    "reference's value is the target.",
    "perplexity",
)
VERBATIM = Measure(
    "verbatim",
    "share of examples",
    1,
    "*Verbatim*: share of texts whose scored part greedy decoding reproduces word for word. Lower is better on the "
    "forgotten data.",
    "exact_match",
)
ALL_TOKENS_RIGHT = Measure(
    "all tokens right",
    "share of examples",
    1,
    "*All tokens right*: share of examples without a wrong token. Lower is better on the forgotten data, down to the "
    "reference.",
    "exact_match",
)
EXTRACTION_STRENGTH = Measure(
    "extraction strength",
    "share of tokens",
    1,
    "*Extraction strength*: the largest share of a text's end that the model completes from the text before it, "
    "mean over texts. Lower is better on the forgotten data, down to the reference.",
)
MEMBERSHIP_AUC = Measure(
    "membership AUC",
    "area",
    1,
    "*Membership AUC*: the chance that an attack by confidence takes a forgotten example for training data rather "
    "than an example that was never seen. At 0.5 the attack cannot tell them apart; above, the forgotten data still "
    "look trained on; below, they stand out as forgotten.",
    needs_unseen=True,
)
MEMBERSHIP_TPR = Measure(
    "membership TPR at 1 % FPR",
    "share of examples",
    1,
    "*Membership TPR at 1 % FPR*: share of forgotten examples that the attack recognises when it may be wrong about "
    "1 % of unseen examples. Lower is better; 1 % is chance.",
    needs_unseen=True,
)
MIN_K_AUC = Measure(
    "Min-K% membership AUC",
    "area",
    1,
    "*Min-K%*: the same attack by the least probable tokens of a text.",
    needs_unseen=True,
)
# The card explains it together with the area.
MIN_K_TPR = Measure("Min-K% membership TPR at 1 % FPR", "share of examples", 1, needs_unseen=True)
DIVERGENCE = Measure(
    "JS divergence to reference",
    "divergence",
    0,
    "*JS divergence to reference*: distance of the answers on the forgotten data from those of the reference, from 0 "
    "(the same) to 0.693 (nothing in common). Lower is better.",
)

# All measures by name, in the order in which a card explains them.
MEASURES = {
    measure.name: measure
    for measure in (
        *(ACCURACY, TOKEN_ACCURACY, MEAN_LOSS, PERPLEXITY, VERBATIM, ALL_TOKENS_RIGHT, EXTRACTION_STRENGTH),
        *(MEMBERSHIP_AUC, MEMBERSHIP_TPR, MIN_K_AUC, MIN_K_TPR, DIVERGENCE),
    )
}
# How often the model's first choice is right. Every head that predicts classes or tokens has one of these.
ACCURACIES = (ACCURACY, TOKEN_ACCURACY)
# How many examples have every token right. Every token-level head has one of these.
EXACT_MATCHES = (VERBATIM, ALL_TOKENS_RIGHT)


def measure_of_figure(figure: str) -> Measure | None:
    """
    The measure of a figure of [`StageResult.figures`], such as `"forget accuracy"`.

    Returns:
        [`Measure`], *optional*: None for a metric of the caller.
    """
    found = [measure for name, measure in MEASURES.items() if f" {figure}".endswith(f" {name}")]
    # "forget token accuracy" ends with "accuracy" too.
    return max(found, key=lambda measure: len(measure.name), default=None)


def recall_measure(result: SplitResult) -> Measure:
    """The measure of how much a model knows of a data set: an accuracy if its head has one, else the mean loss."""
    if result.accuracy is not None:
        return ACCURACY
    return MEAN_LOSS if result.tokens is None else TOKEN_ACCURACY


def trial_measure(result: SplitResult) -> Measure:
    """The measure that is published for a trial: exact matches for token-level heads, else [`recall_measure`]."""
    if result.tokens is None:
        return recall_measure(result)
    return ALL_TOKENS_RIGHT if result.tokens.extraction_strength is None else VERBATIM


def estimate_of(measure: Measure, result: SplitResult) -> Estimate:
    """The figure of a measure on one data set, and its interval."""
    return _measured(result)[measure.name]


def estimates_of_split(result: SplitResult) -> dict[str, Estimate]:
    """The figures of one data set and their intervals, by name. The caller's metrics come last."""
    return _measured(result) | {metric: (value, None) for metric, value in result.metrics.items()}


def _measured(result: SplitResult) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    if result.accuracy is not None:
        estimates[ACCURACY.name] = result.accuracy, result.accuracy_interval
    if result.tokens is None:
        return estimates | {MEAN_LOSS.name: (result.mean_loss, result.mean_loss_interval)}
    return estimates | _measured_of_tokens(result.tokens)


def _measured_of_tokens(tokens: TokenResult) -> dict[str, Estimate]:
    estimates = {
        TOKEN_ACCURACY.name: (tokens.accuracy, tokens.accuracy_interval),
        PERPLEXITY.name: (tokens.perplexity, tokens.perplexity_interval),
    }
    matches = tokens.num_verbatim / tokens.num_examples, tokens.verbatim_interval
    if tokens.extraction_strength is None:
        return estimates | {ALL_TOKENS_RIGHT.name: matches}
    strength = tokens.extraction_strength, tokens.extraction_strength_interval
    return estimates | {EXTRACTION_STRENGTH.name: strength, VERBATIM.name: matches}
