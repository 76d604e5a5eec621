# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The options that name a model and its task, the loading of the model, and the preparation of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal


if TYPE_CHECKING:
    from datasets import Dataset


# Names of the heads in transformers, by task.
_HEADS = {
    "text-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "causal-lm": "CAUSAL_LM",
    "image-classification": "IMAGE_CLASSIFICATION",
}


@dataclass
class ModelArguments:
    """The model, its task, and how its inputs are prepared."""

    _argument_group_name = "model"

    task: Literal["text-classification", "token-classification", "causal-lm", "image-classification"] = field(
        metadata={"help": "Task of the model, which decides how rows are prepared."}
    )
    model_name_or_path: str = field(
        metadata={"help": "The trained model: a folder, also of a LoRA adapter, or a Hub id."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Truncate texts to this many tokens; by default longer texts are refused."}
    )
    text_column: str | None = field(
        default=None, metadata={"help": "Column of the text in text classification, if not 'text' or 'sentence'."}
    )
    fsdp_size: int | None = field(
        default=None,
        metadata={"help": "Number of launched processes to shard the model over (FSDP2) if it fits no single device."},
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Column of the image, if not 'image', 'img' or 'pixel_values'."}
    )


def model_loader(arguments: ModelArguments, trust_remote_code: bool = False) -> Callable[[str], Any]:
    """
    Finds the function that loads the model with the head of its checkpoint.

    Args:
        arguments ([`ModelArguments`]):
            The model and its task. Only the configuration of the model is read.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may be run.

    Returns:
        `Callable`: Loads the model from its path or id.

    Raises:
        `FileNotFoundError`: If there is no such model.
        `ValueError`: If the head of the checkpoint is not one of the task, or if the model comes with code that may
            not be run.
    """
    import transformers
    from huggingface_hub import constants

    from ..models.adapters.loading import load_adapted_model
    from ..models.adapters.parameters import is_adapter_path
    from ..models.custom_code import auto_class_of, check_custom_code
    from ..models.heads import class_names_of_task

    name, task = arguments.model_name_or_path, arguments.task
    if is_adapter_path(name):
        # The adapter's own configuration names the head of its base.
        return partial(load_adapted_model, trust_remote_code=trust_remote_code)
    try:
        own = auto_class_of(check_custom_code(name, trust_remote_code))
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        architectures = config.architectures or ["none"]
    except OSError as error:
        if Path(name).is_dir():
            raise
        offline = "; offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"`model_name_or_path` is {name!r}: there is no such folder, and it could not be loaded from the Hub"
            f"{offline} ({type(error).__name__}). Check the name and the network, or pass a folder."
        ) from None
    architectures_of = {task: class_names_of_task(head) for task, head in _HEADS.items()}
    if own is not None and trust_remote_code:
        # An auto class is named for its task, as in `AutoModelForCausalLM`.
        is_of_task = own.__name__.lower() == f"automodelfor{_HEADS[task].replace('_', '').lower()}"
    else:
        is_of_task = architectures[0] in architectures_of[task]
    if not is_of_task:
        others = [other for other in _HEADS if architectures[0] in architectures_of[other]]
        raise ValueError(
            f"`model_name_or_path` is {name!r}, whose architecture {architectures[0]} is not one of the task {task!r}"
            f"{f', but of {others[0]!r}' if others else ''}. Pass the `task` that the model was trained for, and a "
            "transformers model with a head for it."
        )
    load = getattr(transformers, architectures[0], own).from_pretrained
    if own is not None and trust_remote_code:
        load = partial(own.from_pretrained, trust_remote_code=True)
    if arguments.fsdp_size is None:
        return load
    from transformers.distributed import DistributedConfig

    return partial(load, distributed_config=DistributedConfig(fsdp_size=arguments.fsdp_size))


def prepare_inputs(
    arguments: ModelArguments, model: Any, splits: dict[str, "Dataset"], trust_remote_code: bool = False
) -> tuple[dict[str, "Dataset"], Any, Any]:
    """
    Turns rows into inputs of the model.

    Args:
        arguments ([`ModelArguments`]):
            The task, and how its rows are read.
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The loaded model.
        splits (`dict[str, Dataset]`):
            The rows by split.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the tokenizer or the processor may be run.

    Returns:
        `tuple`: The inputs by split, the data collator (`None` for the default collator), and the tokenizer or image
        processor (`None` if the rows already hold pixel values).
    """
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
    )

    from ..data import preprocessing
    from ..models.adapters.parameters import is_adapted
    from ..models.heads import class_numbers

    name, length = arguments.model_name_or_path, arguments.max_length
    label2id = class_numbers(model) or model.config.label2id
    if arguments.task == "image-classification":
        return _prepare_images(arguments, label2id, splits, trust_remote_code)
    if is_adapted(model) and not (Path(name) / "tokenizer_config.json").exists():
        name = model.active_peft_config.base_model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    preprocessing.check_tokenizer(tokenizer, model)

    def tokenize(split: "Dataset") -> "Dataset":
        if arguments.task == "text-classification":
            column = arguments.text_column
            return preprocessing.tokenize_text_classification(split, tokenizer, length, column, label2id)
        if arguments.task == "token-classification":
            return preprocessing.tokenize_token_classification(split, tokenizer, length, label2id)
        return preprocessing.tokenize_causal_lm(split, tokenizer, length)

    collator_class = {
        "text-classification": DataCollatorWithPadding,
        "token-classification": DataCollatorForTokenClassification,
        "causal-lm": DataCollatorForSeq2Seq,
    }[arguments.task]
    return {name: tokenize(split) for name, split in splits.items()}, collator_class(tokenizer), tokenizer


def _prepare_images(
    arguments: ModelArguments, label2id: dict[str, int] | None, splits: dict[str, "Dataset"], trust_remote_code: bool
) -> tuple[dict[str, "Dataset"], Any, Any]:
    from transformers import AutoImageProcessor

    from ..data.preprocessing import prepare_images

    processor = None
    if not all("pixel_values" in split.column_names for split in splits.values()):
        processor = AutoImageProcessor.from_pretrained(
            arguments.model_name_or_path, trust_remote_code=trust_remote_code
        )
    images = {
        name: prepare_images(split, processor, arguments.image_column, label2id) for name, split in splits.items()
    }
    return images, None, processor
