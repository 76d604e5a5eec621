# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Small models and data for every task of the command line."""

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTForImageClassification,
)

from tests import tiny


WORDS = ["red", "green", "blue", "black"]
BERT = {"vocab_size": 300, "max_position_embeddings": 24, "num_labels": 4, "pad_token_id": 0}
NAMED = {"id2label": dict(enumerate(WORDS)), "label2id": {word: number for number, word in enumerate(WORDS)}}


def text_rows():
    return [
        {"text": f"{WORDS[number % 4]} {number}", "label": WORDS[number % 4], "delete": number % 5 == 0}
        for number in range(40)
    ]


def word_rows():
    return [
        {"tokens": [WORDS[number % 4], f"x{number}"], "tags": [number % 4, 0], "person": number % 3}
        for number in range(40)
    ]


def image_rows():
    digits = tiny.digits().select(range(60)).with_format(None)
    return [{"pixel_values": row["pixel_values"], "label": row["labels"]} for row in digits]


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=24, bos_token_id=None)
    )


TASKS = {
    "text-classification": (
        lambda: BertForSequenceClassification(BertConfig(**(tiny.TEXT | BERT), **NAMED)),
        text_rows,
        ["--forget_column", "delete"],
        AutoModelForSequenceClassification,
    ),
    "token-classification": (
        lambda: BertForTokenClassification(BertConfig(**(tiny.TEXT | BERT))),
        word_rows,
        ["--forget_filter", "person == 1"],
        AutoModelForTokenClassification,
    ),
    "causal-lm": (gpt2, text_rows, ["--forget_filter", 'text.startswith("red")'], AutoModelForCausalLM),
    "image-classification": (
        lambda: tiny.vit(num_labels=10),
        image_rows,
        ["--forget_filter", "label == 3"],
        ViTForImageClassification,
    ),
}


RUN = ("--reset_fraction", "0.1", "--num_train_epochs", "1", "--disable_tqdm", "true", "--use_cpu", "true")
