# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the values that weights had in the checkpoint before fine-tuning."""

import logging
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from os import PathLike

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.loading import fresh_model
from ..runtime.sharded_models import named_parameters, plain_class
from ..runtime.shards import full_tensor, take_entries
from ..selection.weight_selection import WeightSelection
from .sources import ResetSources
from .weights import read_weights


logger = logging.getLogger(__name__)


@torch.no_grad()
def check_pretrained_model(
    model: PreTrainedModel, names: Collection[str], pretrained_model: str | PathLike[str] | PreTrainedModel
) -> None:
    """
    Refuses a pretrained model that the parameters cannot be rewound to.

    The pretrained model must have the same architecture and size. It may have any precision and any head or none. It
    may differ in

    - the head. Parameters that the pretrained model lacks, or has in another shape outside the base model, are new.
      They get a fresh initialisation, and a warning names them.
    - the number of tokens. Rows of the embeddings and of the output layer that both models have are rewound. Further
      rows get a fresh initialisation, and a warning names them.
    - whether the output layer is tied to the embeddings. An untied output layer is rewound to the pretrained
      embeddings that were tied to it. A tied one is rewound to the pretrained embeddings, not to the pretrained output
      layer.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model to rewind.
        names (`Collection[str]`):
            Names of the parameters that may be rewound.
        pretrained_model (`str` or [`~transformers.PreTrainedModel`]):
            The model before fine-tuning, or a path or id to load it from.

    Raises:
        `ValueError`: If the pretrained model has another architecture or size (names the first parameters that
            differ), is quantised, has none of the parameters, or has the values of the model already.
        `OSError`: If the pretrained model cannot be loaded.
    """
    shared = shared_parameters(model, names, pretrained_model, warn=True)
    if all(_have_equal_values(*pair) for pair in shared.values()):
        some = " and that may be reset" if len(names) < len(named_parameters(model)) else ""
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} equals the model in all {len(shared)} "
            f"parameters that they share{some}: rewinding "
            "would change nothing. It is the fine-tuned model itself, or fine-tuning did not change these parameters. "
            "Pass the checkpoint before fine-tuning, or use another `reset_value`."
        )


def shared_parameters(
    model: PreTrainedModel,
    names: Collection[str],
    pretrained_model: str | PathLike[str] | PreTrainedModel,
    *,
    warn: bool = False,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """
    Returns the parameters that a model and a pretrained model share, with the values of both, by name.

    Args:
        model, names, pretrained_model:
            As for [`check_pretrained_model`].
        warn (`bool`, *optional*, defaults to `False`):
            Whether to warn of what the pretrained model lacks.

    Raises:
        `ValueError`: If the pretrained model has another architecture or size, is quantised, or shares none of them.
        `OSError`: If the pretrained model cannot be loaded.
    """
    pretrained, parameters = _pretrained_parameters(model, pretrained_model), named_parameters(model)
    new, resized = _compare(model, names, pretrained, pretrained_model)
    if warn:
        _warn_of_new(parameters, pretrained, new, resized, pretrained_model)
    return {name: (parameters[name], pretrained[name]) for name in names if name not in new}


@torch.no_grad()
def pretrained_values(
    model: PreTrainedModel,
    selection: WeightSelection,
    pretrained_model: str | PathLike[str] | PreTrainedModel,
    seed: int,
    sources: ResetSources,
) -> dict[str, torch.Tensor]:
    """
    Returns the values that the selected weights have in the pretrained model, one flat tensor per parameter.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model to rewind.
        selection ([`WeightSelection`]):
            The weights.
        pretrained_model (`str` or [`~transformers.PreTrainedModel`]):
            The model before fine-tuning, or a path or id to load it from; see [`check_pretrained_model`].
        seed (`int`):
            Seed of the fresh initialisation of weights that the pretrained model lacks.
        sources ([`ResetSources`]):
            Keeps what was loaded.

    Raises:
        `ValueError`: As of [`check_pretrained_model`], and if no selected weight would change.
        `OSError`: If the pretrained model cannot be loaded.
    """
    if isinstance(pretrained_model, nn.Module):
        pretrained = _pretrained_parameters(model, pretrained_model)
    else:
        key = "pretrained", model, str(pretrained_model)
        pretrained = sources.once(key, lambda: _pretrained_parameters(model, pretrained_model))
    new, resized = _compare(model, selection.indices, pretrained, pretrained_model)
    untold = sources.to_tell(new | resized)
    _warn_of_new(named_parameters(model), pretrained, new & untold, resized & untold, pretrained_model)
    fresh = fresh_values(model, selection.of(new | resized), seed, sources) if new or resized else {}
    values = {}
    for name, indices in selection.indices.items():
        if name in new:
            values[name] = fresh[name]
            continue
        source = full_tensor(pretrained[name])
        indices = indices.to(source.device)
        if name not in resized:
            values[name] = take_entries(source, indices)
            continue
        # Rows come first in memory, so an entry of a row that both models have is at the same position in both.
        known = indices < source.numel()
        values[name] = torch.where(known, torch.take(source, indices.where(known, 0)), fresh[name].to(source.device))
    current = read_weights(model, selection)
    if all(torch.equal(values[name].to(value.device, value.dtype), value) for name, value in current.items()):
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} has the values that all {selection.num_selected:,} "
            "selected weights have already, so rewinding changes nothing. Pass the checkpoint before fine-tuning, or "
            "use another `reset_value`."
        )
    return values


