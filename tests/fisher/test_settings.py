# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The Fisher is the same in every setting: batches, padding, attention, precision, devices, groups."""

import pytest
import torch
from accelerate import dispatch_model
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_deepclean import accumulate_fisher_diagonal, accumulate_fisher_diagonals
from hf_deepclean.fisher import accumulation
from hf_deepclean.fisher.engine import kernels
from tests import tiny
from tests.fisher.test_accumulate import worst_relative_difference
from tests.fisher.test_traps import architecture, gpt2, language_batch, llama, mixtral


MAKERS = {"gpt2": gpt2, "llama": llama, "mixtral": mixtral, "bert": lambda: tiny.randomized(tiny.bert())}


def batch_for(model, size=16, length=9):
    return language_batch(size, length) if hasattr(model, "lm_head") else tiny.text_batch(size, length)


def without_key_biases(sums):
    """Leaves out key biases, whose gradient under a softmax is zero but for rounding."""
    return {name: total for name, total in sums.items() if not name.endswith("key.bias")}


def single(make):
    return make().float()


def difference(first, second):
    return worst_relative_difference(without_key_biases(first.sums), without_key_biases(second.sums))


@pytest.mark.parametrize("name", MAKERS)
def test_one_example_at_a_time_equals_sixteen_in_float32(name):
    model = single(MAKERS[name])
    batch = batch_for(model)
    whole = accumulate_fisher_diagonal(model, [batch])
    ones = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 1))
    assert whole.fallback_parameters == ones.fallback_parameters == {}
    assert difference(ones, whole) <= 1e-5
    # The sum over the whole model agrees too: no part is lost in the last bits of another.
    assert abs(sum(t.sum() for t in ones.sums.values()) / sum(t.sum() for t in whole.sums.values()) - 1) <= 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MAKERS)
def test_half_of_padding_on_either_side_changes_nothing(name, side):
    model = MAKERS[name]()
    batch = batch_for(model, 8, 8)
    padded, amount = dict(batch), (8, 0) if side == "left" else (0, 8)
    for key, value in batch.items():
        if value.ndim == 2:
            padded[key] = nn.functional.pad(value, amount, value=-100 if key == "labels" else 0)
    first, second = (accumulate_fisher_diagonal(model, [each]) for each in (batch, padded))
    assert difference(second, first) <= 1e-9


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2"])
def test_sdpa_equals_eager_attention(name):
    model = single(MAKERS[name])
    batch = batch_for(model, 8)
    sums = []
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        sums.append(accumulate_fisher_diagonal(model, [batch]))
    assert difference(sums[1], sums[0]) <= 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.25), (torch.float16, 0.03)])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "resnet"])
def test_half_precision_weights_have_sums_in_float32(name, dtype, tolerance):
    model = tiny.randomized(tiny.resnet(), dtype) if name == "resnet" else MAKERS[name]().to(dtype)
    batch = tiny.image_batch(8, dtype) if name == "resnet" else batch_for(model, 8)
    half = accumulate_fisher_diagonal(model, [batch])
    full = accumulate_fisher_diagonal(
        model.float(), [{key: value.float() if value.is_floating_point() else value for key, value in batch.items()}]
    )
    assert half.fallback_parameters == {}
    assert all(total.dtype == torch.float32 for total in half.sums.values())
    assert difference(half, full) <= tolerance


def test_products_in_bfloat16_are_exact_to_their_precision(monkeypatch):
    # By default products of few tokens, as here, are in float32.
    monkeypatch.setattr(kernels, "_FEW_TOKENS", 1)
    model = single(llama)
    batch = batch_for(model, 8)
    exact = accumulate_fisher_diagonal(model, [batch])
    rounded = accumulate_fisher_diagonal(model, [batch], product_dtype=torch.bfloat16)
    assert rounded.fallback_parameters == {}
    assert all(total.dtype == torch.float32 for total in rounded.sums.values())
    assert 1e-6 < difference(rounded, exact) <= 0.03


def test_a_batch_whose_logits_outgrow_the_cache_is_split_without_another_result(monkeypatch):
    model = gpt2()
    batch = batch_for(model, 11)
    whole = accumulate_fisher_diagonal(model, [batch], fisher_type="sampled")
    monkeypatch.setattr(accumulation, "_CACHE_BYTES", 3 * 9 * 40 * 8)
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    split = accumulate_fisher_diagonal(model, [batch], fisher_type="sampled")
    assert sizes[-4:] == [3, 3, 3, 2]
    assert split.num_examples == 11 and difference(split, whole) <= 1e-9


