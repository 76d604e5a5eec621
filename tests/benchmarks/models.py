# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The workloads of the Fisher benchmark: a model with fixed random weights, a batch, and its log-likelihood."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    ResNetConfig,
    ResNetForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)


Batch = dict[str, torch.Tensor]
LogLikelihood = Callable[[Any, torch.Tensor], torch.Tensor]

NUM_LABELS = 10


def class_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return -F.cross_entropy(outputs["logits"], labels, reduction="none")


def token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    losses = F.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="none")
    return -losses.view(labels.shape).sum(dim=1)


def next_token_log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return token_log_likelihood(outputs, F.pad(labels[:, 1:], (0, 1), value=-100))


class Classifier(nn.Module):
    """A stack of layers that is called like a transformers classifier."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.config = PreTrainedConfig(num_labels=NUM_LABELS)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layers(pixel_values)
        return {"logits": logits} if labels is None else {"logits": logits, "loss": F.cross_entropy(logits, labels)}


def images(size: int, *shape: int) -> Batch:
    return {"pixel_values": torch.randn(size, *shape), "labels": torch.randint(0, NUM_LABELS, (size,))}


def tokens(size: int, length: int, vocab_size: int) -> Batch:
    """Tokens without a mask: transformers reads the values of a mask, which `torch.func.vmap` refuses."""
    return {"input_ids": torch.randint(2, vocab_size, (size, length))}


def mlp() -> tuple[nn.Module, Batch]:
    layers = (nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, NUM_LABELS))
    return Classifier(*layers), images(64, 784)


def cnn() -> tuple[nn.Module, Batch]:
    def block(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(channels_in, channels_out, 3, stride, 1), nn.BatchNorm2d(channels_out), nn.ReLU()]

    layers = [*block(3, 32, 1), *block(32, 64, 2), *block(64, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Classifier(*layers, nn.Linear(64, NUM_LABELS)), images(32, 3, 32, 32)


def resnet18() -> tuple[nn.Module, Batch]:
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    config = ResNetConfig(layer_type="basic", num_labels=NUM_LABELS, **sizes)
    return ResNetForImageClassification(config), images(16, 3, 64, 64)


def vit() -> tuple[nn.Module, Batch]:
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
    config = ViTConfig(image_size=64, patch_size=8, num_labels=NUM_LABELS, **sizes)
    return ViTForImageClassification(config), images(16, 3, 64, 64)


def bert() -> tuple[nn.Module, Batch]:
    sizes = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=8000, num_labels=NUM_LABELS, **sizes, **dropout)
    return BertForSequenceClassification(config), tokens(16, 128, 8000) | {"labels": images(16)["labels"]}


def gpt2() -> tuple[nn.Module, Batch]:
    sizes = {"n_embd": 256, "n_layer": 6, "n_head": 4, "n_positions": 128, "vocab_size": 20000}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    batch = tokens(8, 128, 20000)
    config = GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0, use_cache=False)
    return GPT2LMHeadModel(config), batch | {"labels": batch["input_ids"]}


def llama() -> tuple[nn.Module, Batch]:
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "vocab_size": 8000}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    batch = tokens(8, 128, 8000)
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, use_cache=False)), batch | {"labels": batch["input_ids"]}


def t5() -> tuple[nn.Module, Batch]:
    sizes = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 3, "num_heads": 4, "vocab_size": 8000}
    config = T5Config(
        **sizes, feed_forward_proj="gated-gelu", dropout_rate=0.0, decoder_start_token_id=0, use_cache=False
    )
    decoder = tokens(8, 65, 8000)["input_ids"]
    batch = tokens(8, 128, 8000) | {"decoder_input_ids": decoder[:, :-1].clone(), "labels": decoder[:, 1:].clone()}
    return T5ForConditionalGeneration(config), batch


def gpt2_lora() -> tuple[nn.Module, Batch]:
    from peft import LoraConfig, get_peft_model

    model, batch = gpt2()
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    return get_peft_model(model, lora), batch


@dataclass(frozen=True)
class Workload:
    """One column of the table."""

    make: Callable[[], tuple[nn.Module, Batch]]
    log_likelihood: LogLikelihood
    checkpointing: bool = False

    def build(self) -> tuple[nn.Module, Batch]:
        """Builds the model and the batch, the same every time."""
        # At this seed float32 and float64 agree on the sign of every ReLU input of the ResNet. Where they do not, its
        # gradients differ by more than rounding, whatever the method.
        torch.manual_seed(1)
        model, batch = self.make()
        with torch.no_grad():
            for parameter in model.parameters():
                # Away from initial zeros (biases, the B of LoRA), so that no gradient is zero by chance.
                parameter += 0.02 * torch.randn_like(parameter)
        if self.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers checkpoints only in train mode; no model here has dropout.
        return model.train(self.checkpointing), batch


WORKLOADS = {
    "MLP": Workload(mlp, class_log_likelihood),
    "CNN": Workload(cnn, class_log_likelihood),
    "ResNet-18": Workload(resnet18, class_log_likelihood),
    "ViT": Workload(vit, class_log_likelihood),
    "BERT": Workload(bert, class_log_likelihood),
    "GPT-2": Workload(gpt2, next_token_log_likelihood),
    "Llama": Workload(llama, next_token_log_likelihood),
    "T5": Workload(t5, token_log_likelihood),
    "GPT-2 LoRA": Workload(gpt2_lora, next_token_log_likelihood),
    "BERT checkpointed": Workload(bert, class_log_likelihood, checkpointing=True),
    "Llama checkpointed": Workload(llama, next_token_log_likelihood, checkpointing=True),
}
