# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Functions and classes of a user, whose fingerprints are taken: in a module of its own for other processes."""

import argparse
import datetime
import functools
import re
import time
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tqdm import tqdm
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast, TrainerCallback


NAMES = {"one", "two", "three", "four"}
OPTIONS = argparse.Namespace(scale=2.0, resume=False)


class Settings:
    def __init__(self):
        self.offset = 0.5
        self.folder = f"/tmp/{time.time()}"


SETTINGS = Settings()


def word_tokenizer(texts):
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: number for number, word in enumerate(words, start=2)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


def scale_of(name):
    return {"a": 1.0, "b": 2.0}.get(name, OPTIONS.scale) * (name in NAMES)


def make_collator(factor, power=2):
    def collate(rows):
        images = torch.stack(rows) * factor**power * scale_of("one") + SETTINGS.offset
        return {"x": images, "names": sorted(NAMES)}

    return collate


@dataclass
class Metric:
    weights: dict
    pattern: re.Pattern = re.compile("[a-z]+", re.I)

    def __call__(self, prediction):
        return {"score": float(np.mean(prediction.predictions)) * self.weights["a"]}


class Rate(TrainerCallback):
    share = 0.5

    def __init__(self, at):
        self.at = at
        # No method reads it, and it differs in every process.
        self.started = time.time()

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step >= self.at:
            for group in kwargs["optimizer"].param_groups:
                group["lr"] *= self.share


class Progress(TrainerCallback):
    """Shows how long a repair has taken."""

    def __init__(self):
        self.started, self.day = time.time(), datetime.datetime.now()
        self.bar = tqdm(total=10, disable=True)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(1)
        self.bar.set_postfix_str(f"{time.time() - self.started:.1f} s since {self.day}")


def examples():
    """Values by name. Calling this twice makes equal values of different identity."""
    tokenizer = word_tokenizer(["a b c", "d e f"])
    return {
        "closure": make_collator(3.0),
        "partial": functools.partial(scale_of, name="a"),
        "instance": Metric({"b": 2, "a": 1}),
        "callback": Rate(3),
        "progress": Progress(),
        "set": {"x", "y", "z", 1, 2.5, None},
        "arrays": [np.arange(6).reshape(2, 3), torch.linspace(0, 1, 5), torch.Generator().manual_seed(3)],
        "lambda": lambda outputs, labels: outputs.logits.argmax(-1),
        "library": DataCollatorWithPadding(tokenizer),
        "method": Rate(4).on_step_begin,
        "class": Metric,
        "network": torch.nn.Dropout(0.25),
        "builtin": len,
    }
