# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A model whose saved weights are right is published in any precision; one that loads otherwise is refused."""

import re

import pytest
import torch

from hf_deepclean.publishing.contents.load_check import ModelInMemory, check_loads
from tests.architectures.batches import batch
from tests.architectures.entries import Entry
from tests.architectures.tiny_models import build


CANINE = Entry("sequence classification", "canine", "CanineForSequenceClassification")
LLAMA = Entry("sequence classification", "llama", "LlamaForSequenceClassification")
LONGT5 = Entry("seq2seq LM", "longt5", "LongT5ForConditionalGeneration")
MAMBA = Entry("causal LM", "mamba", "MambaForCausalLM")
PROPHETNET = Entry("causal LM", "prophetnet", "ProphetNetForCausalLM")
SPLINTER = Entry("question answering", "splinter", "SplinterForQuestionAnswering")
T5 = Entry("seq2seq LM", "t5", "T5ForConditionalGeneration")
XLNET = Entry("sequence classification", "xlnet", "XLNetForSequenceClassification")
YOUTU = Entry("causal LM", "youtu", "YoutuForCausalLM")


@pytest.fixture
def saved(tmp_path):
    """Saves a model and returns its folder, and the model with a batch."""

    def save(entry, dtype=torch.float32):
        model = build(entry)
        # Without the forward pass in float64 that the models of other tests have.
        del model.forward
        model.to(dtype).save_pretrained(tmp_path / "model")
        return tmp_path / "model", ModelInMemory(model, batch(entry, model, 2))

    return save


def change_a_weight(model):
    """Changes one row of the last matrix."""
    with torch.no_grad():
        [parameter for parameter in model.parameters() if parameter.ndim > 1][-1][1] += 0.1


@pytest.mark.parametrize("entry", [CANINE, SPLINTER, PROPHETNET, LONGT5], ids=lambda entry: entry.model_type)
def test_a_loaded_model_answers_with_the_same_bits_and_a_changed_weight_is_found(saved, caplog, entry):
    folder, in_memory = saved(entry)
    check_loads(folder, in_memory=in_memory)
    assert not caplog.text
    # Splinter's answers for padding are the least number that there is.
    change_a_weight(in_memory.model)
    with pytest.raises(ValueError, match=r"answers differently .*has other values after loading \(\d such\)"):
        check_loads(folder, in_memory=in_memory)


def with_bfloat16_embeddings(model):
    model.get_input_embeddings().to(torch.bfloat16)


@pytest.mark.parametrize(
    ("entry", "dtype", "mix", "advice"),
    [
        # Loading makes some weights of these in float32.
        (XLNET, torch.bfloat16, None, r"needs `model\.to\(torch\.bfloat16\)`"),
        (T5, torch.float16, None, r"needs `model\.to\(torch\.float16\)`"),
        # Loading puts all weights into the precision of the first.
        (LLAMA, torch.float32, with_bfloat16_embeddings, "into one precision"),
        (MAMBA, torch.float32, with_bfloat16_embeddings, "into one precision"),
    ],
    ids=["xlnet", "t5", "llama", "mamba"],
)
def test_weights_that_load_in_another_precision_are_told_not_refused(saved, caplog, entry, dtype, mix, advice):
    folder, in_memory = saved(entry, dtype)
    if mix is not None:
        mix(in_memory.model)
        in_memory.model.save_pretrained(folder)
    check_loads(folder, in_memory=in_memory)
    (record,) = caplog.records
    assert "where the folder is loaded" in record.message and re.search(advice, record.message)
    change_a_weight(in_memory.model)
    with pytest.raises(ValueError, match="answers differently"):
        check_loads(folder, in_memory=in_memory)


def test_a_forward_pass_that_no_file_holds_is_named_if_it_changes_answers(saved, caplog):
    folder, in_memory = saved(LLAMA)
    model, forward = in_memory.model, in_memory.model.forward

    def doubled(**inputs):
        outputs = forward(**inputs)
        outputs.logits = outputs.logits * 2
        return outputs

    model.forward = lambda **inputs: forward(**inputs)
    check_loads(folder, in_memory=in_memory)
    assert not caplog.text
    model.forward = doubled
    with pytest.raises(ValueError, match="All weights are the same, but a `forward` was replaced"):
        check_loads(folder, in_memory=in_memory)


def test_weights_that_loading_sets_anew_are_refused_by_name(saved):
    # Youtu's loading zeroes the embedding of padding, which is tied to the head.
    folder, in_memory = saved(YOUTU)
    with pytest.raises(ValueError, match=r"`model\.embed_tokens\.weight` has other values after loading \(1 such\)"):
        check_loads(folder, in_memory=in_memory)
    with torch.no_grad():
        in_memory.model.get_input_embeddings().weight[in_memory.model.config.pad_token_id] = 0.0
    in_memory.model.save_pretrained(folder)
    check_loads(folder, in_memory=in_memory)


def test_answers_without_a_finite_number_are_told_as_unchecked(saved, caplog):
    # Canine's mask of padding overflows in float64.
    folder, in_memory = saved(CANINE, torch.float64)
    check_loads(folder, in_memory=in_memory)
    assert "not checked: the model in memory answers a batch of retain data with no finite number" in caplog.text
