# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LevitConfig, LevitForImageClassification, MixtralConfig, MixtralForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_deepclean.models.contexts import (
    checkpointing_mode,
    differentiable_mode,
    evaluation_mode,
    restoring_unsaved_buffers,
    with_gradients,
)
from tests import tiny


class Interrupted(Exception):
    pass


def states(model):
    return [
        (module.training, len(module._forward_hooks), getattr(module, "_gradient_checkpointing_func", None))
        for module in model.modules()
    ]


@pytest.mark.parametrize("mode", [evaluation_mode, differentiable_mode, checkpointing_mode, restoring_unsaved_buffers])
def test_a_model_is_as_it_was_after_an_error(mode):
    for model in (tiny.resnet(), tiny.bert()):
        if model.supports_gradient_checkpointing:
            model.gradient_checkpointing_enable()
        model.train() if mode is evaluation_mode else model.eval()
        before, config = states(model), model.config.to_dict()
        with pytest.raises(Interrupted), mode(model):
            raise Interrupted
        assert states(model) == before and model.config.to_dict() == config


def test_experts_run_in_their_plain_form_and_without_a_cache_only_inside():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=20, num_local_experts=2))
    before = model.config._experts_implementation
    with differentiable_mode(model):
        assert model.config._experts_implementation == "eager" and model.config.use_cache is False
        assert model(torch.ones(1, 3, dtype=torch.long)).past_key_values is None
    assert model.config._experts_implementation == before != "eager" and model.config.use_cache is True


def test_dropout_is_off_even_where_a_model_does_not_ask():
    x = torch.randn(3, 4, 5, 6)
    with differentiable_mode(nn.Identity()):
        assert torch.equal(F.dropout(x, 0.5), x)
        assert torch.equal(F.dropout2d(x, 0.5, training=True), x)
        first, second = (F.scaled_dot_product_attention(x, x, x, dropout_p=0.5) for _ in range(2))
    assert torch.equal(first, second)


def test_layers_are_checkpointed_in_eval_mode_with_their_insides_in_eval_mode():
    model = tiny.bert()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with evaluation_mode(model), checkpointing_mode(model):
        for module in model.modules():
            assert module.training == isinstance(module, GradientCheckpointingLayer)
        layer = next(module for module in model.modules() if module.training)
        assert layer._gradient_checkpointing_func.func is checkpoint
        assert layer._gradient_checkpointing_func.keywords["use_reentrant"] is False


def test_batch_norm_of_one_image_has_the_gradient_of_the_same_image_in_a_batch():
    """torch misreads the gradient of a single example if it is a slice of tokens, as after a class token."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(8)).double().eval()
    model[0].running_var.uniform_(0.5, 2)
    images = torch.randn(2, 8, 2, 2).double()
    weights = torch.randn(2, 5, 8).double()

    def gradient(size):
        tokens = model(images[:size]).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros(size, 1, 8).double(), tokens], dim=1)
        score = (tokens.sin() * weights[:size]).sum(dim=(1, 2))[0]
        return torch.autograd.grad(score, list(model.parameters()))

    with differentiable_mode(model):
        for one, two in zip(gradient(1), gradient(2), strict=True):
            assert torch.allclose(one, two, rtol=1e-12)


def test_biases_that_levit_keeps_in_eval_mode_have_a_gradient_every_time():
    sizes = {"hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "image_size": 64}
    model = LevitForImageClassification(LevitConfig(**sizes, key_dim=[4, 4, 4], num_labels=2)).eval()
    biases = [p for name, p in model.named_parameters() if name.endswith("attention_biases")]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model(images)
    with differentiable_mode(model):
        for _ in range(2):
            gradients = torch.autograd.grad(model(images).logits[0, 0], biases, allow_unused=True)
            assert all(gradient is not None for gradient in gradients)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_function_that_needs_gradients_has_them_for_every_caller(mode):
    @with_gradients
    def slope(weight):
        return torch.autograd.grad((weight**2).sum(), weight)[0]

    weight = torch.ones(2, requires_grad=True)
    with mode():
        assert torch.equal(slope(weight), 2 * weight)
        assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
