# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A small batch for every architecture and head, and a log-likelihood that any outputs have."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_deepclean.models.likelihood import Likelihood
from tests.architectures.entries import Entry
from tests.architectures.overrides import overrides_for
from tests.architectures.tiny_configs import EOS, FIRST_TOKEN, LAST_TOKEN, LENGTH, NUM_LABELS, PAD


def batch(entry: Entry, model: PreTrainedModel, size: int = 5) -> dict[str, Any]:
    """
    Makes distinct examples for a model, with repeated tokens, some padding on the right and some masked labels.

    The first axis of every tensor is the example axis.
    """
    generator = torch.Generator().manual_seed(2)
    maker = _Batch(entry, model, size, generator)
    return maker.inputs() | maker.labels()


class _Batch:
    def __init__(self, entry: Entry, model: PreTrainedModel, size: int, generator: torch.Generator) -> None:
        self.entry, self.model, self.size, self.generator = entry, model, size, generator
        self.config = model.config
        self.forward_names = set(inspect.signature(model.forward).parameters)
        self.overrides = overrides_for(entry.model_type, entry.head)
        self.length = self.overrides.get("length", LENGTH)

    def ids(self, *shape: int, high: int = LAST_TOKEN) -> torch.Tensor:
        return torch.randint(FIRST_TOKEN, high + 1, shape, generator=self.generator)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def tokens(self) -> dict[str, torch.Tensor]:
        """Ids that end with the end-of-sequence token, with padding on the right of two of three examples."""
        shape = (self.size, 3, self.length) if self.entry.head == "multiple choice" else (self.size, self.length)
        ids, mask = self.ids(*shape), torch.ones(shape, dtype=torch.long)
        # The middle token repeats the first one, and the examples differ in padding.
        ids[..., self.length // 2] = ids[..., 0]
        for example in range(self.size):
            valid = self.length - (example % 3)
            ids[example, ..., valid - 1] = EOS
            ids[example, ..., valid:] = PAD
            mask[example, ..., valid:] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def inputs(self) -> dict[str, Any]:
        names, inputs = self.forward_names, {}
        for name, value in self.tokens().items():
            if name in names:
                inputs[name] = value
        if self.entry.head == "image classification":
            key = next((name for name in ("pixel_values", "inputs") if name in names), None)
            inputs = {key: self.pixels()} if key else {"input_ids": inputs["input_ids"]}
        if "decoder_input_ids" in names:
            inputs["decoder_input_ids"] = self.ids(self.size, self.length)
        if "bbox" in names:
            corner = torch.randint(0, 8, (self.size, self.length, 2), generator=self.generator)
            inputs["bbox"] = torch.cat([corner, corner + 5], dim=-1)
        if "input_ids" not in names and "input_values" in names:
            inputs |= {"input_values": self.normal(self.size, 60), "attention_mask": self.mask(60, 7)}
        elif "input_ids" not in names and "input_features" in names:
            inputs |= {"input_features": self.normal(self.size, 32, 8), "attention_mask": self.mask(32, 6)}
        inputs |= {name: make(self) for name, make in self.overrides.get("inputs", {}).items()}
        return {name: value for name, value in inputs.items() if value is not None and name in names}

    def ids_with_image(self, num_image_tokens: int) -> torch.Tensor:
        """The ids of `tokens` with the placeholders of one image after the first token."""
        config = self.config
        image = getattr(config, "image_token_id", None) or config.image_token_index
        ids = self.tokens()["input_ids"]
        ids[:, 1 : 1 + num_image_tokens] = image
        return ids

    def mask(self, length: int, step: int) -> torch.Tensor:
        """Attention mask of examples of three lengths."""
        lengths = length - step * (torch.arange(self.size) % 3)
        return (torch.arange(length)[None] < lengths[:, None]).long()

    def pixels(self) -> torch.Tensor:
        vision = getattr(self.config, "vision_config", self.config)
        size = getattr(vision, "image_size", None) or 32
        height, width = (size, size) if isinstance(size, int) else size
        return self.normal(self.size, getattr(vision, "num_channels", 3), height, width)

    def labels(self) -> dict[str, torch.Tensor]:
        head = self.entry.head
        if head in ("sequence classification", "image classification", "audio classification", "multiple choice"):
            return {"labels": torch.arange(self.size) % self.overrides.get("num_labels", NUM_LABELS)}
        if head == "question answering":
            start = torch.arange(self.size) % 3
            return {"start_positions": start, "end_positions": start + 2}
        high = NUM_LABELS if head == "token classification" else LAST_TOKEN
        labels = torch.randint(0, high, (self.size, self.length), generator=self.generator)
        for example in range(self.size):
            labels[example, self.length - (example % 3) :] = -100
        labels[::2, 1] = -100
        return {"labels": labels}


def likelihood_for(entry: Entry) -> Likelihood:
    """What a head is scored by. The package's own likelihood of spans leaves padding out."""
    # LXMERT answers questions about images by a class.
    has_spans = entry.head == "question answering" and entry.model_type != "lxmert"
    return Likelihood("span") if has_spans else Likelihood("custom", log_likelihood)


def log_likelihood(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """
    A smooth scalar per example, for the outputs of any head. A test of gradients needs no more.

    It is the log-probability of the labels if logits and labels correspond. Otherwise (frames, image tokens) it is a
    fixed functional of all log-probabilities.
    """
    logits = (outputs["logits"] if "logits" in outputs else outputs[0]).log_softmax(-1)
    if logits.shape[:-1] == labels.shape:
        scored = logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0].masked_fill(labels < 0, 0.0)
        return scored.reshape(len(labels), -1).sum(1)
    weights = torch.arange(logits.numel() // len(labels), dtype=logits.dtype).cos()
    return (logits.reshape(len(labels), -1) * weights).sum(1)
