# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The scores of a batch: scalars whose squared per-example gradients add up to its Fisher information."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ...models.label_draws import draw_targets
from ...models.likelihood import Likelihood, log_probability_of_labels


def fisher_scores(
    likelihood: Likelihood,
    inputs: Mapping[str, Any],
    outputs: Any,
    labels: torch.Tensor,
    fisher_type: str = "empirical",
    *,
    positions: Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[torch.Tensor]:
    """
    Computes the scores of a batch, whose squared per-example gradients add up to its Fisher information.

    Args:
        likelihood ([`Likelihood`]):
            How the model's examples are scored.
        inputs (`dict[str, Any]`):
            The inputs of the model, without the labels.
        outputs ([`~transformers.utils.ModelOutput`]):
            The outputs of the model.
        labels (`torch.Tensor`):
            The batch's labels.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"`: one score, the log-likelihood of the given labels. `"sampled"`: one score, the
            log-likelihood of labels drawn from the model, one label for every scored position. The positions do not
            correlate, so one draw of all of them is an estimate without bias. `"expected"`: one score per class c,
            `sqrt(p_c) * log p_c` with `p_c` held constant. Their squares add up to the expectation over classes.
        positions (`Sequence[int]`, *optional*):
            The position of every example in the data set, by default in the batch. A sampled label depends only on
            the seed, the example's position and the label's index among the scored ones, not on how examples are
            batched or padded.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.

    Yields:
        `torch.Tensor`: Scores of shape `(batch_size,)`.

    Raises:
        `ValueError`: If the likelihood has no distribution to draw labels from, or too many outcomes to enumerate.
    """
    if fisher_type == "empirical":
        yield likelihood(inputs, outputs, labels)
        return
    if likelihood.kind in ("custom", "ctc"):
        raise ValueError(
            f"`fisher_type={fisher_type!r}` draws or enumerates labels from the probabilities of single choices, "
            f"which a {likelihood.kind} likelihood does not give. Use `fisher_type='empirical'` with it."
        )
    if fisher_type == "expected" and likelihood.kind != "classification":
        raise ValueError(
            f"`fisher_type='expected'` takes one backward pass per class and is for single-label classification, but "
            f"this is a {likelihood.kind} likelihood with as many outcomes as sequences. Use `fisher_type='sampled'`, "
            "which estimates the same expectation from one pass."
        )
    logits, targets = likelihood.targets(inputs, outputs, labels)
    if fisher_type == "sampled":
        probabilities = torch.softmax(logits.detach(), dim=-1)
        drawn = draw_targets(probabilities, targets, range(len(labels)) if positions is None else positions, seed)
        del probabilities
        yield log_probability_of_labels(logits, drawn)
        return
    for log_probability in torch.log_softmax(logits[:, 0], dim=-1).unbind(dim=1):
        yield (log_probability.detach() / 2).exp() * log_probability
