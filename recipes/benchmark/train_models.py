# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the base, the original and the reference of a task, and keeps them in a folder."""

import json
import os
import resource
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

from common import train
from task_data import DataSource
from tasks import Task
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, set_seed


# Peak learning rate of the base of the language models.
BASE_LEARNING_RATE = 2e-3
# Added to the seed of the training of a second reference.
OTHER_SEED = 1000


def train_model(task: Task, role: str, seed: int, source: DataSource, models: Path) -> nn.Module:
    """
    Loads the base, the original or the reference of a task, or trains and saves it.

    `training.json` beside the weights holds the wall-clock and the processor seconds of the training.

    Args:
        task ([`Task`]):
            The task.
        role (`str`):
            `"base"`, `"original"`, `"reference"`, or `"reference2"` and so on: a reference whose training draws
            otherwise.
        seed (`int`):
            Seed of data and training.
        source ([`DataSource`]):
            Where the data come from.
        models (`Path`):
            Folder of all trained models.

    Returns:
        `torch.nn.Module`: The model.
    """
    folder = models / task.folder(role, seed)
    base = task.base_folder(models, seed)
    if base is not None and role != "base" and not base.exists():
        train_model(task, "base", seed, source, models)
    if folder.exists():
        if role == "base":
            return (AutoModelForCausalLM if task.is_language_model else AutoModel).from_pretrained(folder)
        return task.load_model(folder, base)
    data, recipe = task.data(seed, source), task.training(source)
    rows = {"base": data.base_rows, "original": data.original_rows}.get(role, data.reference_rows)
    own_base, settings = task.family.base if role == "base" else None, ()
    if own_base is not None:
        # One base serves all seeds.
        rows, recipe, seed = own_base.rows(source), own_base.recipe, 0
        settings = (source.share_of(int(recipe.original_num_train_epochs), least=1),)
    elif role == "base":
        # The base reads its rows once, which `load_biographies` repeats, at its own learning rate.
        settings = (1, BASE_LEARNING_RATE)
    seed += OTHER_SEED * (int(role.removeprefix("reference") or 1) - 1) if role.startswith("reference") else 0
    set_seed(seed)
    model = task.new_model(data, None if role == "base" else base)
    args = SimpleNamespace(disable_tqdm=True, use_cpu=True, bf16=False, seed=seed)
    start, start_of_processor = time.perf_counter(), time.process_time()
    collator = task.family.training_collator or data.data_collator
    train(model, rows, recipe, args, collator, *settings)
    seconds = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - start_of_processor,
        "num_rows": len(rows),
        "num_train_epochs": settings[0] if settings else recipe.original_num_train_epochs,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    staging = folder.with_name(f".incomplete-{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    if own_base is not None:
        # Without its head, in whose place every task has a new one.
        model = model.base_model
    # By default peft saves the embeddings of the base with an adapter on them.
    model.save_pretrained(staging, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
    (staging / "training.json").write_text(json.dumps(seconds, indent=2) + "\n")
    os.replace(staging, folder)
    return model.eval()
