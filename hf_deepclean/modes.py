# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a phase needs a model to be for its duration; afterwards, also after an error, it is as it was."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode: no dropout, normalisation by running statistics."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def only_trainable(model: nn.Module, parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """These parameters, and no others of the model, require gradients."""
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)
