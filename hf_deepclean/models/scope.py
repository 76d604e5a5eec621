# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Decides which parameters may be reset. Shared parameters are resolved here, once."""

import logging
import math
import re
from collections.abc import Collection

import torch
from torch import nn

from ..runtime.choices import check_choice
from ..runtime.processes import is_main_process
from ..runtime.sharded_models import reshard
from .adapters.parameters import adapter_parameters, is_adapted, token_parameters


logger = logging.getLogger(__name__)

RESET_SCOPES = ("full", "adapter")

_UNFREEZE = (
    "If they were trained, call `model.requires_grad_(True)` and pass the model itself. peft, for example, leaves the "
    "base frozen after `merge_and_unload()`."
)


def parameters_in_scope(
    model: nn.Module,
    target_modules: str | Collection[str] | None = None,
    exclude_modules: str | Collection[str] | None = None,
    *,
    reset_scope: str = "full",
) -> dict[str, nn.Parameter]:
    """
    The named parameters that the Fisher information is computed for and that may be reset.

    Parameters that require no gradient are out of scope. Token embeddings are in scope: memorised texts differ by the
    tokens they are about, and if the rows of these tokens stayed, a repair on the retained texts would recover the
    other weights from them. The price: whoever has the model before and after sees which rows were reset, and so which
    tokens the forget data use. Leave the embeddings out with `exclude_modules`.

    Args:
        model (`torch.nn.Module`):
            The model.
        target_modules (`str` or `Collection[str]`, *optional*):
            Modules to include, as in peft: a string is a regular expression for the whole module name, a list holds
            names or last parts of names. By default all.
        exclude_modules (`str` or `Collection[str]`, *optional*):
            Modules to leave out, written the same way.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            `"full"`: all parameters. `"adapter"`: those of the active adapter of a [`~peft.PeftModel`].

    Returns:
        `dict[str, torch.nn.Parameter]`: Every parameter once, under the first of its names. A shared parameter is
        included if any of its names is a target, and left out if any of its names is excluded.

    Raises:
        `ValueError`: If a pattern matches no module, or if no parameter is left.
    """
    reshard(model)
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    _check_patterns(model, "target_modules", target_modules)
    _check_patterns(model, "exclude_modules", exclude_modules)
    check_reset_scope(reset_scope)
    candidates = set(names) if reset_scope == "full" else set(adapter_parameters(model).values())
    scope = {
        aliases[0]: parameter
        for parameter, aliases in names.items()
        if parameter.requires_grad
        and parameter in candidates
        and (target_modules is None or any(_matches(alias, target_modules) for alias in aliases))
        and not (exclude_modules is not None and any(_matches(alias, exclude_modules) for alias in aliases))
    }
    if not scope and not any(parameter.requires_grad for parameter in candidates):
        raise ValueError(
            f"No parameter is left to reset: none of the {len(candidates)} parameters requires gradients. {_UNFREEZE}"
        )
    if not scope:
        raise ValueError(
            f"No parameter is left to reset: `target_modules` is {target_modules!r}, `exclude_modules` is "
            f"{exclude_modules!r}, and {sum(p.requires_grad for p in names)} of {len(names)} parameters require "
            "gradients. Widen the patterns, or unfreeze the parameters that may be reset."
        )
    return scope


def frozen_share(model: nn.Module, reset_scope: str = "full") -> float:
    """
    The share of all weights that are out of scope because they require no gradient. Those that the model's own class
    freezes, such as fixed position embeddings, do not count: no training has changed them.

    Args:
        model (`torch.nn.Module`):
            The model.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            As for [`parameters_in_scope`]. With `"adapter"` the base is out of scope on purpose, and the share is 0.
    """
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if reset_scope == "adapter" or not frozen:
        return 0.0
    fixed = _frozen_by_class(model)
    num_frozen = sum(parameter.numel() for name, parameter in frozen.items() if name not in fixed)
    return num_frozen / sum(parameter.numel() for parameter in model.parameters())


def warn_of_frozen_weights(model: nn.Module, reset_scope: str = "full") -> None:
    """
    Warns if weights are out of scope because they require no gradient.

    Args:
        model, reset_scope:
            As for [`frozen_share`].
    """
    share = frozen_share(model, reset_scope)
    if share and is_main_process():
        logger.warning(f"{describe_frozen_weights(share)} {_UNFREEZE}")


def describe_frozen_weights(share: float) -> str:
    """
    Says which share of the weights is frozen.

    Args:
        share (`float`):
            As [`frozen_share`].
    """
    # Rounded down, because 100 % would say that nothing is left.
    percent = max(0.1, math.floor(1000 * share) / 10)
    return (
        f"{percent:g} % of the weights are frozen (they require no gradient) and out of scope: what they hold of the "
        "forget data stays."
    )


def _frozen_by_class(model: nn.Module) -> set[str]:
    """The names of the parameters that a new model of the same configuration has frozen."""
    try:
        with torch.device("meta"):
            new = type(model)(model.config)
    except Exception:
        return set()
    return {name for name, parameter in new.named_parameters() if not parameter.requires_grad}


def check_reset_scope(reset_scope: str) -> None:
    """Refuses an unknown scope."""
    check_choice("reset_scope", reset_scope, RESET_SCOPES)


def token_embeddings(model: nn.Module) -> list[nn.Parameter]:
    """
    The parameters with a row for every token: the table of token embeddings, or for a [`~peft.PeftModel`] the
    parameters of the adapter that change it.

    Args:
        model (`torch.nn.Module`):
            The model.
    """
    if is_adapted(model):
        return token_parameters(model)
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return []
    return [embeddings.weight] if isinstance(embeddings, nn.Embedding) else []


def module_name(parameter_name: str) -> str:
    """Name of the module that owns a parameter."""
    return parameter_name.rpartition(".")[0]


def _matches(parameter_name: str, patterns: str | Collection[str]) -> bool:
    """Whether the parameter's module, or a module that contains it, matches."""
    parts = parameter_name.split(".")[:-1]
    enclosing = [".".join(parts[: length + 1]) for length in range(len(parts))]
    return any(_module_matches(module, patterns) for module in enclosing)


def _module_matches(module: str, patterns: str | Collection[str]) -> bool:
    if isinstance(patterns, str):
        return re.fullmatch(patterns, module) is not None
    return any(module == pattern or module.endswith(f".{pattern}") for pattern in patterns)


def _check_patterns(model: nn.Module, argument: str, patterns: str | Collection[str] | None) -> None:
    if patterns is None:
        return
    modules = [name for name, _ in model.named_modules() if name]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not any(
            _module_matches(module, patterns if isinstance(patterns, str) else [pattern]) for module in modules
        ):
            raise ValueError(
                f"`{argument}` holds {pattern!r}, which matches no module of {type(model).__name__}. Its modules are "
                f"named like {', '.join(modules[:3])} ... {modules[-1]}."
            )
