# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A model whose code comes with it, in two files."""

import json

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForSequenceClassification


MODELING = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .pooling_mine import pool


class MineConfig(PreTrainedConfig):
    model_type = "mine"


class Mine(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, labels=None, **kwargs):
        logits = self.head(pool(self.embed(input_ids)))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
"""
POOLING = """
def pool(states):
    return states.mean(1)
"""
CODE = {"modeling_mine.py", "pooling_mine.py"}


def save_custom_model(folder, **config):
    """Saves a newly initialised classifier of four classes, with its code."""
    folder.mkdir(parents=True)
    (folder / "modeling_mine.py").write_text(MODELING)
    (folder / "pooling_mine.py").write_text(POOLING)
    names = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForSequenceClassification": "modeling_mine.Mine"}
    record = {"model_type": "mine", "architectures": ["Mine"], "num_labels": 4, "auto_map": names}
    (folder / "config.json").write_text(json.dumps(record | config))
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModelForSequenceClassification.from_config(config, trust_remote_code=True).save_pretrained(folder)
    return folder


def token_rows(number=48):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 50, (number, 8), generator=generator)
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": (ids[:, 0] % 4).tolist()})


def load_custom_model(folder, **kwargs):
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True, **kwargs)
