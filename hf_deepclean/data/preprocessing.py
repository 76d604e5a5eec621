# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Turns rows of text or images into model inputs, in memory: no file with the user's rows is written."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, List
from datasets.fingerprint import generate_random_fingerprint
from torch import nn

from .batches import IGNORED, LABELS
from .checks import class_names, describe_classes, match_classes
from .progress_bars import progress_bars_on_main_process


# The limit of tokenizers without a limit is larger than this.
_NO_LIMIT = 10**9


def check_tokenizer(tokenizer: Any, model: nn.Module) -> None:
    """
    Refuses a tokenizer that cannot pad, or that has more tokens than the model has embeddings.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        model ([`~transformers.PreTrainedModel`]):
            The model that gets its tokens.

    Raises:
        `ValueError`: If the tokenizer has no padding token, or more tokens than the model has embeddings.
    """
    if tokenizer.pad_token is None:
        raise ValueError(
            "The tokenizer has no padding token, so sequences of different lengths cannot be batched. Set one first, "
            "for example `tokenizer.pad_token = tokenizer.eos_token` (padding is masked, whatever token it is)."
        )
    num_embeddings = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > num_embeddings:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens and the model has embeddings for {num_embeddings}: they do "
            "not belong together. Load both from the same checkpoint, or `model.resize_token_embeddings` before the "
            "training that is to be undone."
        )