def fresh_values(
    model: PreTrainedModel, selection: WeightSelection, seed: int, sources: ResetSources
) -> dict[str, torch.Tensor]:
    """Returns the values that the selected weights have in a freshly built model, one flat tensor per parameter."""
    fresh = sources.once(("fresh", model, seed), lambda: fresh_model(model, seed))
    return read_weights(fresh, selection)


def _pretrained_parameters(
    model: PreTrainedModel, pretrained_model: str | PathLike[str] | PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Returns the parameters before fine-tuning, by their names in the model. Tied parameters have several names."""
    if isinstance(pretrained_model, nn.Module):
        base, missing = pretrained_model, set()
        _check_model_type(model, base.config.to_dict(), pretrained_model)
    else:
        base, missing = _load_pretrained(model, pretrained_model)
    parameters = dict(base.named_parameters(remove_duplicate=False))
    held = {parameter for name, parameter in parameters.items() if name not in missing}
    kinds = plain_class(base), plain_class(model), plain_class(model.base_model)
    bare = kinds[0] is not kinds[1] and kinds[0] is kinds[2]
    prefix = f"{model.base_model_prefix}." if bare else ""
    return {f"{prefix}{name}": parameter.detach() for name, parameter in parameters.items() if parameter in held}


def _load_pretrained(
    model: PreTrainedModel, pretrained_model: str | PathLike[str]
) -> tuple[PreTrainedModel, set[str]]:
    """Loads a pretrained model in its own size and precision. Also returns the parameters that its files lack."""
    try:
        record, _ = type(model.config).get_config_dict(pretrained_model)
        if not record:
            raise OSError("There is no config.json.")
        _check_model_type(model, record, pretrained_model)
        # Parameters that are not in the files are drawn at random.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            base, loading = plain_class(model).from_pretrained(
                pretrained_model,
                config=type(model.config).from_pretrained(pretrained_model),
                output_loading_info=True,
            )
    except OSError as error:
        raise OSError(
            f"The pretrained model {_describe(pretrained_model)} cannot be loaded: it is neither a folder with the "
            "config.json and the weights of a model, nor the id of a model on the Hub that is cached or can be "
            f"reached. Check `pretrained_model`. ({error})"
        ) from error
    return base, set(loading["missing_keys"])


def _check_model_type(model: PreTrainedModel, record: Mapping[str, object], pretrained_model: object) -> None:
    model_type = record.get("model_type", model.config.model_type)
    if model_type != model.config.model_type:
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} is of the type {model_type!r}, but the model is of "
            f"the type {model.config.model_type!r}, so it was not fine-tuned from it. Pass the right checkpoint, or "
            "use `reset_value='init'`."
        )
    if record.get("quantization_config") is not None:
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} is quantised, so it does not hold the values before "
            "fine-tuning. Pass the checkpoint that it was made from."
        )


def _compare(
    model: PreTrainedModel,
    names: Collection[str],
    pretrained: Mapping[str, torch.Tensor],
    pretrained_model: object,
) -> tuple[set[str], set[str]]:
    """Returns the new parameters, and those with another number of rows. Refuses a pretrained model that differs."""
    parameters = named_parameters(model)
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    tables = token_tables(model)
    new, resized, other = set(), set(), []
    for name in names:
        shape, before = parameters[name].shape, pretrained[name].shape if name in pretrained else None
        if before is None:
            new.add(name)
        elif before != shape and parameters[name] in tables and before[1:] == shape[1:]:
            resized.add(name)
        elif before != shape and name.startswith(prefix):
            other.append(f"{name} ({_shape(before)}, here {_shape(shape)})")
        elif before != shape:
            new.add(name)
    other += [f"{name} (only here)" for name in _unpaired_layers(parameters, pretrained, prefix)]
    other += [f"{name} (only there)" for name in _unpaired_layers(pretrained, parameters, prefix)]
    if other:
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} is of another size than this {type(model).__name__}, "
            f"which was not fine-tuned from it: {_listed(other)}. Pass the right checkpoint, or use "
            "`reset_value='init'`."
        )
    if len(new) == len(names):
        raise ValueError(
            f"The pretrained model {_describe(pretrained_model)} has none of the {len(new)} parameters in scope in "
            f"the same shape ({_listed(sorted(new))}). This {type(model).__name__} was not fine-tuned from it, or "
            "only a new head may be reset. Pass the right checkpoint, or use `reset_value='init'`."
        )
    return new, resized


def _warn_of_new(
    parameters: Mapping[str, torch.Tensor],
    pretrained: Mapping[str, torch.Tensor],
    new: set[str],
    resized: set[str],
    pretrained_model: object,
) -> None:
    if new:
        logger.warning(
            f"The pretrained model {_describe(pretrained_model)} does not have {_listed(sorted(new))} in the same "
            "shape (usually a new head). Weights selected there get a fresh initialisation."
        )
    for name in sorted(resized):
        logger.warning(
            f"The pretrained model {_describe(pretrained_model)} has {len(pretrained[name])} rows of {name}, this "
            f"model {len(parameters[name])}. Rows that both have are rewound, others get a fresh initialisation."
        )


def token_tables(model: PreTrainedModel) -> set[nn.Parameter]:
    """Returns the parameters with one row per token."""
    tables: set[nn.Parameter] = set()
    for find, kind in ((model.get_input_embeddings, nn.Embedding), (model.get_output_embeddings, nn.Linear)):
        with suppress(AttributeError, NotImplementedError):
            module = find()
            tables |= set(module.parameters()) if isinstance(module, kind) else set()
    return tables


def _unpaired_layers(
    parameters: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor], prefix: str
) -> list[str]:
    """
    Returns the parameters of the base model that the other model has only in other layers, since it has fewer layers.
    A parameter that it has in no layer, such as a pooler, does not count.
    """
    kinds = {re.sub(r"\d+", "#", name) for name in others}
    return [
        name
        for name in parameters
        if name.startswith(prefix)
        and name not in others
        and "#" in (kind := re.sub(r"\d+", "#", name))
        and kind in kinds
    ]


def common_entries(parameter: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the entries that both tensors have, flat, on the CPU and in the lower precision of the two."""
    length = min(parameter.numel(), other.numel())
    dtype = min(parameter.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    first, second = (full_tensor(tensor).flatten()[:length].to("cpu", dtype) for tensor in (parameter, other))
    return first, second


def _have_equal_values(parameter: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(*common_entries(parameter, other))


def _listed(items: list[str], shown: int = 3) -> str:
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def _describe(pretrained_model: object) -> str:
    return type(pretrained_model).__name__ if isinstance(pretrained_model, nn.Module) else repr(str(pretrained_model))
