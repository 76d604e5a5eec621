# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The tasks of the benchmark: the request, the model and its training. Ten train models from scratch, eight fine-tune a
checkpoint.

A seed determines everything in a task: the rows, the rows to forget, and the training. Tasks of one family differ in
the request only, and share their original. Rows are held in memory, so that the time of a method is the time of its
computation. Models are trained in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from causal_lm import new_model as new_language_model
from common import RecipeArguments, installed_checkpoint
from example_data import GLOSS_CLASSES, VERB_CLASSES
from lora_causal_lm import target_modules
from task_data import (
    MINILM,
    DataSource,
    Rows,
    TaskData,
    load_biographies,
    load_digits,
    load_fashion_mnist,
    load_fashion_to_start_from,
    load_glosses,
    load_upsampled_digits,
    load_verbs,
)
from text_classification import new_classifier as new_text_classifier
from torch import nn
from torch.utils.data import default_collate
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)


@dataclass(frozen=True)
class Base:
    """
    A checkpoint that is trained once, for all seeds and numbers of epochs.

    Args:
        name (`str`):
            Name of its folder.
        rows (`Callable`):
            Called with the source; returns the training data.
        recipe ([`RecipeArguments`]):
            How it is trained.
    """

    name: str
    rows: Callable[[DataSource], Rows]
    recipe: RecipeArguments


@dataclass(frozen=True)
class Family:
    """
    Tasks that differ only in the request.

    Args:
        name (`str`):
            Name of the family.
        recipe ([`RecipeArguments`]):
            How the models are trained.
        new_model (`Callable`):
            Called with the tokenizer; returns a model with random weights. `None` for a checkpoint of a package.
        auto_class (`type`):
            Auto class that loads a trained model.
        load_rows (`Callable`, *optional*):
            Called with the source and the seed; returns the rows `train`, `unseen` and `eval`, the collator and the
            tokenizer. The requests `"people"` need none.
        forgotten_class (`int`, *optional*, defaults to `3`):
            The class that a request for a class forgets.
        training_collator (`Callable`, *optional*):
            Makes the batches for the training of original and reference, with augmentation. By default that of the
            data.
        package (`str`, *optional*):
            The installed package that ships the checkpoint which is fine-tuned, with a new head.
        base ([`Base`], *optional*):
            How the checkpoint is trained which is fine-tuned, with a new head.
        num_labels (`int`, *optional*, defaults to `10`):
            Number of classes of the new head.
    """

    name: str
    recipe: RecipeArguments
    new_model: Callable[[Any], PreTrainedModel] | None
    auto_class: Any
    load_rows: Callable[[DataSource, int], tuple[dict[str, Rows], Any, Any]] | None = None
    forgotten_class: int = 3
    training_collator: Callable[[Rows], dict[str, torch.Tensor]] | None = None
    package: str | None = None
    base: Base | None = None
    num_labels: int = 10

    @property
    def is_fine_tuned(self) -> bool:
        """Whether original and reference start from a checkpoint that was trained for something else."""
        return self.package is not None or self.base is not None


