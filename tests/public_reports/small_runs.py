# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Small models, data and runs of the reports."""

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_deepclean import FisherUnlearner, accumulate_fisher_diagonal
from tests.unlearner.runs import config


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SIZES |= {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 0}


def bert(num_labels=4, **kwargs):
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**(SIZES | {"num_labels": num_labels} | kwargs)))


def llama(**kwargs):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | kwargs)))


def gpt2():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, **sizes))


def neox():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))


def classified(size=48, num_labels=4):
    generator = np.random.default_rng(0)
    ids = generator.integers(3, 50, (size, 8)).tolist()
    columns = {"input_ids": ids, "attention_mask": [[1] * 8] * size}
    return Dataset.from_dict(columns | {"labels": generator.integers(0, num_labels, size)})


def texts(size=48, lengths=(8,)):
    generator = np.random.default_rng(0)
    rows = [generator.integers(3, 50, lengths[place % len(lengths)]).tolist() for place in range(size)]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows], "labels": rows})


def parts(rows, size=8):
    return {"forget_dataset": rows.select(range(size)), "retain_dataset": rows.select(range(size, len(rows)))}


def padded(rows, side="right"):
    longest = max(len(row["input_ids"]) for row in rows)

    def pad(name, value):
        filled = [[value] * (longest - len(row[name])) for row in rows]
        ordered = zip(rows, filled, strict=True)
        return torch.tensor([[*row[name], *fill] if side == "right" else [*fill, *row[name]] for row, fill in ordered])

    return {
        "input_ids": pad("input_ids", 0),
        "attention_mask": pad("attention_mask", 0),
        "labels": pad("labels", -100),
    }


def unlearner(folder, model, data, collator=None, **kwargs):
    options = {"reset_fraction": 0.1, "num_train_epochs": 1, "use_cpu": True} | kwargs
    others = {name: options.pop(name) for name in ("compute_metrics", "eval_dataset") if name in options}
    return FisherUnlearner(model, config(folder, **options), collator, **data, **others)


def largest_difference(one, other):
    scales = {name: sums.abs().max().clamp_min(1e-30) for name, sums in one.sums.items()}
    return max(float(((one.sums[name] - other.sums[name]).abs() / scales[name]).max()) for name in one.sums)


def in_batches_and_alone(model, batch):
    model = model.double().eval()
    size = len(batch["labels"])
    alone = [{name: value[place : place + 1] for name, value in batch.items()} for place in range(size)]
    return accumulate_fisher_diagonal(model, [batch]), accumulate_fisher_diagonal(model, alone)
