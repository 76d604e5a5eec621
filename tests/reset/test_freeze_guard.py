# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import hashlib
from dataclasses import replace

import pytest
import torch

from hf_deepclean import FreezeGuard, WeightSelection
from tests import tiny
from tests.reset.models import outside, selection_of


def test_the_guard_lets_selected_weights_change_and_nothing_else():
    model = tiny.randomized(tiny.resnet(), torch.float32)
    selection = selection_of(model)
    guard = FreezeGuard(model, selection)
    name, indices = next(iter(selection.indices.items()))
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[indices] += 1
    guard.verify(model)
    assert guard.num_frozen_weights == sum(p.numel() for p in model.parameters()) - selection.num_selected
    unselected = next(i for i in range(dict(model.named_parameters())[name].numel()) if i not in indices)
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[unselected] *= 1 + 2**-23
    with pytest.raises(RuntimeError, match=rf"1 parameters or buffers changed: {name}\."):
        guard.verify(model)


def test_the_guard_sees_one_bit_of_a_buffer():
    model = tiny.randomized(tiny.resnet(), torch.float32)
    selection = WeightSelection({"classifier.1.weight": torch.tensor([0])}, {"classifier.1.weight": 64}, "gamma")
    guard = FreezeGuard(model, selection)
    buffer = "resnet.embedder.embedder.normalization.num_batches_tracked"
    dict(model.named_buffers())[buffer] += 1
    with pytest.raises(RuntimeError, match=buffer):
        guard.verify(model)


def test_the_checksum_does_not_depend_on_the_selected_values():
    model = tiny.randomized(tiny.vit(), torch.bfloat16)
    selection = selection_of(model)
    first = FreezeGuard(model, selection).checksum
    with torch.no_grad():
        model.classifier.weight.view(-1)[selection.indices["classifier.weight"]] = 3
    assert FreezeGuard(model, selection).checksum == first


def test_the_digests_are_those_of_the_whole_tensors_with_zeros_for_the_selected(monkeypatch):
    monkeypatch.setattr("hf_deepclean.reset.freeze_guard._BLOCK_BYTES", 100)
    model = tiny.randomized(tiny.resnet(), torch.float32).to(memory_format=torch.channels_last)
    selection = selection_of(model)
    digests = {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in outside(model, selection).items()
    }
    joined = "".join(digests[name] for name in sorted(digests)).encode()
    assert FreezeGuard(model, selection).checksum == hashlib.sha256(joined).hexdigest()
    mixed = {name: indices[torch.randperm(len(indices))] for name, indices in selection.indices.items()}
    assert FreezeGuard(model, replace(selection, indices=mixed)).checksum == FreezeGuard(model, selection).checksum
