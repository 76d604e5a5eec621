# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Saves the active adapter, and no weight of its base."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import AutoConfig

from .parameters import active_adapter, is_adapted


if TYPE_CHECKING:
    from peft import PeftModel


logger = logging.getLogger(__name__)


def save_adapter(model: "PeftModel", directory: str | os.PathLike[str]) -> None:
    """
    Writes the active adapter, whatever its name, straight into a folder, and no weight of the base.

    Only where the vocabulary was resized are the embeddings of the base written too, as peft does: the base on disk
    does not have those rows.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        directory (`str`):
            Where to.
    """
    with saving_the_adapter_alone(model):
        model.save_pretrained(directory)
    # A template of a model card, with nothing filled in.
    (Path(directory) / "README.md").unlink(missing_ok=True)


@contextmanager
def saving_the_adapter_alone(model: nn.Module) -> Iterator[None]:
    """
    Where anything saves the model, for the duration, it saves the active adapter alone, straight into the folder.

    By itself peft saves all adapters, those not named "default" in folders of their own (where Trainer does not find
    its best checkpoint), asks the Hub for the base's configuration, and adds the base's embeddings if LoRA is applied
    to them. Does nothing to a model without adapter.
    """
    if not is_adapted(model):
        yield
        return
    resized = _vocabulary_was_resized(model)
    if resized:
        logger.warning(
            "The vocabulary of the base was resized, so its embeddings are saved beside the adapter, which could not "
            "be loaded without them."
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
    """Compared with the configuration of the base, if that is on this machine."""
    here = getattr(model.get_base_model().config, "vocab_size", None)
    name = model.peft_config[active_adapter(model)].base_model_name_or_path
    if not name or here is None:
        return False
    try:
        there = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return False
    return getattr(there, "vocab_size", here) != here
