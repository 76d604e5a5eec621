# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes two Fishers, their ratios, and a mask of the weights that were selected by them."""

import torch

from hf_deepclean import FisherDiagonal


def diagonals(num_forget=10, num_retain=90):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (40, 30), "a.bias": (30,), "b.weight": (500,)}
    forget = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    retain = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return FisherDiagonal(forget, num_forget), FisherDiagonal(retain, num_retain)


def ratios(forget, retain):
    means = [[v.double().flatten() / fisher.num_examples for v in fisher.sums.values()] for fisher in (forget, retain)]
    return torch.cat(means[0]) / torch.cat(means[1])


def selected_mask(selection):
    masks = []
    for name, size in selection.num_weights.items():
        mask = torch.zeros(size, dtype=torch.bool)
        mask[selection.indices.get(name, torch.tensor([], dtype=torch.long))] = True
        masks.append(mask)
    return torch.cat(masks)