@dataclass(frozen=True)
class Task:
    """
    One task of the benchmark.

    Args:
        name (`str`):
            Name of the task.
        request (`str`):
            What to forget. `"random"`: a random tenth of the training data; `"class"`: all rows of a class;
            `"people"`: the sentences about a quarter of the people.
        family ([`Family`]):
            The models and the data.
        adapter (`bool`, *optional*, defaults to `False`):
            Whether the model is an adapter on the base of the language model.
    """

    name: str
    request: str
    family: Family
    adapter: bool = False

    @property
    def is_language_model(self) -> bool:
        """Whether accuracy is the share of texts that the model completes word for word."""
        return self.request == "people"

    def data(self, seed: int, source: DataSource) -> TaskData:
        """The data for a seed."""
        if self.is_language_model:
            return load_biographies(source, seed)
        parts, collator, tokenizer = self.family.load_rows(source, seed)
        rows = parts["train"]
        if self.request == "random":
            # Rows come in random order.
            chosen = [number < len(rows) // 10 for number in range(len(rows))]
            unseen, attacked, evaluated = parts["unseen"], parts["eval"], parts["eval"]
        else:
            gone = self.family.forgotten_class
            chosen = [row["labels"] == gone for row in rows]
            # No method uses unseen rows if a class is forgotten, and more rows make the attack less noisy.
            unseen = attacked = [row for row in parts["unseen"] + parts["eval"] if row["labels"] == gone]
            evaluated = [row for row in parts["eval"] if row["labels"] != gone]
        forget = [row for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen]
        retain = [row for row, is_chosen in zip(rows, chosen, strict=True) if not is_chosen]
        return TaskData(forget, retain, retain, unseen, attacked, evaluated, rows, retain, collator, tokenizer)

    def training(self, source: DataSource) -> RecipeArguments:
        """The settings to train the original and the reference with."""
        recipe = self.family.recipe
        epochs = source.share_of(int(recipe.original_num_train_epochs), least=1)
        return replace(recipe, original_num_train_epochs=epochs)

    def folder(self, role: str, seed: int) -> str:
        """The name of the folder of the trained `"base"`, `"original"`, `"reference"` or `"reference2"`."""
        if role == "base" and self.family.base is not None:
            return self.family.base.name
        owner = self.name if "reference" in role or self.adapter and role == "original" else self.family.name
        return f"{owner}-{role}-{seed}"

    @property
    def trains_base(self) -> bool:
        """Whether a base is trained first."""
        return self.is_language_model or self.family.base is not None

    def base_folder(self, models: Path, seed: int) -> Path | None:
        """The folder of the base, if the training starts from one."""
        if self.family.package is not None:
            return installed_checkpoint(self.family.package)
        return models / self.folder("base", seed) if self.trains_base else None

    def new_model(self, data: TaskData, base: Path | None = None) -> nn.Module:
        """The model that the training starts from: the base, with a new head if it is fine-tuned to other classes."""
        if base is None:
            return self.family.new_model(data.tokenizer)
        if self.family.is_fine_tuned:
            return self.family.auto_class.from_pretrained(base, num_labels=self.family.num_labels)
        model = AutoModelForCausalLM.from_pretrained(base)
        if not self.adapter:
            return model
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=32, target_modules=target_modules(model))
        return get_peft_model(model, config)

    def load_model(self, folder: Path, base: Path | None = None) -> nn.Module:
        """Loads a trained model."""
        if not self.adapter:
            return self.family.auto_class.from_pretrained(folder)
        from peft import PeftModel

        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder), is_trainable=True)


def _augmented(rows: Rows) -> dict[str, torch.Tensor]:
    """Makes a batch of images, mirrors each at random, and shifts all of them by up to two pixels."""
    batch = default_collate(rows)
    images = batch["pixel_values"]
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    shifts = torch.randint(-2, 3, (2,)).tolist()
    return batch | {"pixel_values": images.roll(shifts, (-2, -1))}


def _new_resnet(_: None) -> PreTrainedModel:
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=10,
        )
    )


def _new_vit(
    _: None, image_size: int, patch_size: int, num_hidden_layers: int, initializer_range: float = 0.02
) -> PreTrainedModel:
    return ViTForImageClassification(
        ViTConfig(
            image_size=image_size,
            patch_size=patch_size,
            num_channels=1,
            hidden_size=64,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=10,
            initializer_range=initializer_range,
        )
    )


