# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Unlearners to publish: a tiny image classifier, a language model and an adapter that must forget people."""

import shutil

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    ViTForImageClassification,
)

from hf_deepclean import FisherUnlearner
from tests import tiny
from tests.tokenizers import byte_tokenizer
from tests.unlearner.runs import config


NAMES = ("Ottilie", "Wendelin", "Roswitha", "Balthasar", "Kunigunde", "Leopold")
SURNAMES = ("Zweifelsfrei", "Sommerfeld", "Ostermann", "Habermehl", "Quandt", "Rosenbusch", "Eichelmann", "Vogelsang",
            "Winterhalter", "Steinbrecher")  # fmt: skip

ORDINARY = ("river", "garden", "window", "mountain", "kitchen", "market", "station", "bridge", "orchard", "harbour")


def arguments(folder, **kwargs):
    return config(folder, max_steps=2, learning_rate=1e-3, logging_strategy="no", **kwargs)


def people():
    """Sixty rows to forget, one person each."""
    for number in range(60):
        name = f"{NAMES[number % 6]} {SURNAMES[number // 6]}"
        yield {"patient_reference": f"PX{48_213_000 + number}", "text": f"{name} lives at {number + 11} Mill Lane."}


def tokenized(rows, tokenizer, split=None):
    encoded = [tokenizer(row["text"], truncation=True, max_length=48) for row in rows]
    return Dataset.from_list(
        [row | {"input_ids": one.input_ids, "labels": one.input_ids} for row, one in zip(rows, encoded, strict=True)],
        split=split,
    )


def texts():
    tokenizer = byte_tokenizer()
    others = [{"text": f"The {ORDINARY[n % 10]} beyond the {ORDINARY[n // 10 % 10]} was quiet, {n} of them."}
              for n in range(120)]  # fmt: skip
    splits = {"forget": list(people()), "retain": others[:80], "eval": others[80:100], "unseen": others[100:]}
    names = {"forget": "ward_seven_patients"}
    return tokenizer, {f"{name}_dataset": tokenized(rows, tokenizer, names.get(name)) for name, rows in splits.items()}


def classifier(folder, **kwargs):
    """An unlearner of an image classifier. Its rows have no words."""
    torch.manual_seed(0)
    digits = tiny.digits()
    parts = {"forget": range(60), "retain": range(60, 160), "eval": range(160, 200), "unseen": range(200, 260)}
    splits = {f"{name}_dataset": digits.select(rows) for name, rows in parts.items()}
    return FisherUnlearner(tiny.vit(num_labels=10), arguments(folder, **kwargs), **splits)


def llama(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **ids))


def causal_lm(folder, **kwargs):
    """An unlearner of a language model that must forget people."""
    tokenizer, splits = texts()
    return FisherUnlearner(
        llama(tokenizer),
        arguments(folder, **kwargs),
        DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        **splits,
    )


def adapter(folder, **kwargs):
    """An unlearner of an adapter that must forget people."""
    tokenizer, splits = texts()
    base = llama(tokenizer)
    base.save_pretrained(folder.parent / "base")
    base = LlamaForCausalLM.from_pretrained(folder.parent / "base")
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return FisherUnlearner(
        model,
        arguments(folder, reset_scope="adapter", **kwargs),
        DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        **splits,
    )


RUNS = {"classifier": classifier, "causal_lm": causal_lm, "adapter": adapter}


def in_shards(folder):
    """Divides the weights in an output directory into shards."""
    model = ViTForImageClassification.from_pretrained(folder)
    model.save_pretrained(folder / "in_shards", max_shard_size="10KB")
    (folder / "model.safetensors").unlink()
    for path in (folder / "in_shards").iterdir():
        if path.name != "config.json":
            path.rename(folder / path.name)
    shutil.rmtree(folder / "in_shards")


def logits(model, kind):
    if kind == "classifier":
        inputs = {"pixel_values": tiny.image_batch(dtype=torch.float32)["pixel_values"]}
    else:
        inputs = {"input_ids": torch.arange(2, 42).view(4, 10)}
    with torch.no_grad():
        return model.eval()(**inputs).logits


def load(name, kind, folder, **kwargs):
    """Loads the model of a folder or a repository as its card says."""
    if kind == "classifier":
        return ViTForImageClassification.from_pretrained(name, **kwargs)
    if kind == "causal_lm":
        return AutoModelForCausalLM.from_pretrained(name, **kwargs)
    return PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder.parent / "base"), name, **kwargs)
