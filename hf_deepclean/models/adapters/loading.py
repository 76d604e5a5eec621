# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a saved LoRA adapter, ready to train, on the base model that it names."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...runtime.random_state import seeded
from ..custom_code import auto_class_of, check_custom_code
from .parameters import MERGE_ADVICE


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


_WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")

# Model classes by the task that an adapter names. Other adapters get the architecture of their base model.
_TASK_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}


def load_adapted_model(
    path: str | os.PathLike[str], seed: int = 0, trust_remote_code: bool = False, base: str | None = None
) -> "PeftModel":
    """
    Loads a saved LoRA adapter, ready to train, on the base model that it names.

    The base model is loaded as it was saved. To clean an adapter on a base model that is quantised on loading, load
    both yourself and pass the model. The head is that of the adapter's task, or else of the base model's architecture.
    A head that the base model does not have gets as many labels as the adapter's copy of it, and is initialised by
    `seed`. The global random state is not changed.

    Args:
        path (`str`):
            Folder with `adapter_config.json`. It is only read.
        seed (`int`, *optional*, defaults to `0`):
            Seed for weights that neither the base model nor the adapter has.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the base model may be run.
        base (`str`, *optional*):
            Path or id of the base model. By default the one that the adapter names.

    Returns:
        [`~peft.PeftModel`]: The model, whose adapter is named `"default"`.

    Raises:
        `OSError`: If the base model or the weights of the adapter cannot be loaded.
        `ValueError`: If the adapter is not a LoRA adapter, names no base model, or does not fit it.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights

    path = os.fspath(path)
    config = PeftConfig.from_pretrained(path)
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise ValueError(
            f"The adapter {path} is of type {kind}, but only LoRA adapters are supported. If the method "
            f"supports it, load it with `PeftModel.from_pretrained(base, path)` and {MERGE_ADVICE}"
        )
    config.base_model_name_or_path = base or config.base_model_name_or_path
    if not config.base_model_name_or_path:
        raise ValueError(
            f"The adapter {path} does not say which base it belongs to (`base_model_name_or_path` is "
            f"{config.base_model_name_or_path!r}). Load the base yourself and pass "
            "`PeftModel.from_pretrained(base, path, is_trainable=True)`."
        )
    if not any((Path(path) / weights_name).is_file() for weights_name in _WEIGHTS_NAMES):
        raise FileNotFoundError(
            f"The folder {path} has the configuration of an adapter and no weights ({' or '.join(_WEIGHTS_NAMES)}). "
            "Save the adapter again, with `save_pretrained`."
        )
    weights = load_peft_weights(path, device="cpu")
    with seeded(seed):
        base_model = _load_base(path, config, weights, trust_remote_code)
        carried = _not_of_the_base(base_model, weights)
        try:
            model = PeftModel.from_pretrained(base_model, path, is_trainable=True)
            outcome = model.load_adapter(path, "default", is_trainable=True)
        except (RuntimeError, ValueError) as error:
            raise _misfit(path, config, " ".join(str(error).split())) from error
    if outcome.missing_keys or outcome.unexpected_keys:
        missing, unexpected = list(outcome.missing_keys), list(outcome.unexpected_keys)
        found = [f"it has no {missing[0]} ({len(missing)} tensors missing)"] if missing else []
        found += [f"the base has no place for {unexpected[0]} ({len(unexpected)} tensors)"] if unexpected else []
        raise _misfit(path, config, "; ".join(found))
    replaced = sorted(carried & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if replaced:
        raise ValueError(
            f"The adapter {path} carries weights of the base that are not those of "
            f"{config.base_model_name_or_path!r}: {', '.join(replaced)}. An adapter of a changed base cannot be "
            "cleaned without that base. Load both yourself and pass the `PeftModel`."
        )
    return model


def _load_base(
    path: str, config: "LoraConfig", weights: Mapping[str, torch.Tensor], trust_remote_code: bool
) -> PreTrainedModel:
    name = config.base_model_name_or_path
    source = {} if config.revision is None else {"revision": config.revision}
    try:
        own = auto_class_of(check_custom_code(name, trust_remote_code))
        if own is not None and trust_remote_code:
            return own.from_pretrained(name, trust_remote_code=True, **source)
        base_config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **source)
        model_class = _model_class(config, base_config)
        if model_class.__name__ not in (base_config.architectures or ()):
            _set_num_labels(base_config, model_class, weights)
        return model_class.from_pretrained(name, config=base_config, **source)
    except OSError as error:
        raise OSError(
            f"The adapter {path} belongs to the base {name!r}, which cannot be loaded ({' '.join(str(error).split())})"
            ". Make the base available there, or load it yourself and pass "
            "`PeftModel.from_pretrained(base, path, is_trainable=True)`."
        ) from error


def _model_class(config: "LoraConfig", base_config: PreTrainedConfig) -> type[PreTrainedModel]:
    task = getattr(config.task_type, "value", config.task_type)
    if task in _TASK_CLASSES:
        auto_class = getattr(transformers, _TASK_CLASSES[task])
        if type(base_config) in auto_class._model_mapping:
            with torch.device("meta"):
                return type(auto_class.from_config(copy.deepcopy(base_config)))
    names = [(config.auto_mapping or {}).get("base_model_class"), *(base_config.architectures or ())]
    known = [name for name in names if name is not None and hasattr(transformers, name)]
    if not known:
        raise ValueError(
            f"Neither the adapter (task {task!r}) nor its base {config.base_model_name_or_path!r} "
            f"({base_config.architectures}) name a class of transformers. Load the base yourself and pass the "
            "`PeftModel`."
        )
    return getattr(transformers, known[0])


def _set_num_labels(
    base_config: PreTrainedConfig, model_class: type[PreTrainedModel], weights: Mapping[str, torch.Tensor]
) -> None:
    """Sets the number of labels to that of the adapter's copy of a head that the base model does not have."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model_class(copy.deepcopy(base_config)).named_parameters()}
    for key, tensor in weights.items():
        shape = shapes.get(key.removeprefix("base_model.model."), ())
        if shape[1:] == tensor.shape[1:] and len(shape) == tensor.ndim and shape[:1] == (base_config.num_labels,):
            base_config.num_labels = len(tensor)
            return


def _not_of_the_base(base: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of weights in an adapter's file that the base model has too, with other values."""
    parameters = dict(base.named_parameters(remove_duplicate=False))
    names = {key: key.removeprefix("base_model.model.").replace(".base_layer.", ".") for key in weights}
    return {
        key
        for key, name in names.items()
        if name in parameters
        and not torch.equal(parameters[name].detach().cpu(), weights[key].to(parameters[name].dtype))
    }


def _misfit(path: str, config: "LoraConfig", reason: str) -> ValueError:
    return ValueError(
        f"The adapter {path} does not fit its base {config.base_model_name_or_path!r}: {reason}. It was trained on "
        "another base, or on this base with a resized vocabulary or another head. Load the right base yourself and "
        "pass `PeftModel.from_pretrained(base, path, is_trainable=True)`."
    )
