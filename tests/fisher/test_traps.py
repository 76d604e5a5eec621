# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One test for every way in which engines for per-example gradients are known to have been wrong."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_deepclean import accumulate_fisher_diagonal, next_token_log_likelihood
from hf_deepclean.fisher.engine import kernels
from hf_deepclean.fisher.engine.gradients import EmbeddingGradient, LinearGradient, TiedGradient
from tests import tiny
from tests.architectures.batches import batch as architecture_batch
from tests.architectures.batches import log_likelihood
from tests.architectures.entries import entries
from tests.architectures.tiny_models import build
from tests.fisher.test_accumulate import reference, worst_relative_difference


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 32, "vocab_size": 40, "max_position_embeddings": 32}  # fmt: skip


def gpt2():
    return tiny.randomized(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32)))


def llama():
    return tiny.randomized(LlamaForCausalLM(LlamaConfig(**SIZES)))


def mixtral(**kwargs):
    return tiny.randomized(MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, **kwargs)))


def language_batch(size=8, length=9):
    batch = tiny.text_batch(size, length)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[1::4, :4] = -100
    return batch | {"labels": labels}


def compare(model, batch, sizes=(1, 3, 8), **kwargs):
    """Compares every batch size with the reference; returns the parameters that took the one-example path."""
    expected = reference(model, batch, **kwargs)
    for size in sizes:
        fisher = accumulate_fisher_diagonal(model, tiny.in_batches(batch, size), self_check=False, **kwargs)
        assert worst_relative_difference(fisher.sums, expected) <= 1e-9
    return fisher.fallback_parameters


def architecture(model_type, head="causal LM"):
    entry = next(entry for entry in entries() if entry.model_type == model_type and entry.head == head)
    model = build(entry)
    batch = architecture_batch(entry, model)
    return model, batch


def compare_architecture(model_type, head="causal LM"):
    model, batch = architecture(model_type, head)
    return compare(model, batch, (2, 5), log_likelihood_func=log_likelihood)


def test_01_positions_and_bias_tables_that_broadcast_after_their_module():
    assert compare(gpt2(), language_batch()) == {}
    assert compare_architecture("t5", "seq2seq LM") == {}


@pytest.mark.parametrize("length", [2, 4, 8])
def test_02_a_length_that_divides_the_batch_or_equals_it(length):
    assert compare_architecture("mpnet", "masked LM") == {}
    assert compare(gpt2(), language_batch(8, length), (8, 4, 2)) == {}


def test_03_a_parameter_used_twice_has_the_square_of_the_sum():
    model = gpt2()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert compare(model, language_batch()) == {}
    assert compare(tiny.randomized(tiny.albert()), tiny.text_batch()) == {}


def test_04_gradients_that_share_memory_are_not_squared_in_place(caplog):
    with caplog.at_level(logging.WARNING):
        fisher = accumulate_fisher_diagonal(tiny.randomized(tiny.vit()), [tiny.image_batch()], self_check=True)
    assert fisher.fallback_parameters == {} and not caplog.records


def test_05_tokens_that_repeat_in_an_example_add_up_before_squaring():
    batch = language_batch()
    batch["input_ids"][:, :4] = batch["input_ids"][:, :1]
    assert compare(gpt2(), batch) == {}


def test_06_the_padding_row_of_an_embedding_has_no_fisher():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch()
    compare(model, batch)
    fisher = accumulate_fisher_diagonal(model, [batch])
    assert fisher.sums["bert.embeddings.word_embeddings.weight"][0].count_nonzero() == 0


def test_07_key_biases_that_are_zero_but_for_rounding_do_not_alarm_the_self_check(caplog):
    model = tiny.randomized(tiny.bert(), torch.float32)
    with caplog.at_level(logging.WARNING):
        fisher = accumulate_fisher_diagonal(model, [tiny.text_batch()])
    key_bias = fisher.sums["bert.encoder.layer.0.attention.self.key.bias"].max()
    assert key_bias < 1e-10 * fisher.sums["bert.encoder.layer.0.attention.self.query.bias"].max()
    assert not caplog.records


def test_08_a_loss_that_averages_over_the_batch_or_adds_a_routers_loss_is_not_used():
    batch = language_batch()
    model = mixtral(output_router_logits=True, router_aux_loss_coef=0.1)
    with pytest.raises(ValueError, match="auxiliary loss"):
        accumulate_fisher_diagonal(model, [batch])
    compare(model, batch, log_likelihood_func=next_token_log_likelihood)


def test_09_dropout_and_batch_statistics_are_off_however_they_are_called():
    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            # Dropout that does not ask whether the model is training.
            return (F.dropout(self.norm(self.linear(x)).tanh(), 0.5),)

    model = Restless().double().train()
    batch = {"x": torch.randn(8, 4).double(), "labels": torch.ones(8)}
    fisher = [
        accumulate_fisher_diagonal(
            model, tiny.in_batches(batch, size), log_likelihood_func=lambda outputs, labels: outputs[0].sum(1)
        )
        for size in (8, 3)
    ]
    assert worst_relative_difference(fisher[0].sums, fisher[1].sums) <= 1e-12
    assert fisher[0].fallback_parameters == {}
    assert model.norm.num_batches_tracked == 0


