# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny configurations of real architectures, and data for them."""

import copy
from functools import cache

import datasets
import numpy as np
import torch
from sklearn.datasets import load_digits
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)


NUM_LABELS = 4
NUM_TRAINED = 160
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = TRANSFORMER | {"vocab_size": 50, "max_position_embeddings": 16, "num_labels": NUM_LABELS, "pad_token_id": 0}


def vit(num_labels: int = NUM_LABELS, **kwargs):
    image = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": num_labels}
    return ViTForImageClassification(ViTConfig(**(TRANSFORMER | image | kwargs)))


def resnet(num_labels: int = NUM_LABELS):
    sizes = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=num_labels))


def convnext(num_labels: int = NUM_LABELS):
    sizes = {"num_channels": 1, "patch_size": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}
    return ConvNextForImageClassification(ConvNextConfig(**sizes, num_labels=num_labels))


def bert(**kwargs):
    return BertForSequenceClassification(BertConfig(**(TEXT | kwargs)))


def albert():
    return AlbertForSequenceClassification(AlbertConfig(**TEXT, embedding_size=8))


def gpt2():
    sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
    return GPT2ForSequenceClassification(
        GPT2Config(**sizes, num_labels=NUM_LABELS, bos_token_id=None, eos_token_id=None)
    )


def randomized(model, dtype=torch.float64):
    """Weights away from their initial zeros and ones, so that no gradient is zero by chance."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.named_buffers():
            if "running" in name:
                tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    return model.to(dtype).eval()


def image_batch(size: int = 11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return {
        "pixel_values": torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype),
        "labels": torch.randint(0, NUM_LABELS, (size,), generator=generator),
    }


def text_batch(size: int = 11, length: int = 8):
    """Token ids with repeated tokens, and padding at the end of some rows."""
    generator = torch.Generator().manual_seed(3)
    batch = {
        "input_ids": torch.randint(1, 12, (size, length), generator=generator),
        "attention_mask": torch.ones(size, length, dtype=torch.long),
        "labels": torch.randint(0, NUM_LABELS, (size,), generator=generator),
    }
    batch["input_ids"][::3, 5:] = 0
    batch["attention_mask"][::3, 5:] = 0
    return batch


def in_batches(batch, size: int):
    return [{key: value[i : i + size] for key, value in batch.items()} for i in range(0, len(batch["labels"]), size)]


@cache
def digits():
    """The handwritten digits of scikit-learn."""
    source = load_digits()
    features = datasets.Features(
        {
            "pixel_values": datasets.Array3D((1, 8, 8), "float32"),
            "labels": datasets.ClassLabel(num_classes=10),
        }
    )
    images = (source.images / 16).astype(np.float32)[:, None]
    return datasets.Dataset.from_dict(
        {"pixel_values": images, "labels": source.target}, features=features
    ).with_format("torch")


@cache
def _trained():
    torch.manual_seed(0)
    model = resnet(num_labels=10).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = digits()[:NUM_TRAINED]
    for _ in range(20):
        for places in torch.randperm(NUM_TRAINED).split(32):
            model(pixel_values=rows["pixel_values"][places], labels=rows["labels"][places]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def trained():
    """A model that has learned the first of the digits, with statistics in buffers."""
    with torch.random.fork_rng():
        return copy.deepcopy(_trained())


def parameters_and_buffers(model):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


class Rows(torch.utils.data.Dataset):
    """A map-style data set that is not a `datasets.Dataset`."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def interrupt_after(trainer, step: int):
    """Makes a trainer stop after a step, as by Ctrl-C. A callback would belong to the run."""
    training_step = trainer.training_step

    def stopping(*args, **kwargs):
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return training_step(*args, **kwargs)

    trainer.training_step = stopping
    return trainer
