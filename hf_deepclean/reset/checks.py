# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells whether a run can have a natural reset."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from ..data.streams import is_stream
from ..models.adapters.parameters import is_adapted
from ..models.heads import masks_tokens, num_classes, predicts_tokens
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import is_sharded


def why_not_natural(
    model: nn.Module,
    splits: Mapping[str, Any],
    *,
    rule: str,
    target: str | None,
    is_custom: bool,
    forget_penalty: float | None,
    gamma_sweep: Collection[float] | None,
) -> str | None:
    """
    Tells why a run cannot have a natural reset, or returns `None` if it can.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        splits (`dict[str, Any]`):
            The data sets by name.
        rule (`str`):
            The rule of selection.
        target (`str`, *optional*):
            What the forget data should be like afterwards, if it is given.
        is_custom (`bool`):
            Whether the likelihood is the caller's.
        forget_penalty, gamma_sweep:
            As in the configuration.
    """
    tokens = predicts_tokens(model)
    parameters = named_parameters(model).values()
    reasons = {
        f"the rule of selection is {rule!r}, not 'auto'": rule != "auto",
        "`gamma_sweep` tries resets to a fixed value": bool(gamma_sweep),
        "`forget_penalty` belongs to the repair of other resets": bool(forget_penalty),
        "the likelihood is a `log_likelihood_func`": is_custom,
        "an adapter is reset to its values before training": is_adapted(model),
        "the model is sharded over several processes": any(map(is_sharded, parameters)),
        "the head has neither a class per example nor tokens": num_classes(model) is None and not tokens,
        "masks are drawn batch by batch, and a row is not always scored in the same tokens": masks_tokens(model),
        "classes of tokens cannot be taken away by it": target == "chance" and tokens,
        "there is no `unseen_dataset`": "unseen" not in splits and target != "chance",
        "a data set is a stream": any(map(is_stream, splits.values())),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
