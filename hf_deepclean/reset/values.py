# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Resets selected weights to zero, to a fresh initialisation, or to the checkpoint before fine-tuning."""

from os import PathLike

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.adapters.initial_values import adapter_reset_values
from ..models.adapters.parameters import is_adapted
from ..models.scope import token_embeddings
from ..runtime.choices import check_choice
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import is_sharded
from ..selection.weight_selection import WeightSelection
from .pretrained import fresh_values, pretrained_values
from .sources import ResetSources
from .weights import write_weights


RESET_VALUES = ("zero", "init", "pretrained", "natural")
# Those that need the checkpoint before fine-tuning.
REWINDING = ("pretrained", "natural")


def reset_weights(
    model: PreTrainedModel,
    selection: WeightSelection,
    reset_value: str = "zero",
    *,
    pretrained_model: str | PathLike[str] | PreTrainedModel | None = None,
    seed: int = 0,
) -> None:
    """
    Resets the selected weights in place. No other weight and no buffer changes.

    All processes must call this if the model is sharded. Each builds the whole fresh or pretrained model on its CPU.

    In a [`~peft.PeftModel`] the weights of the active adapter are reset. `"init"` then gives them their values before
    training: low-rank factors get what peft draws (B = 0), DoRA's magnitudes the norms of the base's weights, copies
    of modules (`modules_to_save`) and trained tokens the base's values. `"zero"` gives them 0, with two exceptions.
    Magnitudes get the norms too. A rank whose factors would both be all zeros could never have a gradient again, so it
    gets its initial values, with a warning.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to change.
        selection ([`WeightSelection`]):
            The weights to reset.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            `"zero"`, as in [DeepClean](https://huggingface.co/papers/2311.10448); `"init"`, the values in a freshly
            built model of the same configuration; or `"pretrained"`, the values in `pretrained_model`.
        pretrained_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The model before fine-tuning, or a path or id to load it from, for `"pretrained"`. See
            [`check_pretrained_model`] for how it may differ from the model.
        seed (`int`, *optional*, defaults to `0`):
            Seed of a fresh initialisation. The global random state does not change.

    Raises:
        `ValueError`: If `reset_value` is unknown or undefined for the adapter, or `pretrained_model` is missing, is
            not an earlier state of the model, or has the values that the selected weights have already.
        `OSError`: If `pretrained_model` cannot be loaded.
    """
    write_weights(
        model, selection, reset_values(model, selection, reset_value, pretrained_model, seed, ResetSources())
    )


def reset_values(
    model: PreTrainedModel,
    selection: WeightSelection,
    reset_value: str,
    pretrained_model: str | PathLike[str] | PreTrainedModel | None,
    seed: int,
    sources: ResetSources,
) -> dict[str, torch.Tensor]:
    """
    Returns the values that [`reset_weights`] writes, one flat tensor per parameter.

    Args:
        model, selection, reset_value, pretrained_model, seed:
            As for [`reset_weights`].
        sources ([`ResetSources`]):
            Keeps the models that values are read from.
    """
    check_reset_value(reset_value, pretrained_model)
    if reset_value == "natural":
        raise ValueError(
            "The values of `reset_value='natural'` depend on the forget data, which `reset_weights` does not get. Use "
            "`FisherUnlearner`, or another value."
        )
    if is_adapted(model) and any(map(is_sharded, named_parameters(model).values())):
        raise ValueError(
            "The model is an adapter on a base that is sharded over several processes. Clean the adapter in one "
            "process. If the base does not fit one device, spread it over several (`device_map`), or quantise it."
        )
    if is_adapted(model):
        return adapter_reset_values(model, selection.indices, reset_value, seed)
    if reset_value == "zero":
        return {name: torch.zeros(len(indices)) for name, indices in selection.indices.items()}
    if reset_value == "init":
        return fresh_values(model, selection, seed, sources)
    return pretrained_values(model, selection, pretrained_model, seed, sources)


def default_reset_value(model: nn.Module) -> str:
    """
    Returns `"init"` for models with token embeddings and for adapters, else `"zero"`.

    In token embeddings, rows of zeros would show anyone who reads the cleaned model which tokens only the forget data
    use. In an adapter, zeros in both factors could never be trained again.
    """
    return "init" if is_adapted(model) or token_embeddings(model) else "zero"


def check_reset_value(reset_value: str, pretrained_model: object | None, reset_scope: str = "full") -> None:
    """
    Refuses an unknown reset value, a reset value that the scope does not allow, and a pretrained model that is missing
    or not used.

    Args:
        reset_value (`str`):
            The reset value.
        pretrained_model (`object`, *optional*):
            The model before fine-tuning.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            `"full"` or `"adapter"`.

    Raises:
        `ValueError`: If they do not fit together.
    """
    check_choice("reset_value", reset_value, RESET_VALUES)
    if (reset_value in REWINDING) != (pretrained_model is not None):
        raise ValueError(
            f"`reset_value={reset_value!r}` does not fit `pretrained_model={pretrained_model!r}`: 'pretrained' and "
            "'natural' need `pretrained_model`, the model or checkpoint before fine-tuning, and the other values take "
            "none."
        )
    if reset_scope == "adapter" and reset_value in REWINDING:
        raise ValueError(
            f"`reset_value={reset_value!r}` goes back to the checkpoint before fine-tuning, but an adapter did not "
            "exist before its training. With `reset_scope='adapter'` use `reset_value='init'`, the initial values of "
            "the adapter, or 'zero'."
        )
