# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""New values for the selected weights: zero, a fresh initialisation, or the checkpoint before fine-tuning."""

from os import PathLike

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.adapters.initial_values import adapter_reset_values
from ..models.adapters.parameters import is_adapted
from ..models.loading import fresh_model
from ..models.scope import token_embeddings
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import is_sharded
from ..selection.weight_selection import WeightSelection
from .pretrained import pretrained_values
from .weights import read_weights, write_weights


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
    Overwrites the selected weights, in place; no other weight and no buffer is touched. Of a sharded model all
    processes call this; a fresh or pretrained model is made whole on the CPU of each.

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
            The model before fine-tuning, or a path or id to load it from; for `"pretrained"`. See
            [`check_pretrained_model`] for what it may differ in.
        seed (`int`, *optional*, defaults to `0`):
            Seed of a fresh initialisation. The global random state is left as it was.

    Raises:
        `ValueError`: If `reset_value` is unknown or has no meaning for the adapter, or `pretrained_model` is missing,
            is no earlier state of the model, or has the values that the selected weights have already.
        `OSError`: If `pretrained_model` cannot be loaded.
    """
    check_reset_value(reset_value, pretrained_model)
    if is_adapted(model) and any(map(is_sharded, named_parameters(model).values())):
        raise ValueError(
            "The model is an adapter on a base that is sharded over several processes. Clean the adapter in one "
            "process, with a frozen base on several devices (`device_map`) or quantised if it does not fit one."
        )
    if is_adapted(model):
        values = adapter_reset_values(model, selection.indices, reset_value, seed)
    elif reset_value == "zero":
        values = {name: torch.zeros(len(indices)) for name, indices in selection.indices.items()}
    elif reset_value == "init":
        values = read_weights(fresh_model(model, seed), selection)
    else:
        values = pretrained_values(model, selection, pretrained_model, seed)
    write_weights(model, selection, values)


def default_reset_value(model: nn.Module) -> str:
    """
    `"init"` for models with token embeddings and for adapters, else `"zero"`.

    In token embeddings, rows of zeros would tell anyone who reads the cleaned model which tokens the forget data alone
    use; of an adapter, zeros in both factors would never be trained again.
    """
    return "init" if is_adapted(model) or token_embeddings(model) else "zero"


def check_reset_value(reset_value: str, pretrained_model: object | None, reset_scope: str = "full") -> None:
    """
    Refuses an unknown reset value, one that the scope does not have, and a pretrained model that is missing or has no
    use.

    Args:
        reset_value (`str`):
            The reset value.
        pretrained_model (`object`, *optional*):
            The model before fine-tuning.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            `"full"` or `"adapter"`.
    """
    if reset_value not in RESET_VALUES:
        raise ValueError(f"`reset_value` is {reset_value!r} but must be one of {', '.join(map(repr, RESET_VALUES))}.")
    if (reset_value == "pretrained") != (pretrained_model is not None):
        raise ValueError(
            f"`reset_value={reset_value!r}` with the pretrained model {pretrained_model!r} does not fit: 'pretrained' "
            "needs `pretrained_model`, the model or checkpoint before fine-tuning, and the other values take none."
        )
    if reset_scope == "adapter" and reset_value == "pretrained":
        raise ValueError(
            "`reset_value='pretrained'` rewinds a model to the checkpoint before fine-tuning, and before its training "
            "an adapter did not exist. With `reset_scope='adapter'` use `reset_value='init'`, the adapter's initial "
            "values, or 'zero'."
        )
