# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch

from tests.architectures.batches import batch
from tests.architectures.coverage import compare, page
from tests.architectures.entries import Entry, entries
from tests.architectures.tiny_models import build


# One of each kind of computation.
KINDS = [
    ("sequence classification", "bert"),
    ("token classification", "deberta-v2"),
    ("multiple choice", "distilbert"),
    ("question answering", "xlnet"),
    ("masked LM", "albert"),
    ("masked LM", "modernbert"),
    ("masked LM", "mpnet"),
    ("causal LM", "gpt2"),
    ("causal LM", "llama"),
    ("causal LM", "gemma2"),
    ("causal LM", "falcon"),
    ("causal LM", "mixtral"),
    ("causal LM", "deepseek_v3"),
    ("causal LM", "gpt_oss"),
    ("causal LM", "mamba"),
    ("causal LM", "mamba2"),
    ("causal LM", "qwen3_next"),
    ("seq2seq LM", "t5"),
    ("seq2seq LM", "bart"),
    ("image classification", "vit"),
    ("image classification", "swin"),
    ("image classification", "beit"),
    ("image classification", "convnext"),
    ("image classification", "resnet"),
    ("audio classification", "hubert"),
    ("CTC", "wav2vec2"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Uses one thread: a second one slows down such small tensors."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def entry_of(head: str, model_type: str) -> Entry:
    return next(entry for entry in entries() if (entry.head, entry.model_type) == (head, model_type))


@pytest.mark.parametrize(("head", "model_type"), KINDS)
def test_the_pass_equals_its_definition(head, model_type):
    result = compare(entry_of(head, model_type))
    assert result.exact, result
    assert result.reached > 0.8 * result.num_parameters, "the batch leaves too much of the model at zero to test it"


@pytest.mark.parametrize(("head", "model_type"), [("masked LM", "bert"), ("causal LM", "mixtral")])
def test_an_example_does_not_depend_on_its_batch(head, model_type):
    entry = entry_of(head, model_type)
    model = build(entry)
    inputs = {name: value for name, value in batch(entry, model).items() if name != "labels"}
    with torch.no_grad():
        together = model(**inputs).logits
        alone = [model(**{name: value[i : i + 1] for name, value in inputs.items()}).logits for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-12, atol=1e-12)


def test_a_model_and_its_batch_are_the_same_on_every_call():
    entry = entry_of("causal LM", "mixtral")
    first, second = build(entry), build(entry)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    batches = batch(entry, first), batch(entry, second)
    assert all(torch.equal(value, batches[1][name]) for name, value in batches[0].items())


def test_what_cannot_be_built_is_in_the_page_with_its_reason():
    result = compare(Entry("causal LM", "bert", "NoSuchModel"))
    assert result.status == "not built"
    assert "AttributeError" in page([result])


def test_the_page_has_the_text_that_the_program_writes():
    written = Path(__file__).with_name("README.md").read_text()
    text = page([])
    table = "| architecture | heads | result |"
    assert text[text.index("## In this folder") : text.index(table)] in written
    assert written[: written.index(" with transformers")] == text[: text.index(" with transformers")]


@pytest.mark.slow
def test_every_architecture_is_exact():
    results = [compare(entry) for entry in entries()]
    built = [result for result in results if result.built]
    assert [result for result in built if not result.exact] == []
    assert sum(not result.one_example for result in built) >= 0.85 * len(built)
    assert len(built) >= 0.9 * len(results)
