# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes fine-tuned models, and selections of their weights."""

import copy

import torch

from hf_deepclean import WeightSelection
from tests import tiny


def selection_of(model, share=0.3):
    generator = torch.Generator().manual_seed(5)
    indices = {}
    for name, parameter in model.named_parameters():
        chosen = (torch.rand(parameter.numel(), generator=generator) < share).nonzero().squeeze(1)
        if len(chosen):
            indices[name] = chosen
    return WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma", 1.0)


def fine_tuned(base, dtype=torch.float64):
    """Returns a copy in which every entry differs, as after fine-tuning."""
    model = copy.deepcopy(base).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    return model


def everything(model):
    parameters = dict(model.named_parameters())
    indices = {name: torch.arange(parameter.numel()) for name, parameter in parameters.items()}
    return WeightSelection(indices, {name: p.numel() for name, p in parameters.items()}, "gamma", 1.0)


def saved(model, directory):
    model.save_pretrained(directory)
    return directory


def outside(model, selection):
    """Returns copies of parameters and buffers, with zeros in the place of the selected weights."""
    tensors = tiny.parameters_and_buffers(model)
    for name, indices in selection.indices.items():
        tensors[name].put_(indices, tensors[name].new_zeros(len(indices)))
    return tensors


def trained(model, share=1.0):
    """Moves a share of the weights a little, as a training or, with a small share, a cleaning."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            moved = torch.rand(parameter.shape, generator=generator) < share
            parameter += moved * (0.01 + 0.01 * torch.rand(parameter.shape, generator=generator)).to(parameter.dtype)
    return model
