# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The model and the inputs that a command is told of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal


if TYPE_CHECKING:
    from datasets import Dataset


# Everything heavy is imported where it is used, so that `--help` answers at once.
COMMANDS = {
    "unlearn": "make a model forget rows of its training data, and measure what that did",
    "fisher": "compute and keep the Fisher diagonal of a model on one split of a data set",
    "estimate": "say on paper how long a run takes and what memory it needs, without a model or data",
    "report": "show the report of a run, or a summary of several",
    "card": "write the unlearning card of a run, without publishing anything",
    "push": "publish the result of a run on the Hub: searched for leaks, in one commit",
    "check-card": "search any folder for traces of the forgotten data",
    "squash-history": "say where a repository still holds weights from before, and make one commit of its history",
}
_TASKS = Literal["text-classification", "token-classification", "causal-lm", "image-classification"]
# Their names in transformers.
_HEADS = {
    "text-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "causal-lm": "CAUSAL_LM",
    "image-classification": "IMAGE_CLASSIFICATION",
}


@dataclass
class ModelArguments:
    """The model, its task, and how its inputs are made."""

    _argument_group_name = "model"

    task: _TASKS = field(metadata={"help": "What the model does, which decides how rows become inputs."})
    model_name_or_path: str = field(
        metadata={"help": "The trained model: a folder (of a LoRA adapter too) or a Hub id."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Cut longer texts to so many tokens; by default longer ones are refused."}
    )
    text_column: str | None = field(
        default=None, metadata={"help": "Column of the text in text classification, if not 'text' or 'sentence'."}
    )
    fsdp_size: int | None = field(
        default=None,
        metadata={"help": "Shard a model that fits no single device over so many launched processes (FSDP2)."},
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Column of the image, if not 'image', 'img' or 'pixel_values'."}
    )


def model_loader(arguments: ModelArguments) -> Callable[[str], Any]:
    """What loads the model with the head that its checkpoint has, if that is one of the task."""
    import transformers
    from huggingface_hub import constants

    from ..models.adapters.loading import load_adapted_model
    from ..models.adapters.parameters import is_adapter_path
    from ..models.heads import class_names_of_task

    name, task = arguments.model_name_or_path, arguments.task
    if is_adapter_path(name):
        # Its configuration says what head the base gets.
        return load_adapted_model
    try:
        architectures = transformers.AutoConfig.from_pretrained(name).architectures or ["none"]
    except OSError as error:
        if Path(name).is_dir():
            raise
        offline = "; offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"`model_name_or_path` is {name!r}: no such folder is here, and it could not be loaded from the Hub"
            f"{offline} ({type(error).__name__}). Check the name and the network, or pass a folder."
        ) from None
    of_task = {task: class_names_of_task(head) for task, head in _HEADS.items()}
    if architectures[0] not in of_task[task]:
        others = [other for other in of_task if architectures[0] in of_task[other]]
        raise ValueError(
            f"`model_name_or_path` is {name!r}, whose architecture {architectures[0]} is none of the task {task!r}"
            f"{f', but of {others[0]!r}' if others else ''}. Give the `task` that the model was trained for, and a "
            "model of transformers with its head."
        )
    load = getattr(transformers, architectures[0]).from_pretrained
    if arguments.fsdp_size is None:
        return load
    from transformers.distributed import DistributedConfig

    return partial(load, distributed_config=DistributedConfig(fsdp_size=arguments.fsdp_size))


def prepare_inputs(
    arguments: ModelArguments, model: Any, splits: dict[str, "Dataset"]
) -> tuple[dict[str, "Dataset"], Any, Any]:
    """The splits as inputs of the model, with the collator (none for the default) and the tokenizer or processor."""
    import transformers

    from ..data import preprocessing
    from ..models.adapters.parameters import is_adapted

    name, length, label2id = arguments.model_name_or_path, arguments.max_length, model.config.label2id
    if arguments.task == "image-classification":
        made = all("pixel_values" in split.column_names for split in splits.values())
        processor = None if made else transformers.AutoImageProcessor.from_pretrained(name)
        images = {
            part: preprocessing.prepare_images(split, processor, arguments.image_column, label2id)
            for part, split in splits.items()
        }
        return images, None, processor
    if is_adapted(model) and not (Path(name) / "tokenizer_config.json").exists():
        name = model.active_peft_config.base_model_name_or_path
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    preprocessing.check_tokenizer(tokenizer, model)
    if arguments.task == "text-classification":
        collator = transformers.DataCollatorWithPadding(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_text_classification(split, tokenizer, length, arguments.text_column, label2id)
            for part, split in splits.items()
        }
    elif arguments.task == "token-classification":
        collator = transformers.DataCollatorForTokenClassification(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_token_classification(split, tokenizer, length, label2id)
            for part, split in splits.items()
        }
    else:
        collator = transformers.DataCollatorForSeq2Seq(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_causal_lm(split, tokenizer, length) for part, split in splits.items()
        }
    return tokenized, collator, tokenizer