@pytest.mark.parametrize("length", [4, 8, 9])
def test_10_rows_of_experts_have_no_example_axis_though_their_number_may_divide(length):
    assert compare(mixtral(), language_batch(8, length), (8, 4, 3)) == {}


def test_11_modules_that_override_the_forward_of_a_standard_one():
    assert compare(tiny.randomized(tiny.convnext()), tiny.image_batch()) == {}
    assert compare_architecture("gemma2") == {}
    assert compare_architecture("opt") == {}


def test_12_parameters_passed_by_keyword():
    class ByKeyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.LayerNorm(3)

        def forward(self, x):
            y = F.linear(input=x, bias=self.a.bias, weight=self.a.weight)
            return (F.layer_norm(y, (3,), bias=self.b.bias, weight=self.b.weight).sin(),)

    batch = {"x": torch.randn(8, 5, 4).double(), "labels": torch.ones(8)}
    assert compare(ByKeyword().double(), batch, log_likelihood_func=lambda o, labels: o[0].sum((1, 2))) == {}


@pytest.mark.parametrize("model_type", ["mamba", "mamba2", "rwkv"])
def test_13_parameters_used_outside_their_own_module(model_type):
    assert compare_architecture(model_type) == {}


def test_14_an_activation_in_place_after_a_tapped_op():
    assert compare(tiny.randomized(tiny.resnet()), tiny.image_batch()) == {}
    assert compare_architecture("roc_bert", "masked LM") == {}


def test_15_nothing_is_stored_on_the_users_modules():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch()
    before = [(set(vars(module)), module._forward_hooks.copy()) for module in model.modules()]
    kept = [vars(parameter).copy() for parameter in model.parameters()]
    accumulate_fisher_diagonal(model, [batch])
    assert before == [(set(vars(module)), module._forward_hooks) for module in model.modules()]
    assert kept == [vars(parameter) for parameter in model.parameters()]


def test_16_rows_in_which_the_examples_alternate():
    model, batch = architecture("xlnet", "token classification")
    assert compare(model, batch, (2, 5), log_likelihood_func=log_likelihood) == {}
    model, batch = architecture("wavlm", "audio classification")
    assert compare(model, batch, (2, 5), log_likelihood_func=log_likelihood) == {}


def test_17_rounding_never_leaves_a_square_below_zero():
    torch.manual_seed(0)
    indices = torch.arange(6).expand(40, 6)
    head = LinearGradient(torch.eye(6).expand(40, 6, 6), torch.randn(40, 6, 50))
    total = torch.zeros(6, 50)
    head.add_squares_(total, range(40))
    tied = TiedGradient.of(head, indices, 6, torch.float32)
    # The embedding's gradient cancels the head's gradient up to the last bits.
    tied.add_rest_(total, [EmbeddingGradient(indices, -head.operands * (1 + 1e-7))], range(40))
    assert (total >= 0).all() and total.max() < 1e-4


def test_18_an_unused_branch_has_a_fisher_of_zero_and_is_not_taken_for_a_blind_spot():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch()
    model.unused = nn.Linear(3, 3).double()
    for self_check in (True, False):
        fisher = accumulate_fisher_diagonal(model, [batch], self_check=self_check)
        assert fisher.sums["unused.weight"].count_nonzero() == 0 and fisher.fallback_parameters == {}


def test_19_rows_are_added_in_an_order_that_does_not_change():
    rows, values = torch.randint(0, 5, (1000,)), torch.randn(1000, 3, dtype=torch.float64)
    totals = [torch.zeros(5, 3, dtype=torch.float64) for _ in range(2)]
    kernels.add_rows_(totals[0], rows, values)
    # On a GPU, where `index_add_` adds in any order, the kernel calls this.
    totals[1].index_put_((rows,), values, accumulate=True)
    assert torch.allclose(totals[0], totals[1], rtol=1e-12)
    model = gpt2().float()
    first, second = (accumulate_fisher_diagonal(model, [language_batch()]).sums for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("make", [gpt2, llama, mixtral, lambda: tiny.randomized(tiny.bert())])
def test_20_gradient_checkpointing_of_either_kind(make, use_reentrant):
    model = make()
    batch = language_batch() if hasattr(model, "lm_head") else tiny.text_batch(8)
    expected = reference(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.train()
    runs = []
    layer = next(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    function = layer._gradient_checkpointing_func
    hooks = [
        layer.register_forward_pre_hook(lambda *_: runs.append("layer")),
        next(layer.children()).register_forward_pre_hook(lambda *_: runs.append("inner")),
    ]
    fisher = accumulate_fisher_diagonal(model, [batch], self_check=False)
    for hook in hooks:
        hook.remove()
    assert worst_relative_difference(fisher.sums, expected) <= 1e-9
    assert fisher.fallback_parameters == {}
    # The inside of the layer ran again for the backward pass; the outside did not.
    assert runs.count("inner") == runs.count("layer") + 1
    assert layer._gradient_checkpointing_func is function and layer.training
