# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The examples of a Trainer's data set, each once and in order, as the Trainer would make batches of them."""

import copy
from collections.abc import Iterator
from typing import Any

import datasets
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm
from transformers import Trainer

from .batches import reproducible_batches


def batches_in_order(
    trainer: Trainer, dataset: Any, batch_size: int, seed: int, description: str | None = None
) -> Iterator[dict[str, Any]]:
    """
    Batches in the order of the data, by a trainer's collator. What is random in them follows the seed.

    Args:
        trainer ([`~transformers.Trainer`]):
            Whose collator and arguments to use.
        dataset ([`~datasets.Dataset`], map-style or a stream):
            The data set.
        batch_size (`int`):
            Number of examples of a batch, the last one may have fewer.
        seed (`int`):
            The seed.
        description (`str`, *optional*):
            Shown beside a progress bar; without it there is none.
    """
    collator = trainer.data_collator
    if getattr(collator, "generator", None) is not None:
        # A masking collator with a seed of its own goes on in its random numbers from pass to pass.
        collator = copy.copy(collator)
        collator.generator = None
    if isinstance(dataset, datasets.Dataset):
        dataset = trainer._remove_unused_columns(dataset, description)
    else:
        collator = trainer._get_collator_with_removed_columns(collator, description)
    is_stream = isinstance(dataset, IterableDataset)
    # Workers would each read the whole of a stream.
    num_workers = 0 if is_stream else trainer.args.dataloader_num_workers
    loader = DataLoader(dataset, batch_size, collate_fn=collator, num_workers=num_workers)
    hidden = description is None or trainer.args.disable_tqdm or not trainer.is_local_process_zero()
    batches = reproducible_batches(loader, seed)
    total = None if is_stream else len(loader)
    return iter(tqdm(batches, desc=description, total=total, disable=hidden, leave=False))
