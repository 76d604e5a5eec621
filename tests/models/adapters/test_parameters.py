# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import accumulate_fisher_diagonal, parameters_in_scope
from hf_deepclean.models.adapters.parameters import adapter_parameters
from hf_deepclean.models.likelihood import classification_log_likelihood, next_token_log_likelihood
from hf_deepclean.models.scope import token_embeddings
from tests import tiny
from tests.models.adapters.examples import ADAPTERS, adapted, batch_for, kind_of_adapter


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_fisher_of_every_kind_of_adapter_is_that_of_the_definition(name):
    kind, model = kind_of_adapter(name)
    scope = parameters_in_scope(model, exclude_modules=[], reset_scope="adapter")
    assert scope.keys() == adapter_parameters(model).keys()
    batch = batch_for(kind)
    fisher = accumulate_fisher_diagonal(model, [batch], parameters=scope)
    expected = {name: torch.zeros_like(parameter) for name, parameter in scope.items()}
    likelihood = next_token_log_likelihood if batch["labels"].ndim == 2 else classification_log_likelihood
    for example in tiny.in_batches(batch, 1):
        inputs = {key: value for key, value in example.items() if key != "labels"}
        value = likelihood(model(**inputs), example["labels"]).sum()
        for key, gradient in zip(scope, torch.autograd.grad(value, scope.values()), strict=True):
            expected[key] += gradient**2
    for key, total in expected.items():
        assert total.max() > 0
        assert torch.allclose(fisher.sums[key].double(), total, rtol=1e-9, atol=1e-9 * total.max().item())


def test_entries_that_belong_to_single_tokens_are_known_as_such_and_in_scope_unless_left_out():
    tokens = sorted(set(tiny.text_batch()["input_ids"][:, 0].tolist()))
    for kind, table, part, lora in (
        ("bert", "word_embeddings", "lora_embedding_A", {"target_modules": ["word_embeddings", "query"]}),
        ("bert", "word_embeddings", "modules_to_save", {"modules_to_save": ["word_embeddings", "classifier"]}),
        (
            "bert",
            "word_embeddings",
            "trainable_tokens_delta",
            {"trainable_token_indices": {"word_embeddings": tokens}},
        ),
        ("llama", "embed_tokens", "lora_embedding_A", {"target_modules": ["embed_tokens", "q_proj"]}),
        ("llama", "embed_tokens", "modules_to_save", {"modules_to_save": ["embed_tokens"]}),
    ):
        model = adapted(kind, **lora)
        own = adapter_parameters(model)
        of_tokens = {key for key in own if f".{part}." in key and table in key}
        assert of_tokens
        rows = set(token_embeddings(model))
        assert {key for key, parameter in own.items() if parameter in rows} == of_tokens
        assert parameters_in_scope(model, reset_scope="adapter").keys() == own.keys()
        if len(own) > len(of_tokens):
            left = parameters_in_scope(model, exclude_modules=[table], reset_scope="adapter")
            assert left.keys() == {key for key in own if table not in key}
        assert list(parameters_in_scope(model, [table], reset_scope="adapter")) == [key for key in own if table in key]


def test_patterns_narrow_the_adapter():
    model = adapted()
    scope = parameters_in_scope(model, ["encoder.layer.1"], ["lora_A"], reset_scope="adapter")
    assert scope and all(".layer.1." in name and ".lora_B." in name for name in scope)
    assert not any("classifier" in name for name in parameters_in_scope(model, None, ["classifier"]))
    with pytest.raises(ValueError, match="No parameter is left"):
        parameters_in_scope(model, ["key"], reset_scope="adapter")
