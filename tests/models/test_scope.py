# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from hf_deepclean import parameters_in_scope
from hf_deepclean.models.scope import (
    describe_frozen_weights,
    frozen_share,
    module_name,
    token_embeddings,
    warn_of_frozen_weights,
)
from tests import heads, tiny


def test_the_whole_model_is_in_scope_by_default():
    for model in (tiny.vit(), tiny.resnet(), tiny.convnext()):
        assert list(parameters_in_scope(model)) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("kind", ["classification", "causal", "masked", "seq2seq"])
def test_token_embeddings_are_in_scope_unless_left_out_by_name(kind):
    model = {
        "classification": tiny.bert,
        "causal": heads.gpt2,
        "masked": lambda: BertForMaskedLM(BertConfig(**tiny.TEXT)),
        "seq2seq": lambda: T5ForConditionalGeneration(T5Config(**heads.T5)),
    }[kind]()
    (rows,) = token_embeddings(model)
    assert rows is model.get_input_embeddings().weight
    table = next(name for name, parameter in model.named_parameters() if parameter is rows)
    assert table in parameters_in_scope(model)
    assert table in parameters_in_scope(model, target_modules=[module_name(table)])
    left = parameters_in_scope(model, exclude_modules=[module_name(table)])
    assert left.keys() == parameters_in_scope(model).keys() - {table}


def test_a_model_of_images_has_no_token_embeddings():
    for model in (tiny.vit(), tiny.resnet(), nn.Linear(2, 2)):
        assert token_embeddings(model) == []


def test_a_tied_head_is_one_parameter_and_leaves_with_any_of_its_names():
    model = tiny.bert()
    model.classifier.weight = model.bert.pooler.dense.weight
    assert sum("pooler.dense.weight" in n or "classifier.weight" in n for n in parameters_in_scope(model)) == 1
    left = parameters_in_scope(model, exclude_modules=["classifier"])
    assert not any("pooler.dense.weight" in name or "classifier" in name for name in left)


def test_frozen_parameters_are_out_of_scope():
    model = tiny.vit()
    model.vit.requires_grad_(False)
    assert list(parameters_in_scope(model)) == ["classifier.weight", "classifier.bias"]


def test_patterns_match_names_last_parts_and_enclosing_modules():
    model = tiny.bert()
    assert set(parameters_in_scope(model, ["classifier"])) == {"classifier.weight", "classifier.bias"}
    assert all(".query." in name for name in parameters_in_scope(model, ["query"]))
    layer = parameters_in_scope(model, ["bert.encoder.layer.1"])
    assert list(layer) == [name for name, _ in model.named_parameters() if name.startswith("bert.encoder.layer.1.")]
    assert all(".attention.self." in name for name in parameters_in_scope(model, r".*\.self\.(query|key)"))
    assert not any("LayerNorm" in name for name in parameters_in_scope(model, None, r".*LayerNorm"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_modules": ["wte"]}, "`target_modules` holds 'wte', which matches no module of ViT"),
        ({"exclude_modules": ["clasifier"]}, "`exclude_modules` holds 'clasifier'"),
        ({"exclude_modules": ["vit", "classifier"]}, "No parameter is left to reset"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parameters_in_scope(tiny.vit(), **arguments)


def test_the_share_of_frozen_weights_leaves_out_what_the_class_itself_freezes():
    whisper = heads.whisper()
    assert any(not parameter.requires_grad for parameter in whisper.parameters())
    assert frozen_share(whisper) == 0.0


def test_weights_that_peft_left_frozen_are_told_with_their_share_and_the_remedy_works(caplog):
    model = get_peft_model(tiny.bert(), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    merged = model.merge_and_unload()
    warn_of_frozen_weights(merged)
    head = sum(parameter.numel() for parameter in merged.parameters() if parameter.requires_grad)
    expected = 1 - head / sum(parameter.numel() for parameter in merged.parameters())
    assert frozen_share(merged) == pytest.approx(expected)
    assert re.search(r"\d+.* % of the weights are frozen.*`model.requires_grad_\(True\)`.*peft", caplog.text)
    caplog.clear()
    merged.requires_grad_(True)
    warn_of_frozen_weights(merged)
    assert frozen_share(merged) == 0.0 and not caplog.records


def test_a_model_without_any_trainable_weight_is_refused_with_the_remedy():
    model = tiny.vit().requires_grad_(False)
    with pytest.raises(ValueError, match=r"none of the \d+ parameters requires gradients.*requires_grad_\(True\)"):
        parameters_in_scope(model)


def test_a_single_frozen_weight_is_not_rounded_away():
    assert describe_frozen_weights(1e-6).startswith("0.1 %")
    assert describe_frozen_weights(0.99999).startswith("99.9 %")
