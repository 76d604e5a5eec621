# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""New values for the selected weights: zero, a fresh initialisation, or the checkpoint before fine-tuning."""

import copy
import logging
from collections.abc import Mapping
from os import PathLike

import torch
from torch import nn
from transformers import PreTrainedModel

from .adapters import adapter_reset_values, is_adapted
from .selection import WeightSelection


logger = logging.getLogger(__name__)

RESET_VALUES = ("zero", "init", "pretrained")


def reset_weights(
    model: PreTrainedModel,
    selection: WeightSelection,
    reset_value: str = "zero",
    *,
    pretrained_model: str | PathLike[str] | PreTrainedModel | None = None,
    seed: int = 0,
) -> None:
    """
    Overwrites the selected weights, in place; no other weight and no buffer is touched.

    Of a [`~peft.PeftModel`] the weights of the active adapter are reset. `"init"` is then what they were before
    training: for the low-rank factors what peft draws (B = 0), for DoRA's magnitudes the norms of the base's weights,
    for copies of modules (`modules_to_save`) and trained tokens the base's values. `"zero"` is 0 except where 0 is no
    way back: magnitudes get the norms too, and a rank with nothing but zeros left in both factors, which would never
    have a gradient again, is given its initial values, with a warning.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to change.
        selection ([`WeightSelection`]):
            The weights to reset.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            `"zero"`, as in [DeepClean](https://huggingface.co/papers/2311.10448); `"init"`, what a freshly built model
            of the same configuration has there; or `"pretrained"`, what `pretrained_model` has there.
        pretrained_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The model before fine-tuning, or a path or id to load it from; for `"pretrained"`. Weights it does not have
            in the same shape, such as those of a new head, are given a fresh initialisation, with a warning.
        seed (`int`, *optional*, defaults to `0`):
            Seed of a fresh initialisation. The global random state is left as it was.

    Raises:
        `ValueError`: If `reset_value` is unknown or has no meaning for the adapter, or `pretrained_model` is missing
            or shares no selected weight.
    """
    check_reset_value(reset_value, pretrained_model)
    if is_adapted(model):
        values = adapter_reset_values(model, selection.indices, reset_value, seed)
    elif reset_value == "zero":
        parameters = dict(model.named_parameters())
        values = {name: parameters[name].new_zeros(len(indices)) for name, indices in selection.indices.items()}
    elif reset_value == "init":
        values = read_weights(_fresh_model(model, seed), selection)
    else:
        values = _pretrained_values(model, selection, pretrained_model, seed)
    write_weights(model, selection, values)


def check_reset_value(reset_value: str, pretrained_model: object | None) -> None:
    """Refuses an unknown `reset_value`, and a pretrained model that is missing or has no use."""
    if reset_value not in RESET_VALUES:
        raise ValueError(f"`reset_value` is {reset_value!r} but must be one of {', '.join(map(repr, RESET_VALUES))}.")
    if (reset_value == "pretrained") != (pretrained_model is not None):
        raise ValueError(
            f"`reset_value={reset_value!r}` with the pretrained model {pretrained_model!r} does not fit: 'pretrained' "
            "needs `pretrained_model`, the model or checkpoint before fine-tuning, and the other values take none."
        )


@torch.no_grad()
def read_weights(model: nn.Module, selection: WeightSelection) -> dict[str, torch.Tensor]:
    """The values of the selected weights, one flat tensor per parameter."""
    parameters = dict(model.named_parameters())
    return {
        name: torch.take(parameters[name], indices.to(parameters[name].device))
        for name, indices in selection.indices.items()
    }


@torch.no_grad()
def write_weights(model: nn.Module, selection: WeightSelection, values: Mapping[str, torch.Tensor]) -> None:
    """Overwrites the selected weights with flat values, one tensor per parameter."""
    parameters = dict(model.named_parameters())
    for name, indices in selection.indices.items():
        parameter = parameters[name]
        parameter.put_(indices.to(parameter.device), values[name].to(parameter.device, parameter.dtype))


def _fresh_model(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    # A loaded model cannot be initialised again in place: transformers 5 skips what it has marked as initialised.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return type(model)(copy.deepcopy(model.config))


def _pretrained_values(
    model: PreTrainedModel,
    selection: WeightSelection,
    pretrained_model: str | PathLike[str] | PreTrainedModel,
    seed: int,
) -> dict[str, torch.Tensor]:
    if isinstance(pretrained_model, nn.Module):
        base = pretrained_model
        shapes = {name: parameter.shape for name, parameter in base.named_parameters()}
        absent = {name for name, p in model.named_parameters() if shapes.get(name) != p.shape}
    else:
        base, loading = type(model).from_pretrained(
            pretrained_model,
            config=copy.deepcopy(model.config),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        absent = set(loading["missing_keys"]) | {key[0] for key in loading["mismatched_keys"]}
    absent &= selection.indices.keys()
    if absent == selection.indices.keys():
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} has none of the {len(absent)} parameters with "
            f"selected weights in the same shape, so this {type(model).__name__} was not fine-tuned from it. Pass the "
            "right checkpoint, or use `reset_value='init'`."
        )
    fresh = read_weights(_fresh_model(model, seed), selection) if absent else {}
    if absent:
        logger.warning(
            f"The pretrained model {_describe(pretrained_model)} does not have {', '.join(sorted(absent))} in the "
            "same shape (a new head, usually); their selected weights are given a fresh initialisation."
        )
    present = WeightSelection(
        {name: indices for name, indices in selection.indices.items() if name not in absent},
        selection.num_weights,
        selection.rule,
    )
    return fresh | read_weights(base, present)


def _describe(pretrained_model: object) -> str:
    return type(pretrained_model).__name__ if isinstance(pretrained_model, nn.Module) else repr(str(pretrained_model))
