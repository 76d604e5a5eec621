# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reset values for the weights of an adapter, above all the values that they had before its training."""

import copy
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...runtime.random_state import seeded
from .checks import check_initialisation
from .parameters import active_adapter, adapter_parameters, entry_parameters, lora_layers


if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer


logger = logging.getLogger(__name__)

_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


def adapter_reset_values(
    model: "PeftModel", indices: Mapping[str, torch.Tensor], reset_value: str, seed: int
) -> dict[str, torch.Tensor]:
    """
    Computes the reset values of entries of the active adapter. The model is not changed.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        indices (`dict[str, torch.Tensor]`):
            Flat indices of the entries, by parameter.
        reset_value (`str`):
            `"init"`: the values before training. For the factors these are the values that peft's own initialisation
            draws, which make their product 0; for the magnitudes of [DoRA](https://huggingface.co/papers/2402.09353)
            the norms of the base model's weights; for copies of modules and trained tokens the base model's values.

            `"zero"`: 0, with two exceptions. A magnitude of 0 would switch off a neuron of the base model, so
            magnitudes get the norm of the base model's weights. A rank whose row of A and column of B are both all
            zeros would never have a gradient again, so its selected entries get their initial values.
        seed (`int`):
            Seed of the initialisation. The global random state is not changed.

    Returns:
        `dict[str, torch.Tensor]`: Flat values, by parameter.

    Raises:
        `ValueError`: If an entry does not belong to the active adapter, or if its initial value cannot be drawn again.
    """
    name = active_adapter(model)
    config = model.peft_config[name]
    parameters = adapter_parameters(model)
    foreign = sorted(indices.keys() - parameters.keys())
    if foreign:
        raise ValueError(
            f"{len(foreign)} of {len(indices)} parameters to reset do not belong to the active adapter {name!r}: "
            f"{', '.join(foreign[:3])}. Select with `reset_scope='adapter'`."
        )
    check_initialisation(name, config, reset_value)
    if reset_value == "init":
        fresh = _initial_values(model, name, config.init_lora_weights, seed)
        return {key: torch.take(fresh[key], chosen.cpu()) for key, chosen in indices.items()}
    values = {key: parameters[key].new_zeros(len(chosen)) for key, chosen in indices.items()}
    magnitudes = [key for key in indices if ".lora_magnitude_vector." in key]
    dead = _dead_ranks(model, name, indices)
    if magnitudes or dead:
        # Always peft's default, in which a single rank has no effect, whatever initialisation the adapter used.
        fresh = _initial_values(model, name, True, seed)
        for key in magnitudes:
            values[key] = torch.take(fresh[key], indices[key].cpu())
        for key, revived in dead.items():
            chosen = indices[key].cpu()
            values[key] = torch.where(revived.flatten()[chosen], torch.take(fresh[key], chosen), 0)
    return values


def _initial_values(model: "PeftModel", name: str, init: bool | str, seed: int) -> dict[str, torch.Tensor]:
    """The values of every parameter of the adapter before training, on the CPU."""
    values: dict[nn.Parameter, torch.Tensor] = {}
    with seeded(seed), torch.no_grad():
        for layer in lora_layers(model, name):
            values |= _initial_factors(layer, name, init)
    values |= _copied_values(model, name)
    return {key: values[parameter] for key, parameter in adapter_parameters(model).items()}


