# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Batches for passes that only read a data set: the same in every pass, and each in exactly one process."""

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, get_worker_info
from tqdm.auto import tqdm
from transformers import Trainer

from ..runtime.processes import is_main_process, num_processes, process_index
from ..runtime.random_state import all_seeded
from .batches import LABELS, split_labels
from .row_errors import DataError, Failure, collated, fault_of_labels, positions_in, rows_with_none
from .streams import first_rows, is_stream, read_rows, read_stream, rows_at


# Rows that are collated alone to see whether they are padded to one length.
_NUM_COMPARED = 8


def seeded_batches(
    dataset: Any,
    batch_size: int,
    collator: Callable[[list[Any]], Mapping[str, Any]],
    seed: int,
    *,
    process_index: int = 0,
    num_processes: int = 1,
    start: int = 0,
    earlier: Collection[int] = (),
    num_workers: int = 0,
    name: str = "the data set",
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """
    Yields the batches of a data set in its order, each made under a seed of its own.

    Everything random in a batch, such as masks or augmentation, depends only on the seed and the place of the batch.
    It is the same in every pass, on any number of processes and after an interruption. The global random states of
    Python, numpy and torch (CPU) are not changed.

    Several processes take turns batch by batch, so that every example is in exactly one batch of one process. Every
    process reads all rows of a stream, but makes only its own batches.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set. Rows of a map-style one may be read by `num_workers` workers.
        batch_size (`int`):
            Examples per batch; the last batch may have fewer.
        collator (`Callable`):
            Makes a batch of rows.
        seed (`int`):
            The seed.
        process_index, num_processes (`int`, *optional*, defaults to `0` and `1`):
            Which share of the batches to make.
        start (`int`, *optional*, defaults to `0`):
            Place of the first batch in the whole data set.
        earlier (`Collection[int]`, *optional*):
            Places before `start` of batches to make as well.
        num_workers (`int`, *optional*, defaults to `0`):
            Number of workers that read ahead.
        name (`str`, *optional*, defaults to `"the data set"`):
            Names the data set in an error.

    Yields:
        `tuple[int, dict[str, Any]]`: The place of the batch in the whole data set, and the batch.

    Raises:
        [`DataError`]: If a row cannot be read or made into a batch, or a stream has none. Says which row, and why.
    """

    def is_wanted(place: int) -> bool:
        return place % num_processes == process_index and (place >= start or place in earlier)

    if not is_stream(dataset):
        batches = _SeededBatches(dataset, batch_size, collator, seed, name)
        places = [place for place in range(len(batches)) if is_wanted(place)]
        loader = DataLoader(
            batches,
            None,
            sampler=places,
            collate_fn=_unchanged,
            num_workers=num_workers,
            # Without a generator of its own a loader draws from the global one, even if nothing is random.
            generator=torch.Generator(),
        )
        for place, batch in zip(places, loader, strict=True):
            if isinstance(batch, Failure):
                raise batch.error()
            yield place, batch
        return
    yield from _batches_of_stream(dataset, batch_size, collator, seed, is_wanted, name)


@dataclass(frozen=True)
class BatchSource:
    """
    Makes batches and samples of data sets with the collator, columns, seed and workers of a trainer.

    The trainer is read at every call, so later changes of its collator and arguments have an effect.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        collator (`Callable`, *optional*):
            Makes a batch of rows. By default the trainer's `data_collator`.
        num_workers (`int`, *optional*):
            Number of workers that read ahead. By default the trainer's `args.dataloader_num_workers`.

    Example:

    ```python
    >>> source = BatchSource(trainer)
    >>> for place, batch in source.batches(source.sample(dataset, 100), batch_size=8):
    ...     print(place, batch["labels"].shape)
    >>> timed = dataclasses.replace(source, collator=timer, num_workers=0)
    ```
    """

    trainer: Trainer
    collator: Callable[[list[Any]], Any] | None = None
    num_workers: int | None = None

    def batches(
        self,
        dataset: Any,
        batch_size: int,
        description: str | None = None,
        *,
        start: int = 0,
        earlier: Collection[int] = (),
        in_turns: bool = True,
        seed: int | None = None,
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """
        Iterates over the batches of a data set, made by [`seeded_batches`], with a progress bar on the main process.

        Args:
            dataset, batch_size, start, earlier:
                As for [`seeded_batches`].
            description (`str`, *optional*):
                Shown beside the progress bar. Without it there is no bar.
            in_turns (`bool`, *optional*, defaults to `True`):
                Whether the processes divide the batches among them. Otherwise every process gets all batches.
            seed (`int`, *optional*):
                The seed. By default the trainer's `args.seed`.

        Returns:
            `Iterator[tuple[int, dict[str, Any]]]`: Every batch with its place in the whole data set.
        """
        args, name = self.trainer.args, self.name_of(dataset, description)
        rows, collator = self.rows_and_collator(dataset, description)
        processes = num_processes() if in_turns else 1
        index = process_index() if in_turns else 0
        batches = seeded_batches(
            rows,
            batch_size,
            collator,
            args.seed if seed is None else seed,
            process_index=index,
            num_processes=processes,
            start=start,
            earlier=earlier,
            num_workers=args.dataloader_num_workers if self.num_workers is None else self.num_workers,
            name=name,
        )
        total = None if is_stream(rows) else len(range(index, math.ceil(len(rows) / batch_size), processes))
        hidden = description is None or args.disable_tqdm or not is_main_process()
        done = len(range(index, start, processes)) - len(earlier)
        return iter(tqdm(batches, desc=description, total=total, initial=done, disable=hidden, leave=False))

    def sample(self, dataset: Any, size: int) -> Any:
        """
        Draws at most `size` rows by the trainer's seed. From a stream it takes the first rows.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            size (`int`):
                Number of rows.

        Returns:
            [`~torch.utils.data.Subset`] or stream: The rows, in the order of the data set. A map-style data set with
            at most `size` rows is returned itself.
        """
        if is_stream(dataset):
            return first_rows(dataset, size)
        if size >= len(dataset):
            return dataset
        drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(self.trainer.args.seed))[:size]
        return Subset(dataset, drawn.sort().values.tolist())

    def name_of(self, dataset: Any, description: str | None = None) -> str:
        """
        Names a data set, or a sample of it, for an error: by the trainer's argument if it is one.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            description (`str`, *optional*):
                What any other data set is read for.
        """
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        for name in ("forget_dataset", "retain_dataset", "unseen_dataset", "eval_dataset", "train_dataset"):
            given = getattr(self.trainer, name, None)
            if given is dataset:
                return f"`{name}`"
            for key, one in given.items() if isinstance(given, Mapping) else ():
                if one is dataset:
                    return f"`{name}[{key!r}]`"
        return "the data set" if description is None else f'the data set of "{description}"'

    def has_fixed_length(self, dataset: Any) -> bool:
        """
        Whether the collator pads every row to one length, also a row alone. Judged by the first rows.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set. Of a stream it is not known, and the answer is no.
        """
        if is_stream(dataset):
            return False
        rows = Subset(dataset, range(min(_NUM_COMPARED, len(dataset))))
        masks = [batch.get("attention_mask") for _, batch in self.batches(rows, 1, in_turns=False)]
        if not all(isinstance(mask, torch.Tensor) and mask.ndim == 2 for mask in masks):
            return False
        return len({mask.shape[1] for mask in masks}) == 1 and any(not mask.all() for mask in masks)

    def check_no_none(self, dataset: Any) -> None:
        """
        Refuses a data set with None in its rows, before any is used, unless the collator can take it.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set. See [`rows_with_none`] for those that are looked through.

        Raises:
            [`DataError`]: If there is None. Says in which rows.
        """
        rows, collator = self.rows_and_collator(dataset, None)
        kept = getattr(collator, "signature_columns", None)
        for column, positions in rows_with_none(rows).items():
            if kept is not None and column not in kept:
                continue
            others = set(range(len(positions) + 1)).difference(positions)
            pair = [*([min(others)] if min(others) < len(rows) else []), positions[0]]
            seed = seed_of_batch(self.trainer.args.seed, 0)
            try:
                with all_seeded(seed):
                    _, labels = split_labels(_collated(collator, rows_at(rows, pair), seed, pair, ""))
                if labels.isnan().any():
                    raise ValueError("The format of the data set turns None into NaN.")
            except Exception as error:
                listed = ", ".join(map(str, positions[:10])) + (", ..." if len(positions) > 10 else "")
                raise DataError(
                    f"{len(positions)} of {len(rows)} rows of {self.name_of(dataset)} have None as `{column}`, or in "
                    f"it, at the positions {listed}. Give every row a value, or leave these rows out (`filter`)."
                ) from (error.__cause__ or error)

    def why_without_labels(self, dataset: Any) -> str | None:
        """
        Looks at the first row of a data set whose batches have no labels.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.

        Returns:
            `str`, *optional*: Why there are none, and what to do. `None` if the row does not show it.
        """
        name = self.name_of(dataset)
        with all_seeded(seed_of_batch(self.trainer.args.seed, 0)):
            row = next(read_stream(dataset, name)) if is_stream(dataset) else read_rows(dataset, [0], name)[0]
        rows, collator = self.rows_and_collator(dataset, None)
        kept = rows.column_names if rows is not dataset else getattr(collator, "signature_columns", None)
        if kept is not None and isinstance(row, Mapping) and LABELS in row and LABELS not in kept:
            model = type(self.trainer.model).__name__
            return (
                f"The column `{LABELS}` was left out, because `{model}.forward` takes no labels: this model has no "
                "head. Load the trained model with the auto class of its task, such as "
                "`AutoModelForSequenceClassification`. If it has a head of your own, name the column `label`, or set "
                "`label_names`."
            )
        fault = fault_of_labels(row, 0)
        return None if fault is None else f"{fault[0].upper()}{fault[1:]}."

    def rows_and_collator(self, dataset: Any, description: str | None) -> tuple[Any, Callable[[list[Any]], Any]]:
        """
        Leaves out the columns that the trainer's model does not take, in the rows if possible, else in the collator.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            description (`str`, *optional*):
                Names the data set when the trainer logs which columns it ignores.

        Returns:
            `tuple[Any, Callable]`: The rows, and the collator that makes batches of them.
        """
        collator = self.trainer.data_collator if self.collator is None else self.collator
        if isinstance(dataset, datasets.Dataset):
            return self.trainer._remove_unused_columns(dataset, description), collator
        return dataset, self.trainer._get_collator_with_removed_columns(collator, description)


def _batches_of_stream(
    dataset: Any,
    batch_size: int,
    collator: Callable[[list[Any]], Any],
    seed: int,
    is_wanted: Callable[[int], bool],
    name: str,
) -> Iterator[tuple[int, Any]]:
    rows = read_stream(dataset, name)
    for place in count():
        batch_seed = seed_of_batch(seed, place)
        with all_seeded(batch_seed):
            taken = list(islice(rows, batch_size))
            batch = None
            if taken and is_wanted(place):
                positions = range(place * batch_size, place * batch_size + len(taken))
                batch = _collated(collator, taken, batch_seed, positions, name)
        if batch is not None:
            yield place, batch
        if len(taken) < batch_size:
            return


class _SeededBatches(Dataset):
    """A data set whose items are whole batches, which workers can make in any order."""

    def __init__(
        self, dataset: Any, batch_size: int, collator: Callable[[list[Any]], Any], seed: int, name: str
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.collator = collator
        self.seed = seed
        self.name = name

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __getitem__(self, place: int) -> Mapping[str, Any] | Failure:
        first = place * self.batch_size
        indices = list(range(first, min(first + self.batch_size, len(self.dataset))))
        batch_seed = seed_of_batch(self.seed, place)
        try:
            with all_seeded(batch_seed):
                rows = read_rows(self.dataset, indices, self.name)
                return _collated(self.collator, rows, batch_seed, positions_in(self.dataset, indices), self.name)
        except DataError as error:
            if get_worker_info() is None:
                raise
            # torch would send a raised error without its cause, and with its traceback as text.
            return Failure.of(error)


def _collated(
    collator: Callable[[list[Any]], Any], rows: list[Any], batch_seed: int, positions: Sequence[int], name: str
) -> Any:
    if getattr(collator, "seed", None) is not None and hasattr(collator, "get_generator"):
        # A masking collator with a seed of its own would go on drawing from batch to batch.
        collator = copy.copy(collator)
        collator.generator = collator.get_generator(batch_seed)
    return collated(collator, rows, positions, name, getattr(collator, "signature_columns", None))


def seed_of_batch(seed: int, place: int) -> int:
    """The seed of the batch at a place, or of the epoch of that number."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


def _unchanged(batch: Any) -> Any:
    return batch
