# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from torch import nn
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from hf_deepclean import parameters_in_scope
from hf_deepclean.models.scope import module_name, token_embeddings
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
