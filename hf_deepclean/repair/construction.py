# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Undoes what the constructor of [`~transformers.Trainer`] does to a model and to the disk."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import nn
from transformers import TrainingArguments

from ..runtime.processes import is_main_process


@contextmanager
def without_side_effects(model: nn.Module, args: TrainingArguments | None) -> Iterator[None]:
    """Undoes what Trainer's constructor does: it switches the cache off for good, and makes the output directory."""
    use_cache = getattr(model.config, "use_cache", None)
    output = None if args is None else Path(args.output_dir)
    absent = [] if output is None else [folder for folder in (output, *output.parents) if not folder.exists()]
    yield
    if use_cache is None:
        vars(model.config).pop("use_cache", None)
    else:
        model.config.use_cache = use_cache
    for folder in absent if is_main_process() else []:
        with suppress(OSError):
            folder.rmdir()
