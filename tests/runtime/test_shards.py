# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch
from accelerate import dispatch_model

from hf_deepclean import accumulate_fisher_diagonal
from hf_deepclean.fisher.accumulation import FisherAccumulation
from hf_deepclean.runtime.shards import Processes, Turns, add_full_tensor_, full_tensor, local_indices, local_part
from tests import tiny
from tests.fisher.test_accumulate import worst_relative_difference


def test_a_plain_tensor_is_its_own_single_shard():
    tensor, indices = torch.rand(3, 4), torch.tensor([0, 7, 11])
    part, start = local_part(tensor)
    assert part is tensor and start == 0 and full_tensor(tensor) is tensor
    assert local_indices(tensor, indices) is indices
    total = torch.ones(3, 4, dtype=torch.float64)
    add_full_tensor_(total, tensor)
    assert torch.equal(total, 1 + tensor.double())


def test_one_process_talks_to_nobody():
    processes = Processes()
    assert processes.gather("value") == ["value"]
    tensor = torch.rand(3)
    assert processes.total(tensor) is tensor and processes.largest(tensor) is tensor


def test_actions_run_in_their_order_whenever_they_get_ready():
    ran = []
    turns = Turns("abcd")
    for name in "bac":
        turns.ready(name, lambda name=name: ran.append(name))
        assert ran == {"b": [], "a": ["a", "b"], "c": ["a", "b", "c"]}[name]
    turns.finish(lambda name: ran.append(f"no {name}"))
    assert ran == ["a", "b", "c", "no d"]


def test_the_sums_are_where_they_are_asked_to_be():
    accumulation = FisherAccumulation(tiny.vit(), None, "empirical", None, 0, True, None, "meta")
    assert all(total.is_meta for total in accumulation.total().values())


def test_a_model_dispatched_over_a_device_map_has_the_same_fisher():
    """The modules of such a model have hooks around their forward. Here all parts of the map are the CPU."""
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    expected = accumulate_fisher_diagonal(model, [batch])
    device_map = {"vit.embeddings": "cpu", "vit.layers": "cpu", "vit.layernorm": "cpu", "classifier": "cpu"}
    dispatched = dispatch_model(model, device_map, main_device="cpu", force_hooks=True)
    assert hasattr(dispatched.classifier, "_hf_hook")
    fisher = accumulate_fisher_diagonal(dispatched, tiny.in_batches(batch, 4), accumulator_device="cpu")
    assert fisher.fallback_parameters == {}
    assert worst_relative_difference(fisher.sums, expected.sums) <= 1e-12
