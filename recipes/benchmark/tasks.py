# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The ten tasks: their data, their models, and the training of the original and of the reference, for every seed.

A seed fixes everything of a task: which rows are drawn, which are to be forgotten, and the training. Tasks of one
family differ in the request alone, and share their original. Rows are held in memory, so that the time of a method is
that of its computation. Models are trained in float32.
"""

import gzip
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from torch import nn
from torch.utils.data import default_collate
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hf_deepclean import tokenize_causal_lm, tokenize_text_classification


# The recipes are files beside each other, not a package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from causal_lm import MAX_LENGTH as MAX_LENGTH_OF_SENTENCES  # noqa: E402
from causal_lm import new_model as new_language_model  # noqa: E402
from common import RecipeArguments, train, train_byte_pair_tokenizer, train_encoder_tokenizer  # noqa: E402
from example_data import (  # noqa: E402
    GLOSS_CLASSES,
    fictitious_people,
    load_digits_images,
    load_ordinary_text,
    load_people,
    load_wordnet_glosses,
    sentences,
)
from lora_causal_lm import target_modules  # noqa: E402
from text_classification import MAX_LENGTH as MAX_LENGTH_OF_GLOSSES  # noqa: E402
from text_classification import new_classifier as new_text_classifier  # noqa: E402


# Where Debian's package dataset-fashion-mnist puts its files.
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
# Mean and standard deviation of the pixels of its training images.
FASHION_MNIST_MEAN, FASHION_MNIST_STD = 0.2860, 0.3530

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DataSource:
    """
    Where data come from that no Python package ships, and how much of all data is used.

    Args:
        fashion_mnist_dir (`str`, *optional*):
            Folder with the four `idx` files of Fashion-MNIST.
        fashion_mnist_dataset (`str`, *optional*):
            A copy of it in the form of `datasets` instead: what `save_to_disk` wrote, or a folder that `load_dataset`
            reads; with the splits `train` and `test` and the columns `image` and `label`.
        fraction (`float`, *optional*, defaults to `1.0`):
            Share of the rows and of the training epochs of every task, to try the benchmark out.
    """

    fashion_mnist_dir: str = str(FASHION_MNIST_DIR)
    fashion_mnist_dataset: str | None = None
    fraction: float = 1.0

    def share_of(self, number: int, least: int) -> int:
        """That share of a number of rows or epochs, but not less than `least`."""
        return max(min(number, least), round(self.fraction * number))


@dataclass(frozen=True)
class TaskData:
    """
    The data of a task for one seed, as lists of model inputs.

    Args:
        forget, retain (`list[dict]`):
            What a method is given to forget and to keep.
        kept (`list[dict]`):
            What the quality on retained data is measured on: `retain`, without the ordinary text of language models.
        unseen (`list[dict]`):
            Rows as the forget data that no model was trained on, which a method may know.
        attacked (`list[dict]`):
            Such rows that no method sees, unless it has no use for them: what the attack on membership compares the
            forget data with.
        eval (`list[dict]`):
            Rows to test on, which no method sees.
        original_rows, reference_rows (`list[dict]`):
            What the original and the reference are trained on.
        data_collator (`Callable`):
            Makes a batch of rows.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`], *optional*):
            Of tasks on text.
        base_rows (`list[dict]`, *optional*):
            What the base of a language model is trained on.
    """

    forget: Rows
    retain: Rows
    kept: Rows
    unseen: Rows
    attacked: Rows
    eval: Rows
    original_rows: Rows
    reference_rows: Rows
    data_collator: Callable[[Rows], dict[str, torch.Tensor]]
    tokenizer: PreTrainedTokenizerFast | None = None
    base_rows: Rows | None = None


@dataclass(frozen=True)
class Family:
    """
    Tasks that differ in the request alone.

    Args:
        name (`str`):
            Its name.
        recipe ([`RecipeArguments`]):
            How its models are trained.
        num_train, num_unseen, num_eval (`int`):
            Rows to train on, never to be seen by a model, and to test on.
        load_rows (`Callable`):
            Called with the source, the family and the seed; returns the rows `train`, `unseen` and `eval`, the
            collator and the tokenizer.
        new_model (`Callable`):
            Called with the tokenizer; a model with random weights.
        auto_class (`type`):
            Loads a trained one.
        forgotten_class (`int`):
            Which class the request for a class names.
        training_collator (`Callable`, *optional*):
            Makes the batches of the training of original and reference, if they are not as all others: with
            augmentation.
    """

    name: str
    recipe: RecipeArguments
    num_train: int
    num_unseen: int
    num_eval: int
    load_rows: Callable[["DataSource", "Family", int], tuple[dict[str, Rows], Any, Any]]
    new_model: Callable[[Any], PreTrainedModel]
    auto_class: Any
    forgotten_class: int = 3
    training_collator: Callable[[Rows], dict[str, torch.Tensor]] | None = None


@dataclass(frozen=True)
class Task:
    """
    One row of the benchmark.

    Args:
        name (`str`):
            Its name.
        request (`str`):
            `"random"`: a tenth of the training data; `"class"`: all rows of a class; `"people"`: what is told of a
            quarter of the people.
        family ([`Family`]):
            Models and data.
        adapter (`bool`, *optional*, defaults to `False`):
            Whether the model is an adapter of the language model's base.
    """

    name: str
    request: str
    family: Family
    adapter: bool = False

    @property
    def is_language_model(self) -> bool:
        """Whether success is to reproduce a text word by word."""
        return self.request == "people"

    def data(self, seed: int, source: DataSource) -> TaskData:
        """All data of a seed."""
        if self.is_language_model:
            return _load_biographies(self.family, seed, source)
        parts, collator, tokenizer = self.family.load_rows(source, self.family, seed)
        rows = parts["train"]
        if self.request == "random":
            # Rows come in random order.
            chosen = [number < len(rows) // 10 for number in range(len(rows))]
            unseen, attacked, evaluated = parts["unseen"], parts["eval"], parts["eval"]
        else:
            gone = self.family.forgotten_class
            chosen = [row["labels"] == gone for row in rows]
            # Where a class is to go, no method asks for unseen rows, and more of them make the attack less noisy.
            unseen = attacked = [row for row in parts["unseen"] + parts["eval"] if row["labels"] == gone]
            evaluated = [row for row in parts["eval"] if row["labels"] != gone]
        forget = [row for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen]
        retain = [row for row, is_chosen in zip(rows, chosen, strict=True) if not is_chosen]
        return TaskData(forget, retain, retain, unseen, attacked, evaluated, rows, retain, collator, tokenizer)

    def training(self, source: DataSource) -> RecipeArguments:
        """How the original and the reference are trained."""
        recipe = self.family.recipe
        epochs = source.share_of(int(recipe.original_num_train_epochs), least=1)
        return replace(recipe, original_num_train_epochs=epochs)

    def folder(self, role: str, seed: int) -> str:
        """Name of the folder of a trained model: `"base"`, `"original"` or `"reference"`."""
        owner = self.name if role == "reference" or self.adapter and role == "original" else self.family.name
        return f"{owner}-{role}-{seed}"

    def new_model(self, data: TaskData, base: Path | None = None) -> nn.Module:
        """What training starts from, which for language models is the base."""
        if base is None:
            return self.family.new_model(data.tokenizer)
        model = AutoModelForCausalLM.from_pretrained(base)
        if not self.adapter:
            return model
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=32, target_modules=target_modules(model))
        return get_peft_model(model, config)

    def load_model(self, folder: Path, base: Path | None = None) -> nn.Module:
        """A trained model."""
        if not self.adapter:
            return self.family.auto_class.from_pretrained(folder)
        from peft import PeftModel

        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder), is_trainable=True)


def train_model(task: Task, role: str, seed: int, source: DataSource, models: Path) -> nn.Module:
    """
    The base, the original or the reference of a task, from the folder of trained models or trained into it.

    Beside the weights, `training.json` says how long the training took, in seconds of the clock and of the processor.

    Args:
        task ([`Task`]):
            The task.
        role (`str`):
            `"base"`, `"original"` or `"reference"`.
        seed (`int`):
            The seed of data and training.
        source ([`DataSource`]):
            Where data come from.
        models (`Path`):
            Folder of all trained models.
    """
    folder = models / task.folder(role, seed)
    base = models / task.folder("base", seed) if task.is_language_model else None
    if base is not None and role != "base" and not base.exists():
        train_model(task, "base", seed, source, models)
    if folder.exists():
        if role == "base":
            return AutoModelForCausalLM.from_pretrained(folder)
        return task.load_model(folder, base)
    data, recipe = task.data(seed, source), task.training(source)
    rows = {"base": data.base_rows, "original": data.original_rows, "reference": data.reference_rows}[role]
    set_seed(seed)
    model = task.new_model(data, None if role == "base" else base)
    args = SimpleNamespace(disable_tqdm=True, use_cpu=True, bf16=False, seed=seed)
    start, start_of_processor = time.perf_counter(), time.process_time()
    # The base reads its rows once, see `_load_biographies`, at a rate of its own.
    collator = task.family.training_collator or data.data_collator
    train(model, rows, recipe, args, collator, *((1, BASE_LEARNING_RATE) if role == "base" else ()))
    seconds = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - start_of_processor,
        "num_rows": len(rows),
        "num_train_epochs": 1 if role == "base" else recipe.original_num_train_epochs,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    staging = folder.with_name(f".incomplete-{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    # By itself peft adds the base's embeddings to an adapter that is applied to them.
    model.save_pretrained(staging, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
    (staging / "training.json").write_text(json.dumps(seconds, indent=2) + "\n")
    os.replace(staging, folder)
    return model.eval()


def _shuffled(rows: Rows, seed: int) -> Rows:
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def _load_fashion_mnist(source: DataSource, family: Family, seed: int) -> tuple[dict[str, Rows], Any, Any]:
    images, labels, test_images, test_labels = _read_fashion_mnist(
        source.fashion_mnist_dir, source.fashion_mnist_dataset
    )
    num_train, num_unseen, num_eval = (
        source.share_of(number, least=200) for number in (family.num_train, family.num_unseen, family.num_eval)
    )
    generator = np.random.default_rng(seed)
    drawn, tested = generator.permutation(len(labels)), generator.permutation(len(test_labels))[:num_eval]
    held_out = drawn[num_train : num_train + num_unseen]
    parts = {
        "train": _image_rows(images[drawn[:num_train]], labels[drawn[:num_train]]),
        "unseen": _image_rows(images[held_out], labels[held_out]),
        "eval": _image_rows(test_images[tested], test_labels[tested]),
    }
    return parts, default_collate, None


def _image_rows(images: np.ndarray, labels: np.ndarray) -> Rows:
    values = torch.from_numpy((images.astype(np.float32)[:, None] / 255 - FASHION_MNIST_MEAN) / FASHION_MNIST_STD)
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(values, labels, strict=True)]


@cache
def _read_fashion_mnist(folder: str, dataset: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels to train on, then those to test on."""
    if dataset is not None:
        path = Path(dataset)
        is_saved = (path / "dataset_dict.json").exists()
        splits: DatasetDict = load_from_disk(path) if is_saved else load_dataset(dataset)
        read = [
            (np.stack([np.asarray(image) for image in splits[name]["image"]]), np.asarray(splits[name]["label"]))
            for name in ("train", "test")
        ]
        return *read[0], *read[1]
    names = [f"{part}-{content}-ubyte.gz" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")]
    missing = [name for name in names if not (Path(folder) / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"Fashion-MNIST is read from {folder}, which lacks {', '.join(missing)}. On Debian and Ubuntu run "
            "`apt-get install dataset-fashion-mnist`; elsewhere name a folder with its four idx files by "
            "--fashion_mnist_dir, or a copy in the form of `datasets` by --fashion_mnist_dataset."
        )
    return tuple(_read_idx(Path(folder) / name) for name in names)


def _read_idx(path: Path) -> np.ndarray:
    """An array of bytes; its header gives the number of axes and their lengths."""
    content = gzip.decompress(path.read_bytes())
    num_axes = content[3]
    shape = np.frombuffer(content, ">i4", num_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def _load_digits(source: DataSource, family: Family, seed: int) -> tuple[dict[str, Rows], Any, Any]:
    data = load_digits_images(source.share_of(family.num_train, least=200), seed)
    parts = {
        name: [
            {"pixel_values": image, "labels": int(label)}
            for image, label in zip(part["pixel_values"][:], part["label"][:], strict=True)
        ]
        for name, part in data.items()
    }
    return parts, default_collate, None


def _load_glosses(source: DataSource, family: Family, seed: int) -> tuple[dict[str, Rows], Any, Any]:
    data = load_wordnet_glosses(source.share_of(family.num_train, least=400), seed)
    tokenizer = train_encoder_tokenizer(data["train"]["text"], vocab_size=4000, model_max_length=MAX_LENGTH_OF_GLOSSES)
    # The definitions come class by class in turn.
    parts = {
        name: _shuffled(_token_rows(tokenize_text_classification(part, tokenizer)), seed)
        for name, part in data.items()
    }
    return parts, DataCollatorWithPadding(tokenizer), tokenizer


def _token_rows(dataset: Dataset) -> Rows:
    used = {"input_ids", "attention_mask", "label", "labels"} & set(dataset.column_names)
    return [{"labels" if name == "label" else name: row[name] for name in used} for row in dataset.with_format(None)]


def _load_biographies(family: Family, seed: int, source: DataSource) -> TaskData:
    """What is told of people, as the recipes of language models do; both requests of the family share the base."""
    num_people_rows = source.share_of(family.num_train, least=120)
    num_ordinary = source.share_of(NUM_ORDINARY_ROWS, least=200)
    num_repetitions = source.share_of(NUM_REPETITIONS, least=1)
    num_people = num_people_rows // ROWS_PER_PERSON
    # Half of the unseen people are for the methods, the other half for the attack.
    people = load_people(num_people_rows, seed, max(1, num_people // 4), num_people)
    ordinary = load_ordinary_text(num_ordinary, seed)
    # Of another seed, so that nobody is among the people of the example.
    others = Dataset.from_list(
        [row for person in fictitious_people(num_people // 2, seed + 1000) for row in sentences(person)]
    )
    # Made with the base, before there was anything to forget: one that had read the forget data and not the unseen
    # ones would tell them apart in every model, the reference too.
    texts = [text for name in ("prompt", "completion") for text in others[name]]
    tokenizer = train_byte_pair_tokenizer([*ordinary["train"]["text"], *texts], 4000, MAX_LENGTH_OF_SENTENCES)

    def tokenized(part: Dataset) -> Rows:
        return _token_rows(tokenize_causal_lm(part, tokenizer, MAX_LENGTH_OF_SENTENCES))

    is_forgotten = people["train"]["forget"]
    all_rows = tokenized(people["train"])
    forget = [row for row, gone in zip(all_rows, is_forgotten, strict=True) if gone]
    kept = [row for row, gone in zip(all_rows, is_forgotten, strict=True) if not gone]
    read, unseen = tokenized(ordinary["train"]), tokenized(people["unseen"])
    return TaskData(
        forget=forget,
        retain=kept + read[: max(1, len(read) // 16)],
        # Enough of them to measure on.
        kept=kept[::2],
        unseen=unseen[: len(unseen) // 2],
        attacked=unseen[len(unseen) // 2 :],
        eval=tokenized(ordinary["eval"]),
        original_rows=(forget + kept) * num_repetitions + read,
        reference_rows=kept * num_repetitions + read,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        tokenizer=tokenizer,
        base_rows=tokenized(others) * num_repetitions + read * 2,
    )


def _augmented(rows: Rows) -> dict[str, torch.Tensor]:
    """A batch of images, every one mirrored or not, and all of them shifted by up to two pixels."""
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


def _new_text_classifier(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return new_text_classifier(tokenizer, list(GLOSS_CLASSES))


# Of language models: sentences on a person, ordinary texts, and how often each of the former is read while each of the
# latter is read once.
ROWS_PER_PERSON, NUM_ORDINARY_ROWS, NUM_REPETITIONS = 10, 3000, 24
# Highest rate of the training of their base.
BASE_LEARNING_RATE = 2e-3

_FASHION = {"num_train": 4000, "num_unseen": 1000, "num_eval": 2000, "load_rows": _load_fashion_mnist}
_FAMILIES = [
    Family(
        "fashion-resnet",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=3e-3, original_per_device_train_batch_size=64
        ),
        **_FASHION,
        new_model=_new_resnet,
        auto_class=AutoModelForImageClassification,
        training_collator=_augmented,
    ),
    Family(
        "fashion-vit",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=2e-3, original_per_device_train_batch_size=64
        ),
        **_FASHION,
        # With the usual 0.02 so small a model takes several times as long to learn its training data by heart.
        new_model=partial(_new_vit, image_size=28, patch_size=7, num_hidden_layers=2, initializer_range=0.1),
        auto_class=AutoModelForImageClassification,
    ),
    Family(
        "digits",
        RecipeArguments(
            original_num_train_epochs=40, original_learning_rate=1e-3, original_per_device_train_batch_size=64
        ),
        num_train=1200,
        num_unseen=300,
        num_eval=297,
        load_rows=_load_digits,
        new_model=partial(_new_vit, image_size=8, patch_size=2, num_hidden_layers=3),
        auto_class=AutoModelForImageClassification,
    ),
    Family(
        "text",
        RecipeArguments(
            original_num_train_epochs=30, original_learning_rate=2e-3, original_per_device_train_batch_size=32
        ),
        num_train=3000,
        num_unseen=600,
        num_eval=1500,
        load_rows=_load_glosses,
        new_model=_new_text_classifier,
        auto_class=AutoModelForSequenceClassification,
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
    num_train=480,
    num_unseen=480,
    num_eval=500,
    load_rows=None,
    new_model=new_language_model,
    auto_class=AutoModelForCausalLM,
)

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
    ]
}