def _new_larger_vit(_: None) -> PreTrainedModel:
    sizes = {"hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 640}
    return ViTForImageClassification(ViTConfig(image_size=28, patch_size=7, num_channels=1, num_labels=10, **sizes))


def _new_text_classifier(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return new_text_classifier(tokenizer, list(GLOSS_CLASSES))


_load_fashion = partial(load_fashion_mnist, num_train=4000, num_unseen=1000, num_eval=2000)
_FAMILIES = [
    Family(
        "fashion-resnet",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=3e-3, original_per_device_train_batch_size=64
        ),
        new_model=_new_resnet,
        auto_class=AutoModelForImageClassification,
        load_rows=_load_fashion,
        training_collator=_augmented,
    ),
    Family(
        "fashion-vit",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=2e-3, original_per_device_train_batch_size=64
        ),
        # With the usual 0.02 such a small model takes several times as long to learn its training data by heart.
        new_model=partial(_new_vit, image_size=28, patch_size=7, num_hidden_layers=2, initializer_range=0.1),
        auto_class=AutoModelForImageClassification,
        load_rows=_load_fashion,
    ),
    Family(
        "digits",
        RecipeArguments(
            original_num_train_epochs=40, original_learning_rate=1e-3, original_per_device_train_batch_size=64
        ),
        new_model=partial(_new_vit, image_size=8, patch_size=2, num_hidden_layers=3),
        auto_class=AutoModelForImageClassification,
        load_rows=partial(load_digits, num_train=1200),
    ),
    Family(
        "text",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=2e-3, original_per_device_train_batch_size=32
        ),
        new_model=_new_text_classifier,
        auto_class=AutoModelForSequenceClassification,
        load_rows=partial(load_glosses, num_train=3000),
        forgotten_class=GLOSS_CLASSES.index("plant"),
    ),
]
_BIOGRAPHIES = Family(
    "biographies",
    RecipeArguments(
        original_num_train_epochs=1,
        original_learning_rate=1.2e-3,
        original_per_device_train_batch_size=8,
        original_lr_scheduler_type="warmup_stable_decay",
        original_adam_beta2=0.98,
    ),
    new_model=new_language_model,
    auto_class=AutoModelForCausalLM,
)
# Fine-tuned for 3 and for 7 epochs.
_FINE_TUNED = [
    Family(
        "minilm",
        RecipeArguments(
            original_learning_rate=2e-4, original_per_device_train_batch_size=16, original_lr_scheduler_type="linear"
        ),
        new_model=None,
        auto_class=AutoModelForSequenceClassification,
        load_rows=partial(load_verbs, num_train=1000),
        forgotten_class=VERB_CLASSES.index("communication"),
        package=MINILM,
        num_labels=len(VERB_CLASSES),
    ),
    Family(
        "vit-transfer",
        RecipeArguments(
            original_learning_rate=5e-4, original_per_device_train_batch_size=16, original_lr_scheduler_type="linear"
        ),
        new_model=_new_larger_vit,
        auto_class=AutoModelForImageClassification,
        load_rows=partial(load_upsampled_digits, num_train=1200),
        base=Base(
            "vit-transfer-base",
            load_fashion_to_start_from,
            RecipeArguments(
                original_num_train_epochs=4, original_learning_rate=1e-3, original_per_device_train_batch_size=64
            ),
        ),
    ),
]


def _trained_for(family: Family, epochs: int) -> Family:
    recipe = replace(family.recipe, original_num_train_epochs=epochs)
    return replace(family, name=f"{family.name}-{epochs}", recipe=recipe)


TASKS = {
    task.name: task
    for task in [
        *(
            Task(f"{family.name}-{request}", request, family)
            for family in _FAMILIES
            for request in ("random", "class")
        ),
        Task("biographies-full", "people", _BIOGRAPHIES),
        Task(
            "biographies-lora",
            "people",
            replace(_BIOGRAPHIES, recipe=replace(_BIOGRAPHIES.recipe, original_learning_rate=1.5e-3)),
            adapter=True,
        ),
        *(
            Task(f"{family.name}-{request}-{epochs}", request, _trained_for(family, epochs))
            for family in _FINE_TUNED
            for epochs in (7, 3)
            for request in ("random", "class")
        ),
    ]
}
