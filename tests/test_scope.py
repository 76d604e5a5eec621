# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from hf_deepclean import parameters_in_scope
from hf_deepclean.scope import module_name

from . import heads, tiny


def test_the_whole_model_is_in_scope_by_default():
    for model in (tiny.vit(), tiny.resnet(), tiny.convnext()):
        assert list(parameters_in_scope(model)) == [name for name, _ in model.named_parameters()]


def test_token_embeddings_are_out_of_scope_of_what_is_no_language_model_unless_asked_for():
    table = "bert.embeddings.word_embeddings.weight"
    assert table not in parameters_in_scope(tiny.bert())
    assert "bert.embeddings.position_embeddings.weight" in parameters_in_scope(tiny.bert())
    assert table in parameters_in_scope(tiny.bert(), exclude_modules=[])
    assert table in parameters_in_scope(tiny.bert(), target_modules=["word_embeddings"])


@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq"])
def test_token_embeddings_are_in_scope_of_a_language_model_unless_left_out(kind):
    model = {
        "causal": heads.gpt2,
        "masked": lambda: BertForMaskedLM(BertConfig(**tiny.TEXT)),
        "seq2seq": lambda: T5ForConditionalGeneration(T5Config(**heads.T5)),
    }[kind]()
    table = next(name for name, p in model.named_parameters() if p is model.get_input_embeddings().weight)
    assert table in parameters_in_scope(model)
    left = parameters_in_scope(model, exclude_modules=[module_name(table)])
    assert table not in left
    assert left


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
