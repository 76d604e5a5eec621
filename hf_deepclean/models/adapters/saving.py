# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Saves a model, or its active adapter without the weights of its base model."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import AutoConfig

from ...runtime.attributes import overridden
from ...runtime.processes import is_main_process
from ..custom_code import save_code
from .parameters import active_adapter, is_adapted


if TYPE_CHECKING:
    from peft import PeftModel


logger = logging.getLogger(__name__)


def save_model(model: nn.Module, directory: str | os.PathLike[str], **configs: Any) -> None:
    """
    Writes a model with the configurations and the code that it came with, or the active adapter alone.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        directory (`str`):
            The folder to write to.
        configs:
            Attributes that the model has while it is saved, such as `config` and `generation_config`.
    """
    if is_adapted(model):
        save_adapter(model, directory)
        return
    with overridden(model, **configs):
        model.save_pretrained(directory)
        if is_main_process():
            save_code(model, Path(directory))


def save_adapter(model: "PeftModel", directory: str | os.PathLike[str]) -> None:
    """
    Writes the active adapter, whatever its name, directly into a folder, without the weights of the base model.

    Only if the vocabulary was resized, the embeddings of the base model are written too, as peft does: the base model
    on disk does not have these rows.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        directory (`str`):
            The folder to write to.
    """
    with saving_the_adapter_alone(model):
        model.save_pretrained(directory)
    # peft writes an unfilled template of a model card.
    (Path(directory) / "README.md").unlink(missing_ok=True)


@contextmanager
def saving_the_adapter_alone(model: nn.Module) -> Iterator[None]:
    """
    Inside the block, whatever saves the model saves only the active adapter, directly into the folder.

    On its own peft saves all adapters, puts those not named "default" into subfolders (where Trainer does not find its
    best checkpoint), asks the Hub for the base model's configuration, and adds the base model's embeddings if LoRA is
    applied to them. Nothing changes for a model without adapter.
    """
    if not is_adapted(model):
        yield
        return
    resized = _vocabulary_was_resized(model)
    if resized:
        logger.warning(
            "The vocabulary of the base was resized, so its embeddings are saved with the adapter, which could not be "
            "loaded without them."
        )
    name, save_pretrained = active_adapter(model), model.save_pretrained

    def save(save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        save_pretrained(save_directory, selected_adapters=[name], save_embedding_layers=resized, **kwargs)
        folder = Path(save_directory) / name
        if name != "default":
            for path in folder.iterdir():
                path.replace(folder.parent / path.name)
            folder.rmdir()

    model.save_pretrained = save
    try:
        yield
    finally:
        del model.save_pretrained


def _vocabulary_was_resized(model: "PeftModel") -> bool:
    """Compares the vocabulary with the base model's configuration, if that is on this machine."""
    here = getattr(model.get_base_model().config, "vocab_size", None)
    name = model.peft_config[active_adapter(model)].base_model_name_or_path
    if not name or here is None:
        return False
    try:
        there = AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return False
    return getattr(there, "vocab_size", here) != here
