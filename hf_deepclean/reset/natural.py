# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The natural reset: steps that take away the forget data and cost the retained data little."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from ..data.batches import IGNORED, move_batch, split_labels
from ..data.loaders import seeded_batches
from ..data.streams import by_length
from ..evaluation.evaluator import Evaluator
from ..evaluation.predictions import ExamplePredictions
from ..fisher.diagonal import FisherDiagonal
from ..models.contexts import autocasting, differentiable_mode, evaluation_mode, only_trainable, restoring
from ..models.heads import find_likelihood, prepare_batch
from ..models.label_alignment import logits_of
from ..models.likelihood import Likelihood
from ..runtime.sharded_models import named_parameters
from ..selection.knowledge import knowledge
from ..selection.weight_selection import WeightSelection
from .targets import ForgetTargets, estimate_targets, label_losses
from .weights import read_weights


# At most this many retained examples enter the Fisher that steps are divided by.
NUM_NATURAL_FISHER_EXAMPLES = 100
# Examples that show how hard rows are, and what a model knows of unseen rows.
NUM_RETAIN_EXAMPLES, NUM_UNSEEN_EXAMPLES = 150, 250
# At most this many forget examples show how long the whole movement must be, and as many retained what it costs.
NUM_SCALE_EXAMPLES = 64

# Added to the retain Fisher, as a share of its mean over all weights. Weights that matter to no retained example of
# the sample would move without bound.
_DAMPING = 1e-3
# Examples per step, passes over the forget data, and the least number of steps.
_STEP_SIZE, _NUM_PASSES, _MIN_STEPS = 25, 2, 4
# Rows of similar length are differentiated and evaluated together, with little padding.
_PART_SIZE, BATCH_SIZE = 13, 32
# The share of the best length that a step takes, since the next batch wants another one.
_CAUTION = 0.7
# The whole movement is made at most this many times as long, in at most this number of trials, or until the forget
# data are this near to their targets.
_MAX_SCALE, NUM_SCALES, _NEAR = 3.0, 4, 0.03
# Forget data whose log odds are within this of the targets already, in nats, leave nothing to forget.
_NOTHING_TO_FORGET = 0.2
# A natural reset that costs a sample of the retained data more knowledge than this is rejected.
MAX_RETAIN_DROP = 0.05
# A smaller loss counts as this one.
_LEAST_LOSS = 1e-6


