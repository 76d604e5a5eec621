# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, ViTForImageClassification

from hf_deepclean.models import fingerprint
from hf_deepclean.models.fingerprint import weights_fingerprint
from tests import tiny


def test_the_fingerprint_is_that_of_the_bits_and_survives_saving_and_loading(tmp_path):
    model = tiny.randomized(tiny.vit(), torch.float32)
    expected = weights_fingerprint(model)
    assert len(expected) == 64
    model.save_pretrained(tmp_path)
    assert weights_fingerprint(ViTForImageClassification.from_pretrained(tmp_path)) == expected
    assert weights_fingerprint(copy.deepcopy(model).requires_grad_(False).train()) == expected
    assert weights_fingerprint(torch.compile(model)) == expected


@pytest.mark.parametrize("name", ["vit.layernorm.weight", "classifier.bias"])
def test_one_bit_of_one_weight_changes_the_fingerprint(name):
    model = tiny.randomized(tiny.vit(), torch.float32)
    before = weights_fingerprint(model)
    weights = model.get_parameter(name).detach()
    weights.view(torch.int32)[-1] ^= 1
    assert weights_fingerprint(model) != before
    weights.view(torch.int32)[-1] ^= 1
    assert weights_fingerprint(model) == before


def test_the_sign_of_a_zero_the_dtype_the_shape_and_the_name_are_part_of_the_fingerprint():
    def of(name, tensor):
        module = nn.Module()
        module.register_buffer(name, tensor)
        return weights_fingerprint(module)

    zeros = torch.zeros(2, 3)
    different = [of("a", zeros), of("b", zeros), of("a", -zeros), of("a", zeros.T), of("a", zeros.int())]
    assert len(set(different)) == len(different)


def test_a_running_statistic_changes_the_fingerprint_and_a_buffer_that_is_not_saved_does_not():
    model = tiny.resnet()
    before = weights_fingerprint(model)
    model.register_buffer("scratch", torch.ones(1), persistent=False)
    assert weights_fingerprint(model) == before
    next(buffer for name, buffer in model.named_buffers() if "running_mean" in name)[0] += 1
    assert weights_fingerprint(model) != before


def test_a_tied_weight_counts_once_whatever_ties_it():
    sizes = {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    tied = weights_fingerprint(model)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert weights_fingerprint(model) != tied
    model.tie_weights()
    assert weights_fingerprint(model) == tied


def test_the_fingerprint_does_not_depend_on_chunks_or_strides(monkeypatch):
    model = tiny.randomized(tiny.resnet(), torch.bfloat16)
    expected = weights_fingerprint(model)
    assert weights_fingerprint(model.to(memory_format=torch.channels_last)) == expected
    monkeypatch.setattr(fingerprint, "_CHUNK_BYTES", 7)
    assert weights_fingerprint(model) == expected


def test_a_sharded_tensor_has_the_fingerprint_of_the_whole(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model = nn.Linear(4, 6)
    expected = weights_fingerprint(model)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
        assert weights_fingerprint(model) == expected
    finally:
        torch.distributed.destroy_process_group()


def test_weights_without_values_are_refused():
    with pytest.raises(ValueError, match="weight is on the meta device|bias is on the meta device"):
        weights_fingerprint(nn.Linear(2, 2, device="meta"))
