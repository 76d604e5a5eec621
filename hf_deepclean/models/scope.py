# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Decides which parameters may be reset. Shared parameters are resolved here, once."""

import re
from collections.abc import Collection

from torch import nn

from ..runtime.choices import check_choice
from ..runtime.sharded_models import reshard
from .adapters.parameters import adapter_parameters, is_adapted, token_parameters


RESET_SCOPES = ("full", "adapter")


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
    if not scope:
        raise ValueError(
            f"No parameter is left to reset: `target_modules` is {target_modules!r}, `exclude_modules` is "
            f"{exclude_modules!r}, and {sum(p.requires_grad for p in names)} of {len(names)} parameters require "
            "gradients. Widen the patterns, or unfreeze the parameters that may be reset."
        )
    return scope


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
