# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of a model that is sharded over several processes (FSDP2), between its passes and during them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from .shards import is_sharded, local_part


def reshard(model: nn.Module) -> None:
    """Puts a sharded model in its state between passes. A forward pass alone leaves the outermost layer whole."""
    for module in _sharded_modules(model):
        module.reshard()


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by name, as it holds them between passes; shared ones once."""
    reshard(model)
    return dict(model.named_parameters())


def plain_class(model: nn.Module) -> type[Any]:
    """The class of a model before sharding, which replaces it by a subclass."""
    return next(base for base in type(model).__mro__ if not issubclass(base, FSDPModule))


def note_trainable(model: nn.Module) -> None:
    """
    Tells the shards of a model which parameters require gradients now. All processes must call this.

    FSDP2 takes the dtype of gradients from these parameters, but only in the first forward pass. All of them may have
    been frozen then.
    """
    for unit in _sharded_modules(model):
        unit.unshard()
        unit.reshard()


def held_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Parameters of a model as it holds them between passes; the same ones if it is not sharded."""
    if not _sharded_modules(model):
        return dict(parameters)
    reshard(model)
    return {name: model.get_parameter(name) for name in parameters}


# A module, the name of its parameter, and the parameter to use instead.
Copies = list[tuple[nn.Module, str, nn.Parameter]]


def parameters_in_passes(
    model: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, nn.Parameter], Copies]:
    """
    Finds the parameters of a model that the ops of its forward passes see; the same ones if it is not sharded.

    A parameter of a sharded model is whole, and has values, only in the forward and backward pass of its layer. A
    shared parameter can be made whole by two layers: in transformers this happens to a head that is tied to the
    embeddings. Then the outer layer's parameter is returned, and the inner layer's is listed as a copy.

    All processes must call this.

    Args:
        model (`torch.nn.Module`):
            The model.
        parameters (`dict[str, torch.nn.Parameter]`):
            Its [`held_parameters`].

    Returns:
        `tuple[dict[str, torch.nn.Parameter], list]`: The parameters, and the copies to pass to [`without_copies`].

    Raises:
        `ValueError`: If a parameter is not sharded by its rows, or not by `fully_shard`. If it is made whole in two
            layers neither of which contains the other, or in two layers from shards of different sizes.
    """
    for parameter in parameters.values():
        local_part(parameter)
    own = set(parameters.values())
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter in own
    ]
    seen: dict[nn.Parameter, nn.Parameter] = {}
    owners: dict[nn.Parameter, nn.Module] = {}
    copies: Copies = []
    for unit in _sharded_modules(model):
        unit.unshard()
        for module, name, parameter in places:
            found = getattr(module, name)
            if found is parameter or found is seen.get(parameter):
                continue
            if parameter not in seen:
                seen[parameter], owners[parameter] = found, unit
                continue
            if module not in set(owners[parameter].modules()):
                names = [key for key, value in parameters.items() if value is parameter]
                raise ValueError(
                    f"The shared parameter {names[0]} is sharded twice, in layers neither of which contains the "
                    "other. Shard the layers that share it together: `fully_shard([first, second])`."
                )
            _check_even(parameter)
            copies.append((module, name, seen[parameter]))
        unit.reshard()
    never = [name for name, parameter in parameters.items() if is_sharded(parameter) and parameter not in seen]
    if never:
        raise ValueError(
            f"{len(never)} parameters, such as {never[0]}, are sharded but not by `fully_shard`, so nothing makes "
            "them whole in a forward pass. Shard the model with `fully_shard` alone."
        )
    return {name: seen.get(parameter, parameter) for name, parameter in parameters.items()}, copies


@contextmanager
def without_copies(copies: Copies) -> Iterator[None]:
    """Makes modules use the shared parameter instead of their copy, so that the gradients of all its uses add up."""

    def hook(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        return module.register_forward_pre_hook(lambda *_: module._parameters.update({name: parameter}))

    hooks = [hook(*copy) for copy in copies]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _check_even(parameter: DTensor) -> None:
    """Refuses a shared parameter with uneven shards: FSDP2 (torch 2.13) keeps two padded copies of the smaller one."""
    sizes = [parameter.device_mesh.size(axis) for axis, place in enumerate(parameter.placements) if place == Shard(0)]
    if any(len(parameter) % size for size in sizes):
        raise ValueError(
            f"The {len(parameter)} rows of the embeddings that are tied to the output layer are not a multiple of the "
            f"{sizes[0]} processes. Sharded like this, the two would differ from the first change of a weight on. "
            "Before saving the model, add unused rows (`model.resize_token_embeddings(pad_to_multiple_of=...)`), or "
            "use another number of processes."
        )


def _sharded_modules(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
