# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models with adapters of every kind, data for them, and an unlearner that cleans them."""

import datasets
import peft
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from hf_deepclean import FisherUnlearner, WeightSelection
from hf_deepclean.models.adapters.parameters import adapter_parameters
from tests import heads, tiny
from tests.unlearner.runs import config


FORGET, RETAIN, UNSEEN = range(8), range(8, 32), range(32, 40)
FILES = ["adapter_config.json", "adapter_model.safetensors", "forget_commitment.json", "report.json"]


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(**heads.LLAMA))


# Every kind of base model: its constructor, the task of its adapter, and the modules that LoRA is applied to.
BASES = {
    "bert": (tiny.bert, "SEQ_CLS", ["query", "value"]),
    "gpt2": (heads.gpt2, "CAUSAL_LM", ["c_attn", "c_proj"]),
    "llama": (llama, "CAUSAL_LM", ["q_proj", "down_proj"]),
}


# Every kind of adapter that can be cleaned: its base model and its configuration.
ADAPTERS = {
    "plain": ("bert", {}),
    "Conv1D": ("gpt2", {"fan_in_fan_out": True}),
    "rank-stabilised": ("llama", {"use_rslora": True, "lora_alpha": 3}),
    "magnitudes": ("llama", {"use_dora": True}),
    "gaussian": ("llama", {"init_lora_weights": "gaussian"}),
    "orthogonal": ("llama", {"init_lora_weights": "orthogonal"}),
    "biases": ("bert", {"lora_bias": True}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings with magnitudes": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "trained table": ("llama", {"modules_to_save": ["embed_tokens"]}),
    "trained tokens": ("llama", {"trainable_token_indices": sorted(set(heads.text()["input_ids"][:, 0].tolist()))}),
    "convolutions": ("resnet", {"target_modules": ["convolution"]}),
    "convolutions with magnitudes": ("resnet", {"target_modules": ["convolution"], "use_dora": True}),
}


def base_model(kind, dtype=torch.float32):
    torch.manual_seed(0)
    return tiny.randomized(tiny.resnet() if kind == "resnet" else BASES[kind][0](), dtype)


def trained(model, seed=3, scale=0.1):
    """Moves the weights of the active adapter away from their initial values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


def adapted(kind="bert", dtype=torch.float32, base=None, **lora):
    base = base or base_model(kind, dtype)
    if kind == "resnet":
        settings = {"r": 2, "modules_to_save": ["classifier"]}
    else:
        _, task, targets = BASES[kind]
        settings = {"r": 2, "task_type": task, "target_modules": targets}
    model = trained(get_peft_model(base, LoraConfig(**(settings | lora))))
    return model.to(dtype).eval()


def kind_of_adapter(name, dtype=torch.float64):
    kind, lora = ADAPTERS[name]
    return kind, adapted(kind, dtype, **lora)


def batch_for(kind):
    if kind == "resnet":
        return tiny.image_batch()
    return tiny.text_batch() if kind == "bert" else heads.text("next", (7, 4, 6, 5, 7))


def logits(model, kind):
    inputs = {key: value for key, value in batch_for(kind).items() if key != "labels"}
    with torch.no_grad():
        return model(**inputs).logits


def dataset(kind):
    generator = torch.Generator().manual_seed(8)
    tokens = torch.randint(3, 50, (40, 8), generator=generator)
    labels = torch.randint(0, tiny.NUM_LABELS, (40,), generator=generator) if kind == "bert" else tokens
    columns = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    return datasets.Dataset.from_dict({name: column.tolist() for name, column in columns.items()})


def splits(kind="bert", **others):
    rows = dataset(kind)
    parts = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    return parts | {"unseen_dataset": rows.select(UNSEEN)} | others


def unlearner_for(directory, model, kind="bert", data=None, **kwargs):
    defaults = {"reset_scope": "adapter", "reset_fraction": 0.3, "num_train_epochs": 1}
    args = config(directory, **(defaults | kwargs))
    return FisherUnlearner(model, args, **(data or splits(kind)))


def saved(model, directory):
    model.save_pretrained(directory)
    return directory


def on_disk(tmp_path, kind="bert", **lora):
    base_model(kind).save_pretrained(tmp_path / "base")
    base = type(base_model(kind)).from_pretrained(tmp_path / "base")
    return saved(adapted(kind, base=base, **lora), tmp_path / "adapter")


def everything(model):
    """A selection of all weights of the adapter."""
    sizes = {name: parameter.numel() for name, parameter in adapter_parameters(model).items()}
    return WeightSelection({name: torch.arange(size) for name, size in sizes.items()}, sizes, "gamma", 1.0)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def files_of(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def scaled():
    settings = {"target_modules": ["key", "dense"], "feedforward_modules": ["dense"]}
    return get_peft_model(tiny.bert(), peft.IA3Config(task_type="SEQ_CLS", **settings))
