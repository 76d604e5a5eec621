# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the recipes for classifiers share: their classes, tokenizers and models."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from common import RecipeArguments, load_data
from datasets import ClassLabel, Dataset
from example_data import UNSCORED
from example_tokenizers import train_encoder_tokenizer
from transformers import AutoTokenizer, ModernBertConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_deepclean import DataArguments, check_tokenizer


MAX_LENGTH = 128


def load_classes(
    recipe: RecipeArguments,
    arguments: DataArguments,
    load_example: Callable[..., dict[str, Dataset]],
    label_columns: Sequence[str],
    seed: int,
) -> tuple[dict[str, Dataset], list[str]]:
    """
    Loads the data of a classifier.

    Args:
        recipe, arguments, load_example, seed:
            As for [`load_data`].
        label_columns (`Sequence[str]`):
            Names that the column of labels may have, in order of preference.

    Returns:
        `tuple`: The data sets, see [`split_held_out_by_class`], and the names of the classes.
    """
    data = load_data(recipe, arguments, load_example, seed)
    columns = data["retain"].column_names
    column = next((name for name in label_columns if name in columns), label_columns[-1])
    return split_held_out_by_class(data, column), class_names(data, column)


def split_held_out_by_class(data: dict[str, Dataset], column: str) -> dict[str, Dataset]:
    """
    Splits the held-out data if whole classes are forgotten: `unseen` keeps the forgotten classes, to compare the
    forget data with, and `eval` becomes `eval_other_classes`. Otherwise returns the data unchanged.
    """
    classes = {
        name: [set(np.ravel(labels)) - {UNSCORED} for labels in part.with_format(None)[column][:]]
        for name, part in data.items()
    }
    gone = set().union(*classes["forget"]) - set().union(*classes["retain"])
    if not gone:
        return data

    def select(name: str, of_class: bool) -> Dataset:
        return data[name].select([row for row, found in enumerate(classes[name]) if bool(found & gone) is of_class])

    divided = {"forget": data["forget"], "retain": data["retain"]}
    if "eval" in data:
        divided["eval_other_classes"] = select("eval", False)
    if "unseen" in data:
        divided["unseen"] = select("unseen", True)
    return {name: part for name, part in divided.items() if len(part)}


def class_names(data: dict[str, Dataset], column: str) -> list[str]:
    """Names of the classes in a column of labels, or of lists of labels."""
    feature = data["retain"].features[column]
    feature = getattr(feature, "feature", feature)
    if isinstance(feature, ClassLabel):
        return feature.names
    values = {value for part in data.values() for row in part.with_format(None)[column][:] for value in np.ravel(row)}
    if all(isinstance(value, np.integer) for value in values):
        return [str(number) for number in range(max(values) + 1)]
    return sorted(map(str, values))


def label_mappings(names: Iterable[str]) -> dict[str, dict[Any, Any]]:
    """The entries `id2label` and `label2id` of a model's configuration."""
    names = list(names)
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def load_classifier(
    auto_class: Any,
    path: str,
    recipe: RecipeArguments,
    names: list[str],
    trust_remote_code: bool,
    **base_arguments: Any,
) -> PreTrainedModel:
    """Loads a trained model as it is, or the base that training starts from with a head for these classes."""
    trust = {"trust_remote_code": trust_remote_code}
    if path == recipe.base_model_name_or_path:
        return auto_class.from_pretrained(path, **trust, **base_arguments, **label_mappings(names))
    return auto_class.from_pretrained(path, **trust)


def load_tokenizer(
    recipe: RecipeArguments, texts: Iterable[str], vocab_size: int, trust_remote_code: bool = False
) -> Any:
    """Loads the tokenizer of the model or of the base; if there is none, trains one on texts."""
    checkpoint = recipe.model_name_or_path or recipe.base_model_name_or_path
    if checkpoint is not None:
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    return train_encoder_tokenizer(texts, vocab_size, MAX_LENGTH)


def text_model_loader(
    recipe: RecipeArguments,
    tokenizer: Any,
    names: list[str],
    auto_class: Any,
    new_model: Callable[[Any, list[str]], PreTrainedModel],
    trust_remote_code: bool = False,
) -> Callable[[str | None], PreTrainedModel]:
    """
    Returns a function that loads a classifier of texts or tokens, or makes a new one.

    Args:
        recipe ([`RecipeArguments`]):
            The options.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer, which must fit the model.
        names (`list[str]`):
            Names of the classes.
        auto_class (`type`):
            Auto class of the model.
        new_model (`Callable`):
            Makes a model with random weights from the tokenizer and the names.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may be run.
    """

    def load_model(path: str | None) -> PreTrainedModel:
        if path is None:
            model = new_model(tokenizer, names)
        else:
            model = load_classifier(auto_class, path, recipe, names, trust_remote_code)
        check_tokenizer(tokenizer, model)
        return model

    return load_model


def small_encoder_config(tokenizer: PreTrainedTokenizerFast, names: list[str], **kwargs: Any) -> ModernBertConfig:
    """Configuration of an encoder that learns a small data set on a CPU."""
    return ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        embedding_dropout=0.3,
        mlp_dropout=0.2,
        classifier_dropout=0.3,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=None,
        eos_token_id=None,
        **label_mappings(names),
        **kwargs,
    )
