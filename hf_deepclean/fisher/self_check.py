# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the parameters that the engine cannot be trusted with, on the first batch of a pass."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data.batches import num_examples
from ..runtime.shards import add_full_tensor_, local_part
from .engine.tapped_model import TappedModel


logger = logging.getLogger(__name__)


def find_differing_parameters(
    model: TappedModel, batch: dict[str, Any], differences: Mapping[str, torch.Tensor], own_padding: bool = False
) -> list[str]:
    """
    Compares the squared gradients of a few examples with the one-example reference.

    Args:
        model ([`TappedModel`]):
            The prepared model.
        batch (`dict[str, Any]`):
            The examples to compare.
        differences (`dict[str, torch.Tensor]`):
            Sums of zeros, one per parameter. They are zeros again afterwards.
        own_padding (`bool`, *optional*, defaults to `False`):
            Whether the reference runs examples without the padding that they have beside the others.

    Returns:
        `list[str]`: The parameters that differ by more than rounding.
    """
    examples = range(num_examples(batch))
    untapped = model.add_tapped_squares_(batch, examples, [(examples, differences)])
    checked = [name for name, p in model.parameters.items() if name not in untapped and p.numel()]
    if not checked:
        return []
    largest = dict.fromkeys(checked, 0.0)

    # Subtracting the reference from the sums leaves the difference, without a second set of sums.
    def subtract(example: int, name: str, gradient: torch.Tensor) -> None:
        square = gradient.to(differences[name].dtype).square()
        largest[name] = max(largest[name], square.max().item())
        add_full_tensor_(differences[name], -square)

    together = model.processes.are_several
    model.visit_example_gradients(subtract, batch, examples, checked, together=together, own_padding=own_padding)
    remaining = {name: local_part(differences[name])[0].abs() for name in checked}
    remaining = {name: value.max().item() if value.numel() else 0.0 for name, value in remaining.items()}
    figures = torch.tensor([list(largest.values()), list(remaining.values())], dtype=torch.float64)
    figures = model.processes.largest(figures)
    largest, remaining = (dict(zip(checked, row, strict=True)) for row in figures.tolist())
    wrong = []
    for name in checked:
        # Products in bfloat16, as under autocast, show in the squares.
        precision = max(
            torch.finfo(dtype).eps for dtype in (model.parameters[name].dtype, model.product_dtype) if dtype
        )
        # Gradients that are zero but for rounding (key biases under a softmax) are noise and cannot be compared.
        size = max(largest[name], max(1e-8, min(precision, 1e-4)) * max(largest.values()))
        # A reference that is not finite cannot be compared; the pass itself reports it.
        if remaining[name] > min(0.5, 1e4 * precision) * size:
            wrong.append(name)
    for total in differences.values():
        total.zero_()
    return wrong


def excluded_parameters(wrong: Sequence[str]) -> dict[str, str]:
    """Parameters that differ from the reference, with the reason to exclude them, and a warning."""
    if wrong:
        logger.warning(
            f"The batched Fisher of {len(wrong)} parameters differs from the one-example reference on the first "
            f"batch; they take the exact one-example path, which is slower: {_modules_of(wrong)}."
        )
    return dict.fromkeys(wrong, "differed from the one-example reference in the self-check")


def find_hidden_parameters(model: TappedModel, batch: dict[str, Any]) -> dict[str, str]:
    """
    Finds parameters that the model uses although no op showed them to the taps.

    A parameter that no op shows is either unused or used where the taps cannot see it. Autograd tells the two apart.

    Args:
        model ([`TappedModel`]):
            The prepared model.
        batch (`dict[str, Any]`):
            A batch of one example.

    Returns:
        `dict[str, str]`: The parameters, with the reason to exclude them.
    """
    taps, _ = model.forward(batch)
    unseen = {name for name in model.parameters if not taps.num_uses[name] and name not in taps.untapped}
    hidden = {}

    def note(example: int, name: str, gradient: torch.Tensor) -> None:
        if name in unseen:
            hidden[name] = "used where no op shows it"

    unseen_anywhere = set().union(*model.processes.gather(unseen))
    if not unseen_anywhere:
        return {}
    names = [name for name in model.parameters if name in unseen_anywhere]
    model.visit_example_gradients(note, batch, [0], names)
    return {name: reason for found in model.processes.gather(hidden) for name, reason in found.items()}


def _modules_of(names: Sequence[str], num_shown: int = 8) -> str:
    """The modules that own the parameters, each once."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    rest = len(modules) - num_shown
    return ", ".join(modules[:num_shown]) + (f" and {rest} modules more" if rest > 0 else "")