def _initial_factors(layer: "LoraLayer", name: str, init: bool | str) -> dict[nn.Parameter, torch.Tensor]:
    """Runs peft's own initialisation of a layer on copies of its factors, and puts the factors back."""
    trained = {kind: getattr(layer, kind)[name] for kind in _FACTORS if name in getattr(layer, kind)}
    copies = {}
    try:
        for kind, entry in trained.items():
            fresh = copy.deepcopy(entry)
            # peft draws in float32 and on the CPU, whatever the dtype and device of the parameter.
            for parameter in entry_parameters(fresh):
                parameter.data = parameter.data.to("cpu", torch.float32)
            copies[kind] = getattr(layer, kind)[name] = fresh
        if init == "orthogonal":
            layer.orthogonal_init(name)
        else:
            layer.reset_lora_parameters(name, init)
        if "lora_magnitude_vector" in copies:
            embedding = "lora_embedding_A" in copies
            first, second = (copies[f"lora_{'embedding_' if embedding else ''}{factor}"] for factor in "AB")
            copies["lora_magnitude_vector"].update_layer(
                base_layer=layer.get_base_layer(),
                lora_A=first if embedding else first.weight,
                lora_B=second if embedding else second.weight,
                scaling=layer.scaling[name],
            )
    finally:
        for kind, entry in trained.items():
            getattr(layer, kind)[name] = entry
    return {
        parameter: fresh.detach()
        for kind, entry in trained.items()
        for parameter, fresh in zip(entry_parameters(entry), entry_parameters(copies[kind]), strict=True)
    }


def _copied_values(model: "PeftModel", name: str) -> dict[nn.Parameter, torch.Tensor]:
    """The base model's values of modules that the adapter trained a copy of, and of rows of trained tokens."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper

    values: dict[nn.Parameter, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            trained = module.modules_to_save[name].named_parameters(remove_duplicate=False)
            originals = dict(module.original_module.named_parameters(remove_duplicate=False))
            values |= {parameter: originals[key].detach().cpu() for key, parameter in trained}
        elif isinstance(module, TrainableTokensLayer) and name in module.trainable_tokens_delta:
            original = module.trainable_tokens_original[name]
            values[module.trainable_tokens_delta[name]] = original.detach().cpu()
    return values


def _dead_ranks(model: "PeftModel", name: str, indices: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Finds the ranks that a reset to 0 would leave with only zeros, as a mask for every factor in `indices`.

    Each of the two factors gets its gradient through the other, so both would stay 0 forever.
    """
    names = {parameter: key for key, parameter in model.named_parameters()}
    dead: dict[str, torch.Tensor] = {}
    num_ranks = 0
    for layer in lora_layers(model, name):
        pair = (
            (layer.lora_embedding_A[name], layer.lora_embedding_B[name])
            if name in layer.lora_embedding_A
            else (layer.lora_A[name].weight, layer.lora_B[name].weight)
        )
        keys = [names[parameter] for parameter in pair]
        if not any(key in indices for key in keys):
            continue
        left = []
        for key, parameter in zip(keys, pair, strict=True):
            remaining = parameter.detach().to("cpu", copy=True) != 0
            if key in indices:
                remaining.view(-1)[indices[key].cpu()] = False
            left.append(remaining)
        first, second = left
        # The second factor of a grouped convolution holds only the ranks of a group for the outputs of that group.
        groups = len(first) // second.shape[1]
        by_rank = second.view(groups, len(second) // groups, second.shape[1], -1).any(dim=3).any(dim=1).flatten()
        nothing = ~(first.flatten(1).any(dim=1) | by_rank)
        if not nothing.any():
            continue
        num_ranks += int(nothing.sum())
        places = (
            nothing.view(-1, *[1] * (first.ndim - 1)).expand_as(first),
            nothing.view(groups, 1, -1)
            .expand(groups, len(second) // groups, second.shape[1])
            .reshape(len(second), second.shape[1], *[1] * (second.ndim - 2))
            .expand_as(second),
        )
        dead |= {key: place for key, place in zip(keys, places, strict=True) if key in indices}
    if num_ranks:
        logger.warning(
            f"All weights of {num_ranks} ranks of the adapter {name!r} are reset. With zeros in both factors they "
            "would never have a gradient again, so these weights get their initial values (no effect on the output, "
            "but trainable). Lower `reset_fraction` or raise `gamma` to reset fewer weights."
        )
    return dead
