# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tries to save the result of a run, without the bytes of its weights."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from ..models.adapters.saving import save_model
from ..phases import Phases
from ..report.provenance import Provenance
from ..runtime.attributes import overridden
from ..runtime.files import temporary_folder
from .errors import explained


# What is changed for a rehearsal is that of the whole process, and must be restored in the reverse order.
_one_at_a_time = threading.Lock()


def try_saving(phases: Phases) -> None:
    """
    Saves everything but the weights' bytes to a temporary folder: configurations, the names of the weights (which must
    not share memory in a way that cannot be saved), tokenizer or processor. Reads the card of the original model.

    Of a model that is sharded over several processes only the tokenizer is saved, since its weights would be gathered.

    Args:
        phases ([`Phases`]):
            The phases of the run.
    """
    with temporary_folder() as folder, _one_at_a_time, _quiet(), _without_bytes(folder):
        if not phases.trainer.is_sharded:
            with explained("saving the model with its configurations at the end"):
                save_model(phases.model, folder, **phases.trainer.original_configs)
        if phases.trainer.processing_class is not None:
            with explained("saving the `processing_class` at the end"):
                phases.trainer.processing_class.save_pretrained(folder)
    source = phases.request.source
    name = str(source if isinstance(source, (str, Path)) else getattr(source, "name_or_path", None) or "")
    # A card on the Hub is read at the end: no request before the run.
    if name and os.path.lexists(Path(name) / "README.md"):
        Provenance.of(source)


@contextmanager
def _quiet() -> Iterator[None]:
    """What saving warns of is told when the result is saved."""
    bars = transformers_logging.is_progress_bar_enabled()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(before)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _without_bytes(folder: Path) -> Iterator[None]:
    """Inside the block, transformers and peft save a model to this folder without the file of its weights."""
    modules = [sys.modules.get(name) for name in ("transformers.modeling_utils", "peft.peft_model")]
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "safe_save_file"):
                # Other threads may save other models meanwhile.
                save = partial(_save_elsewhere, module.safe_save_file, folder)
                stack.enter_context(overridden(module, safe_save_file=save))
        yield


def _save_elsewhere(save: Callable[..., Any], folder: Path, tensors: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
    return None if Path(path).is_relative_to(folder) else save(tensors, path, *args, **kwargs)
