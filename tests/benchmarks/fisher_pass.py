# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Time of a Fisher pass beside an ordinary forward and backward pass, and beside the one-example reference.

```shell
python tests/benchmarks/fisher_pass.py
```

Every row is the minimum over interleaved repeats on one batch, in one thread, so that a drift of the machine's speed
hits all three alike; the ratios are to the plain step.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging

from hf_deepclean import accumulate_fisher_diagonal
from hf_deepclean.fisher.reference import add_reference_squares_


SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}


def vit() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = ViTForImageClassification(ViTConfig(**SIZES, image_size=64, patch_size=8, num_labels=10))
    return model, {"pixel_values": torch.randn(16, 3, 64, 64), "labels": torch.randint(0, 10, (16,))}


def bert() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = BertForSequenceClassification(BertConfig(**SIZES, vocab_size=8000, num_labels=10))
    ids = torch.randint(1, 8000, (16, 128))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(0, 10, (16,))}


def resnet() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = ResNetForImageClassification(ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2],
                                                      hidden_sizes=[64, 128, 256, 512], num_labels=10))  # fmt: skip
    return model, {"pixel_values": torch.randn(16, 3, 64, 64), "labels": torch.randint(0, 10, (16,))}


def plain_step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    model(**batch).loss.backward()
    model.zero_grad()


def reference_pass(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    add_reference_squares_({name: torch.zeros_like(p) for name, p in parameters.items()}, model, batch, parameters)


def fisher_seconds(model: torch.nn.Module, batch: dict[str, torch.Tensor], num_batches: int) -> float:
    """Of one further batch: the first one carries the layout probe and the self-check."""
    times = []
    for count in (1, 1 + num_batches):
        start = time.perf_counter()
        accumulate_fisher_diagonal(model, [batch] * count)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / num_batches


def seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a Fisher pass beside a plain step and the reference.")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("| model | weights | plain step | Fisher pass | one-example reference |")
    print("|---|---|---|---|---|")
    for make in (vit, bert, resnet):
        model, batch = make()
        model.eval()
        plain, fisher, reference = [], [], []
        for _ in range(args.repeats):
            plain.append(seconds(lambda model=model, batch=batch: plain_step(model, batch)))
            fisher.append(fisher_seconds(model, batch, 2))
            reference.append(seconds(lambda model=model, batch=batch: reference_pass(model, batch)))
        base = min(plain)
        print(
            f"| {make.__name__} | {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M | {1000 * base:.0f} ms "
            f"| {min(fisher) / base:.2f}x | {min(reference) / base:.2f}x |"
        )


if __name__ == "__main__":
    main()