def tokenize_text_classification(
    dataset: Dataset,
    tokenizer: Any,
    max_length: int | None = None,
    text_column: str | None = None,
    label2id: Mapping[str, int] | None = None,
) -> Dataset:
    """
    Tokenises texts with one label each.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with the text under `text` or `sentence`, optionally a second text under `text_pair`, and the class
            under `label` or `labels`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        max_length (`int`, *optional*):
            Number of tokens to cut longer texts to. By default none is cut.
        text_column (`str`, *optional*):
            Name of the text column, if it has another name.
        label2id (`dict[str, int]`, *optional*):
            The model's number of every class. Classes are matched by name if the data set names them, by strings or
            by a [`~datasets.ClassLabel`].

    Returns:
        [`~datasets.Dataset`]: The tokenizer's columns and `labels`. Collate with
        [`~transformers.DataCollatorWithPadding`].

    Raises:
        `ValueError`: If a column is missing or holds something else, or if texts are longer than the tokenizer's
            `model_max_length` and `max_length` is not given.
    """
    text = _column(dataset, "text", [text_column] if text_column else ["text", "sentence"])
    columns = [text] + [name for name in ("text_pair",) if name in dataset.column_names]
    dataset = _with_labels(dataset, ["label", LABELS], label2id)
    _check_strings(dataset, columns)

    def tokenize(rows: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        return tokenizer(*(rows[name] for name in columns), truncation=max_length is not None, max_length=max_length)

    return _tokenized(dataset, tokenize, tokenizer, max_length, keep=[LABELS])


def tokenize_token_classification(
    dataset: Dataset,
    tokenizer: Any,
    max_length: int | None = None,
    label2id: Mapping[str, int] | None = None,
) -> Dataset:
    """
    Tokenises sentences that are split into words, and puts the class of every word on its first word piece.

    Special tokens and the later pieces of a word get the label -100, which is not scored.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with a list of words under `tokens` and as many classes under `tags`, `ner_tags` or `labels`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            A fast tokenizer, which knows the word that a piece belongs to.
        max_length (`int`, *optional*):
            Number of tokens to cut longer sentences to. By default none is cut.
        label2id (`dict[str, int]`, *optional*):
            The model's number of every class. Classes are matched by name if the data set names them, by strings or
            by a [`~datasets.ClassLabel`].

    Returns:
        [`~datasets.Dataset`]: The tokenizer's columns and `labels`. Collate with
        [`~transformers.DataCollatorForTokenClassification`].

    Raises:
        `ValueError`: As for [`tokenize_text_classification`]. Also if the tokenizer is not fast, if a row has another
            number of words than of classes, or if no word of a row is scored.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell which word a piece belongs to. Load the fast tokenizer "
            "(`AutoTokenizer.from_pretrained(..., use_fast=True)`)."
        )
    _column(dataset, "words", ["tokens"])
    dataset = _with_labels(dataset, ["tags", "ner_tags", LABELS], label2id)
    wrong = sum(len(words) != len(tags) for words, tags in zip(dataset["tokens"][:], dataset[LABELS][:], strict=True))
    if wrong:
        raise ValueError(
            f"{wrong} of {len(dataset)} rows have another number of words than of classes. Give every word one class."
        )

    def tokenize(rows: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        encoding = tokenizer(
            rows["tokens"], is_split_into_words=True, truncation=max_length is not None, max_length=max_length
        )
        labels = []
        for row, tags in enumerate(rows[LABELS]):
            words = encoding.word_ids(row)
            firsts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            labels.append([tags[word] if first else IGNORED for word, first in zip(words, firsts, strict=True)])
        return {**encoding, LABELS: labels}

    return _tokenized(dataset, tokenize, tokenizer, max_length)


def tokenize_causal_lm(dataset: Dataset, tokenizer: Any, max_length: int | None = None) -> Dataset:
    """
    Tokenises texts, in which every token is scored, or prompts with completions, in which only completions are scored.

    The end-of-sequence token is appended unless the tokenizer does it, and is scored. A prompt and its completion are
    tokenised as one text. The first tokens that this text shares with the prompt alone count as the prompt.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with a text under `text`, or with texts under `prompt` and `completion`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer.
        max_length (`int`, *optional*):
            Number of tokens to cut longer texts to, at the end. By default none is cut.

    Returns:
        [`~datasets.Dataset`]: The tokenizer's columns and `labels`, which are -100 on the prompt. Collate with
        `DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)`.

    Raises:
        `ValueError`: As for [`tokenize_text_classification`]. Also if no token of a row is scored.
    """
    prompted = "prompt" in dataset.column_names and "completion" in dataset.column_names
    columns = ["prompt", "completion"] if prompted else [_column(dataset, "text", ["text"])]
    _check_strings(dataset, columns)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def tokenize(rows: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        texts = list(map("".join, zip(*(rows[name] for name in columns), strict=True)))
        tokens = [ids if ids[-1:] == end else ids + end for ids in tokenizer(texts)["input_ids"]]
        prompts = tokenizer(rows["prompt"])["input_ids"] if prompted else [[]] * len(tokens)
        labels = []
        for ids, prompt in zip(tokens, prompts, strict=True):
            masked = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, prompt, strict=False)))
            labels.append([IGNORED] * masked + ids[masked:])
        columns_of_ids = {"input_ids": tokens, LABELS: labels}
        cut = {name: [row[:max_length] for row in values] for name, values in columns_of_ids.items()}
        return cut | {"attention_mask": [[1] * len(row) for row in cut["input_ids"]]}

    return _tokenized(dataset, tokenize, tokenizer, max_length)


def prepare_images(
    dataset: Dataset,
    image_processor: Any | None = None,
    image_column: str | None = None,
    label2id: Mapping[str, int] | None = None,
) -> Dataset:
    """
    Turns images into pixel values whenever a row is read.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with an image under `image` or `img`, or with `pixel_values`, and the class under `label` or `labels`.
        image_processor ([`~transformers.BaseImageProcessor`], *optional*):
            Makes the pixel values of an image. By default they are the image's own, divided by 255.
        image_column (`str`, *optional*):
            Name of the image column, if it has another name.
        label2id (`dict[str, int]`, *optional*):
            The model's number of every class. Classes are matched by name if the data set names them, by strings or
            by a [`~datasets.ClassLabel`].

    Returns:
        [`~datasets.Dataset`]: `pixel_values` of shape `(num_channels, height, width)` and `labels`.

    Raises:
        `ValueError`: If a column is missing.
    """
    dataset = _with_labels(dataset, ["label", LABELS], label2id)
    if image_column is None and "pixel_values" in dataset.column_names:
        return dataset.select_columns(["pixel_values", LABELS]).with_format("torch")
    image = _column(dataset, "image", [image_column] if image_column else ["image", "img"])
    # Trainer keeps a column of this name. The files' bytes, by which rows are compared, stay in it.
    dataset = dataset.select_columns([image, LABELS]).rename_column(image, "pixel_values")
    return dataset.with_transform(partial(_read_images, image_processor=image_processor))


def _read_images(rows: dict[str, list[Any]], image_processor: Any | None) -> dict[str, Any]:
    if "pixel_values" not in rows:
        return rows
    images = [image.convert("RGB") if image.mode not in ("L", "RGB") else image for image in rows["pixel_values"]]
    if image_processor is not None:
        pixels = image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    else:
        arrays = [np.atleast_3d(np.asarray(image, dtype=np.float32)).transpose(2, 0, 1) / 255 for image in images]
        pixels = [torch.from_numpy(array) for array in arrays]
    return rows | {"pixel_values": pixels}


def _column(dataset: Dataset, what: str, names: Sequence[str]) -> str:
    found = [name for name in names if name in dataset.column_names]
    if not found:
        raise ValueError(
            f"No column {' or '.join(map(repr, names))} holds the {what}; the columns are "
            f"{', '.join(dataset.column_names)}. Rename one (`dataset.rename_column`)."
        )
    return found[0]


def _with_labels(dataset: Dataset, names: Sequence[str], label2id: Mapping[str, int] | None) -> Dataset:
    """Puts the classes, by the model's numbers, into the column `labels`."""
    name = _column(dataset, "classes", names)
    if name != LABELS:
        dataset = dataset.rename_column(name, LABELS)
    known = label2id or {}
    values = dataset.select_columns(LABELS).with_format(None)
    first = values[0][LABELS] if len(dataset) else None
    nested = isinstance(first, list)
    if stated := class_names(dataset, LABELS):
        matched = match_classes(stated, known) if known else None
        if matched is None or matched == list(range(len(stated))):
            return dataset
        numbers = dict(enumerate(matched))
    elif isinstance(first[0] if nested and first else first, str):
        given = {label for row in values[LABELS][:] for label in (row if nested else [row])}
        stated = sorted(given - {None})
        numbers = dict(zip(stated, match_classes(stated, known) or map(known.get, stated), strict=True))
    else:
        return dataset

    def number(label: Any) -> int | None:
        # -1 and an empty entry stand for no class.
        return label if label is None or label == -1 else numbers[label]

    mapped = [[number(label) for label in row] if nested else number(row) for row in values[LABELS][:]]
    unknown = sum(label is None for row in mapped for label in (row if nested else [row]))
    if unknown:
        raise ValueError(
            f"The column {name!r} names classes, and {unknown} of its entries are not among the model's "
            f"(`config.label2id`). In the order of the numbers, {describe_classes(stated, known)}. Rename the classes "
            "of the data set, or if their numbers are those that the model was trained on, those in the model's "
            "configuration (`id2label` and `label2id`)."
        )
    if dataset._indices is not None:
        # Else `add_column` would write the rows to a file.
        dataset = dataset.flatten_indices(keep_in_memory=True, new_fingerprint=generate_random_fingerprint())
    classes = ClassLabel(names=sorted(known, key=known.get))
    return dataset.remove_columns(LABELS).add_column(LABELS, mapped, feature=List(classes) if nested else classes)


def _check_strings(dataset: Dataset, columns: Sequence[str]) -> None:
    for name in columns:
        wrong = sum(not isinstance(value, str) for value in dataset[name][:])
        if wrong:
            raise ValueError(
                f"The column {name!r} holds no text in {wrong} of {len(dataset)} rows. Leave these rows out."
            )


def _tokenized(
    dataset: Dataset,
    tokenize: Callable[[Mapping[str, list[Any]]], Mapping[str, list[Any]]],
    tokenizer: Any,
    max_length: int | None,
    keep: Sequence[str] = (),
) -> Dataset:
    with progress_bars_on_main_process():
        tokenized = dataset.map(
            tokenize,
            batched=True,
            remove_columns=[name for name in dataset.column_names if name not in keep],
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=generate_random_fingerprint(),
            desc="tokenising",
        )
    limit = tokenizer.model_max_length
    longer = sum(len(row) > limit for row in tokenized["input_ids"]) if limit < _NO_LIMIT else 0
    if longer and max_length is None:
        raise ValueError(
            f"{longer} of {len(tokenized)} rows have more than the {limit} tokens that the model takes. Pass "
            f"`max_length={limit}` to cut them as in training, or leave them out."
        )
    if not keep:
        empty = sum(all(label == IGNORED for label in row) for row in tokenized[LABELS])
        if empty:
            raise ValueError(
                f"{empty} of {len(tokenized)} rows have no scored token"
                f"{f' among the first {max_length}' if max_length else ''}, so nothing in them would be forgotten or "
                "kept. Leave them out, or raise `max_length`."
            )
    return tokenized