@dataclass(frozen=True)
class NaturalResetResult:
    """
    What a natural reset did.

    Args:
        num_steps (`int`): Number of steps. 0: the forget data look like unseen data already, and no weight changed.
        scale (`float`): By how much the movement of the steps was made longer or shorter to meet the target.
        loss_before (`float`): Mean loss of the labels of the forget data before, per scored token for token-level
            heads, in nats.
        target_loss (`float`): What it should become.
        distance_before, distance_after (`float`): How far the mean log odds of the losses were and are below the
            target, in nats. Negative: less known than unseen data.
        movement (`float`): Norm of the change of the weights, as a share of the norm of what they changed since the
            checkpoint.
        target (`str`): `"unseen"` or `"chance"`.
        retain_before, retain_after (`float`): What the model knew and knows of a sample of the retain data; see
            [`knowledge`].
        is_rejected (`bool`): Whether it cost the retained data too much, as in a model without room for what it learnt
            by heart.
    """

    num_steps: int
    scale: float
    loss_before: float
    target_loss: float
    distance_before: float
    distance_after: float
    movement: float
    target: str
    retain_before: float = 0.0
    retain_after: float = 0.0
    is_rejected: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether there was something to forget."""
        return self.num_steps > 0


@dataclass(frozen=True)
class NaturalReset:
    """
    Finds new values for selected weights, such that the model answers on the forget data as on data that it never saw.

    A step follows the gradient of the distance of the forget data to their targets ([`estimate_targets`]), divided by
    the diagonal Fisher information of the retain data. This is a natural gradient of the retain data ([Amari,
    1998](https://doi.org/10.1162/089976698300017746)): of all changes with the same effect on the forget data, nearly
    the one with the least effect on the retained ones. So a weight moves the more, the larger its ratio of forget to
    retain Fisher is, and the depth of the reset is continuous.

    It holds up to five copies of the parameters.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        evaluator ([`Evaluator`]):
            Evaluates it on samples.
        batch_size (`int`):
            At most this many examples are differentiated at once.
        seed (`int`):
            Seed of the order of the rows.
    """

    model: nn.Module
    evaluator: Evaluator
    batch_size: int
    seed: int

    def values(
        self,
        selection: WeightSelection,
        pretrained: Mapping[str, torch.Tensor],
        retain: FisherDiagonal | None,
        target: str,
    ) -> tuple[dict[str, torch.Tensor], NaturalResetResult]:
        """
        Finds the new values. The model is afterwards what it was.

        Args:
            selection ([`WeightSelection`]):
                The weights that may move.
            pretrained (`dict[str, torch.Tensor]`):
                Parameters of the checkpoint before fine-tuning, by their names in the model and in the same shape.
            retain ([`FisherDiagonal`], *optional*):
                The Fisher of the retain data. Without it all weights count the same, for a control.
            target (`str`):
                `"unseen"` or `"chance"`; see [`estimate_targets`].

        Returns:
            `tuple[dict[str, torch.Tensor], NaturalResetResult]`: The new values of the selected weights, flat, and
                what was done.

        Raises:
            `ValueError`: If a row of the forget data makes no example, or several.
        """
        parameters = named_parameters(self.model)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items() if name in pretrained}
        since = {name: value - pretrained[name].to(value) for name, value in before.items()}
        before |= {name: parameters[name].detach().clone() for name in selection.indices if name not in before}
        with restoring(self.model), torch.no_grad():
            try:
                targets = self._targets(before, since, target)
                if targets.distance <= _NOTHING_TO_FORGET:
                    result = _result_of(targets, 0, 0.0, targets.distance, 0.0, target)
                    return read_weights(self.model, selection), result
                known = self._knowledge_of_retain()
                movement = _Movement(self, before, _metric(parameters, selection, retain))
                num_steps = movement.walk(targets)
                scale, distance = movement.meet(targets)
                after = self._knowledge_of_retain()
                share = movement.norm() / max(_norm(since.values()), 1e-30)
                values = read_weights(self.model, selection)
            finally:
                for name, value in before.items():
                    parameters[name].copy_(value)
        result = _result_of(targets, num_steps, scale, distance, share, target)
        is_rejected = known - after > MAX_RETAIN_DROP
        return values, replace(result, retain_before=known, retain_after=after, is_rejected=is_rejected)

    def _knowledge_of_retain(self) -> float:
        sample = self.evaluator.source.sample(self.evaluator.splits["retain"], NUM_SCALE_EXAMPLES)
        return knowledge(self._predict({"retain": sample})["retain"])

    def _targets(
        self, before: Mapping[str, torch.Tensor], since: Mapping[str, torch.Tensor], target: str
    ) -> ForgetTargets:
        splits, source = self.evaluator.splits, self.evaluator.source
        forget, retain = {"forget": splits["forget"]}, source.sample(splits["retain"], NUM_RETAIN_EXAMPLES)
        others = {"retain": retain}
        if target == "unseen":
            others = {"unseen": source.sample(splits["unseen"], NUM_UNSEEN_EXAMPLES)}
        now = self._predict(forget | others)
        parameters = named_parameters(self.model)
        for name, change in since.items():
            torch.sub(before[name], change, alpha=0.5, out=parameters[name].data)
        halfway = self._predict(forget | ({"retain": retain} if target == "unseen" else {}))
        for name in since:
            parameters[name].copy_(before[name])
        targets = estimate_targets(now, halfway, target)
        if len(targets.counts) != len(splits["forget"]):
            raise ValueError(
                f"`forget_dataset` has {len(splits['forget'])} rows, and its batches have {len(targets.counts)} "
                "examples. The reset value 'natural' needs one example of every row. Use a `data_collator` that makes "
                "one, or `reset_value='pretrained'`."
            )
        return targets

    def _predict(self, rows: Mapping[str, Any]) -> dict[str, ExamplePredictions]:
        return {split: self.predict(dataset, f"targets on {split}") for split, dataset in rows.items()}

    def predict(self, dataset: Any, description: str) -> ExamplePredictions:
        """The answers of the model on a small data set."""
        rows, places = by_length(dataset)
        evaluator = replace(self.evaluator, compute_metrics=None, batch_size=min(self.batch_size, BATCH_SIZE))
        answers = evaluator.predict(self.model, rows, description)
        # Rows that make no example, or several, are told later.
        return answers.select(places) if len(answers.log_likelihood) == len(places) else answers


@dataclass(frozen=True)
class _Movement:
    """The movement of the selected weights. The model stays where it is moved to."""

    reset: NaturalReset
    before: Mapping[str, torch.Tensor]
    metric: Mapping[str, torch.Tensor]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        every = named_parameters(self.reset.model)
        return {name: every[name] for name in self.metric}

    def walk(self, targets: ForgetTargets) -> int:
        """Takes all steps, and returns their number."""
        evaluator, model, seed = self.reset.evaluator, self.reset.model, self.reset.seed
        rows, collator = evaluator.source.rows_and_collator(evaluator.splits["forget"], "natural reset")
        ranks, size = by_length(rows)[1], min(self.reset.batch_size, _PART_SIZE)
        per_pass = max(1, round(len(rows) / _STEP_SIZE))
        num_passes = num_passes_over(len(rows))
        generator, length, likelihood = np.random.default_rng(seed), None, None
        with self._differentiating():
            for turn in range(num_passes):
                for number, places in enumerate(np.array_split(generator.permutation(len(rows)), per_pass)):
                    evaluator.interruption.check()
                    parts = []
                    places = places[np.argsort(ranks[places], kind="stable")]
                    for first in range(0, len(places), size):
                        part = places[first : first + size].tolist()
                        batches = seeded_batches(Subset(rows, part), len(part), collator, seed + turn + number)
                        batch = move_batch(prepare_batch(model, next(batches)[1]), next(model.parameters()).device)
                        parts.append((batch, targets.entries_of(part)))
                    likelihood = likelihood or find_likelihood(model, parts[0][0], evaluator.log_likelihood_func)
                    length = self._step(parts, likelihood, targets, length)
        return num_passes * per_pass

    def _step(self, parts: Any, likelihood: Likelihood, targets: ForgetTargets, length: float | None) -> float:
        """Takes a step along the gradient over the metric, as long as a parabola through two points says."""
        parameters, number = self.parameters, max(1, sum(len(places) for _, places in parts))

        def distance(differentiate: bool) -> float:
            total = 0.0
            for batch, places in parts:
                with torch.set_grad_enabled(differentiate):
                    part = _distance(self.reset.model, likelihood, batch, targets, places) / number
                if differentiate:
                    part.backward()
                total += float(part.detach())
            return total

        start = distance(True)
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        directions = {name: gradient * self.metric[name] for name, gradient in gradients.items()}
        slope = -sum(float((gradients[name] * direction).sum()) for name, direction in directions.items())
        self.reset.model.zero_grad(set_to_none=True)
        if slope == 0 or not math.isfinite(slope):
            # Nothing to gain, or gradients that the precision does not hold.
            return length or 0.0
        length = length or -start / slope / 2
        self._move(directions, length)
        there = distance(False)
        # Too far is no number at all in half precision.
        there = there if math.isfinite(there) else math.inf
        curvature = 2 * (there - start - slope * length) / length**2
        best = min(-slope / curvature, 4 * length) if curvature > 0 else 4 * length
        best = max(best, length / 10) * _CAUTION
        self._move(directions, best - length)
        return best

    @torch.no_grad()
    def _move(self, directions: Mapping[str, torch.Tensor], length: float) -> None:
        parameters = self.parameters
        for name, direction in directions.items():
            parameters[name].sub_(direction, alpha=length)

    @torch.no_grad()
    def meet(self, targets: ForgetTargets) -> tuple[float, float]:
        """
        Makes the movement as long as makes the forget data no better and no worse known than their targets. Returns by
        how much, and how far the mean log odds then are below those of the targets.
        """
        forget, parameters = self.reset.evaluator.splits["forget"], self.parameters
        places = np.sort(np.random.default_rng(self.reset.seed).permutation(len(forget))[:NUM_SCALE_EXAMPLES])
        sample, entries = Subset(forget, places.tolist()), targets.entries_of(places)
        change = {name: parameter - self.before[name] for name, parameter in parameters.items()}

        def losses_at(scale: float) -> np.ndarray:
            for name, moved in change.items():
                torch.add(self.before[name], moved, alpha=scale, out=parameters[name].data)
            return label_losses(self.reset.predict(sample, "natural reset"))

        low, high, scale = (0.0, targets.lead(targets.present[entries], entries)), None, 1.0
        for number in range(NUM_SCALES):
            losses = losses_at(scale)
            lead = targets.lead(losses, entries)
            if abs(lead) <= _NEAR or number == NUM_SCALES - 1 or (lead > 0 and scale == _MAX_SCALE):
                break
            low, high = ((scale, lead), high) if lead > 0 else (low, (scale, lead))
            scale = min(2 * scale, _MAX_SCALE) if high is None else _between(low, high)
        return scale, targets.distance_of(losses, entries)

    def norm(self) -> float:
        """The norm of the movement."""
        return _norm(parameter.detach() - self.before[name] for name, parameter in self.parameters.items())

    @contextmanager
    def _differentiating(self) -> Iterator[None]:
        model = self.reset.model
        with (
            evaluation_mode(model),
            differentiable_mode(model),
            only_trainable(model, list(self.parameters.values())),
            autocasting(model, self.reset.evaluator.autocast_dtype),
        ):
            yield


def num_passes_over(num_rows: int) -> int:
    """The number of passes over this many rows of forget data."""
    return max(_NUM_PASSES, math.ceil(_MIN_STEPS / max(1, round(num_rows / _STEP_SIZE))))


def _distance(
    model: nn.Module, likelihood: Likelihood, batch: Any, targets: ForgetTargets, places: np.ndarray
) -> torch.Tensor:
    """
    The sum of the Kullback-Leibler divergences from the targets to the answers on a batch: of all classes, or for
    token-level heads of the label against all others.
    """
    inputs, labels = split_labels(batch)
    outputs = model(**inputs)
    if targets.log_probabilities is not None:
        answers = torch.log_softmax(logits_of(outputs).float(), dim=-1)
        wanted = torch.from_numpy(targets.log_probabilities[places]).to(answers)
        return (wanted.exp() * (wanted - answers).masked_fill(wanted.isneginf(), 0)).sum()
    logits, tokens = likelihood.targets(inputs, outputs, labels)
    scored = tokens != IGNORED
    logits, tokens = logits[scored].float(), tokens[scored]
    answers = (logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(dim=-1)).clamp_max(-_LEAST_LOSS)
    wanted = -torch.from_numpy(targets.losses[places]).to(answers).clamp_min(_LEAST_LOSS)
    pairs = ((wanted, answers), ((-wanted.expm1()).log(), (-answers.expm1()).log()))
    return sum((one.exp() * (one - other)).sum() for one, other in pairs)


def _metric(
    parameters: Mapping[str, nn.Parameter], selection: WeightSelection, retain: FisherDiagonal | None
) -> dict[str, torch.Tensor]:
    """The inverse of the damped Fisher at the selected weights, in the shape of their parameters, and 0 elsewhere."""
    # Not `zeros_like`: indices count the entries in the order of the shape, whatever their order in memory.
    shapes = {name: parameters[name] for name in selection.indices}
    metric = {name: like.new_zeros(like.shape, dtype=torch.float32) for name, like in shapes.items()}
    if retain is None:
        fisher, damping = None, 1.0
    else:
        fisher = retain.mean()
        damping = _DAMPING * sum(float(value.sum()) for value in fisher.values())
        damping /= sum(value.numel() for value in fisher.values())
    for name, indices in selection.indices.items():
        at = indices.to(metric[name].device)
        known = torch.zeros(len(at)) if fisher is None else fisher[name].reshape(-1)[at.to(fisher[name].device)]
        metric[name].view(-1)[at] = 1 / (known.to(metric[name]) + damping)
    return metric


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where a line through two points of opposite sign is 0, not too near to either."""
    share = low[1] / (low[1] - high[1])
    return low[0] + min(max(share, 0.1), 0.9) * (high[0] - low[0])


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.float().square().sum()) for tensor in tensors))


def _result_of(
    targets: ForgetTargets, num_steps: int, scale: float, distance: float, movement: float, target: str
) -> NaturalResetResult:
    losses = float(targets.present.mean()), float(targets.wanted.mean())
    return NaturalResetResult(num_steps, scale, *losses, targets.distance, distance, movement, target)
