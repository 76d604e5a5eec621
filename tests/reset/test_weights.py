# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch

from hf_deepclean import reset_weights
from hf_deepclean.reset.weights import read_weights, write_weights
from tests import tiny
from tests.reset.models import selection_of


def test_writing_what_was_read_restores_every_bit_of_a_permuted_tensor():
    model = tiny.randomized(tiny.resnet(), torch.float32).to(memory_format=torch.channels_last)
    selection, before = selection_of(model), tiny.parameters_and_buffers(model)
    values = read_weights(model, selection)
    reset_weights(model, selection)
    write_weights(model, selection, values)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())