@pytest.mark.parametrize("name", MAKERS)
def test_groups_in_one_pass_equal_passes_of_their_own(name):
    model = MAKERS[name]()
    batch = batch_for(model, 11)
    group = torch.tensor([0, 2, 0, 0, 2, 2, 0, 2, 0, 0, 0])
    grouped = tiny.in_batches(batch | {"forget": group}, 4)
    found = accumulate_fisher_diagonals(model, grouped, group_column="forget")
    assert {key: fisher.num_examples for key, fisher in found.items()} == {0: 7, 2: 4}
    for key, fisher in found.items():
        own = accumulate_fisher_diagonal(model, [{k: v[group == key] for k, v in batch.items()}])
        assert worst_relative_difference(fisher.sums, own.sums) <= 1e-9


def test_groups_do_not_change_what_is_drawn():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    grouped = tiny.in_batches(batch | {"forget": torch.arange(11) % 3}, 4)
    found = accumulate_fisher_diagonals(model, grouped, group_column="forget", fisher_type="sampled")
    whole = accumulate_fisher_diagonal(model, [batch], fisher_type="sampled")
    assert worst_relative_difference((found[0] + found[1] + found[2]).sums, whole.sums) <= 1e-9


@pytest.mark.parametrize("column", [None, torch.zeros(11), torch.zeros(3, dtype=torch.long)])
def test_groups_that_are_missing_or_do_not_fit_are_refused(column):
    batch = tiny.image_batch() | ({} if column is None else {"forget": column})
    with pytest.raises(ValueError, match="group_column='forget'` must name integers"):
        accumulate_fisher_diagonals(tiny.vit(), [batch], group_column="forget")


def test_a_model_dispatched_over_devices_by_hooks():
    model = llama()
    batch = batch_for(model, 8)
    expected = accumulate_fisher_diagonal(model, [batch])
    devices = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "cpu", "model.norm": "cpu",
               "model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    dispatch_model(model, devices, force_hooks=True)
    fisher = accumulate_fisher_diagonal(model, [batch])
    assert fisher.fallback_parameters == {} and difference(fisher, expected) <= 1e-12


def test_a_compiled_model_is_the_model_under_it():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch()
    expected = accumulate_fisher_diagonal(model, [batch])
    fisher = accumulate_fisher_diagonal(torch.compile(model), [batch])
    assert fisher.sums.keys() == expected.sums.keys() and difference(fisher, expected) == 0


def test_reversible_layers_are_refused():
    model = architecture("reformer", "masked LM")[0]
    with pytest.raises(ValueError, match="reversible layers"):
        accumulate_fisher_diagonal(model, [])


def test_offloaded_parameters_are_refused():
    with torch.device("meta"):
        model = tiny.bert()
    with pytest.raises(ValueError, match="parameters, bert.embeddings.word_embeddings.weight first, are offloaded"):
        accumulate_fisher_diagonal(model, [tiny.text_batch()])


def test_adapters_are_computed_without_their_base():
    torch.manual_seed(0)
    model = get_peft_model(gpt2(), LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model = model.double()
    batch = language_batch()
    fisher = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 3))
    assert fisher.sums.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert fisher.fallback_parameters == {}
    ones = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 1))
    assert difference(fisher, ones) <= 1e-9


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (lambda outputs, labels: outputs.logits.mean(), "one log-likelihood per example"),
        (lambda outputs, labels: outputs.logits, "one log-likelihood per example"),
        (lambda outputs, labels: outputs.logits.detach().sum(1), "do not depend on the model's outputs"),
    ],
)
def test_a_likelihood_that_cannot_serve_is_refused_and_the_model_left_as_it_was(likelihood, message):
    model = tiny.randomized(tiny.resnet()).train()
    before = tiny.parameters_and_buffers(model)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        accumulate_fisher_diagonal(model, [tiny.image_batch()], log_likelihood_func=likelihood)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks == [len(module._forward_hooks) for module in model.modules()]


def test_a_model_without_logits_is_refused():
    with pytest.raises(ValueError, match="have no `logits` but hold"):
        accumulate_fisher_diagonal(tiny.bert().bert, [tiny.text_batch()])
