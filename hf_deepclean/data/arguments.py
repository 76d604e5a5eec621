# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Which data set to load, and which of its rows to forget."""

from dataclasses import dataclass, field
from typing import NoReturn


@dataclass
class DataArguments:
    """
    The data set to load, and which of its rows to forget.

    Choose the rows to forget in one of three ways: by `forget_split` with `retain_split`, by `forget_filter`, or by
    `forget_column`. The last two divide `train_split`.

    Args:
        dataset_name (`str`, *optional*):
            Id of a data set on the Hub; a folder of files, or one written by `save_to_disk`; or a csv, tsv, json,
            jsonl, parquet, txt or arrow file, or a pattern such as `"data/*.csv"`. By default the caller's own example
            data.
        dataset_config_name (`str`, *optional*):
            Configuration of a data set on the Hub.
        train_split (`str`, *optional*, defaults to `"train"`):
            The split the model was trained on. All splits may be slices, such as `"train[:80%]"`.
        forget_split (`str`, *optional*):
            The split to forget.
        retain_split (`str`, *optional*):
            The split to keep, beside `forget_split`.
        forget_filter (`str`, *optional*):
            An expression over the columns that is true for the rows to forget, such as `'label == 3'` or
            `'person in ("Ada", "Bob") and not text.startswith("From:")'`. It may use comparisons, `and`, `or`, `not`,
            `in`, arithmetic, constants, and the string methods `startswith`, `endswith`, `lower`, `upper`, `strip` and
            `casefold`. A list of one text has a comma: `person in ("Ada",)`.
        forget_column (`str`, *optional*):
            A column that is true, or 1, for the rows to forget. It is dropped afterwards.
        eval_split (`str`, *optional*):
            The split of test data.
        unseen_split (`str`, *optional*):
            The split of unseen data, for the membership attack: from the forget set's distribution, but not used to
            train the model.

    Raises:
        `ValueError`: If the rows to forget are chosen in more than one way, or if a data set is named and they are
            chosen in none.
    """

    _argument_group_name = "data"

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, folder (of files, or written by save_to_disk), file (csv, tsv, json, jsonl, parquet, txt "
            "or arrow) or pattern of files. A recipe has example data of its own for the default."
        },
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    train_split: str = field(
        default="train", metadata={"help": "Split that the model was trained on, or a slice such as 'train[:1000]'."}
    )
    forget_split: str | None = field(default=None, metadata={"help": "Split to forget; needs --retain_split."})
    retain_split: str | None = field(default=None, metadata={"help": "Split to keep; needs --forget_split."})
    forget_filter: str | None = field(
        default=None,
        metadata={
            "help": "Expression over the columns of the train split that is true for the rows to forget, such as "
            "'label == 3' or 'person in (\"Ada\", \"Bob\")'. All other rows are kept."
        },
    )
    forget_column: str | None = field(
        default=None,
        metadata={"help": "Column of the train split that is true, or 1, for the rows to forget."},
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of test data."})
    unseen_split: str | None = field(
        default=None,
        metadata={
            "help": "Split of unseen data, for the membership attack: like the forget data, but not used to train the "
            "model."
        },
    )

    def __post_init__(self) -> None:
        ways = [name for name in ("forget_split", "forget_filter", "forget_column") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in ways)} each say what to forget. Give only one of them."
            )
        if (self.forget_split is None) != (self.retain_split is None):
            raise ValueError(
                "`forget_split` and `retain_split` go together, but only "
                f"`{'forget_split' if self.retain_split is None else 'retain_split'}` was given. Name both splits, or "
                "divide `train_split` by `forget_filter` or `forget_column`."
            )
        if self.forget_split is not None and self.forget_split == self.retain_split:
            raise ValueError(
                f"`forget_split` and `retain_split` are both {self.forget_split!r}, but they must not share rows. "
                "Name two different splits."
            )
        if self.dataset_name is not None and not ways:
            refuse_without_forget_rule()


def refuse_without_forget_rule() -> NoReturn:
    """Raises the error of a data set of which no row is chosen to be forgotten."""
    raise ValueError(
        "Nothing says what to forget. Give `forget_filter` (an expression over the columns), `forget_column` (a "
        "column that marks rows), or `forget_split` and `retain_split`."
    )
