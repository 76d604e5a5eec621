# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Which data set to load, and which of its rows to forget."""

from dataclasses import dataclass, field
from typing import NoReturn


@dataclass
class DataArguments:
    """
    Which data, and which of its rows are to be forgotten.

    There are three ways to say the latter, of which one is used: `forget_split` with `retain_split`, `forget_filter`,
    or `forget_column`; the last two divide `train_split`.

    Args:
        dataset_name (`str`, *optional*):
            Id of a data set on the Hub; a folder of files, or written by `save_to_disk`; or a csv, tsv, json, jsonl,
            parquet, txt or arrow file, or a pattern such as `"data/*.csv"`. By default the caller's own example data.
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
            `'person in ("Ada", "Bob") and not text.startswith("From:")'`: comparisons, `and`, `or`, `not`, `in`,
            arithmetic, constants, and the string methods `startswith`, `endswith`, `lower`, `upper`, `strip` and
            `casefold`.
        forget_column (`str`, *optional*):
            A column that is true, or 1, for the rows to forget. It is dropped afterwards.
        eval_split (`str`, *optional*):
            Test data.
        unseen_split (`str`, *optional*):
            Data of the forget set's distribution that the model was not trained on, for the membership attack.

    Raises:
        `ValueError`: If what to forget is said in more than one way, or of a named data set in none.
    """

    _argument_group_name = "data"

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, folder (of files, or by save_to_disk), or csv, tsv, json, jsonl, parquet, txt or arrow "
            "file or pattern of files; without it the recipe's own example data."
        },
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    train_split: str = field(
        default="train", metadata={"help": "Split that the model was trained on; slices as in 'train[:1000]' work."}
    )
    forget_split: str | None = field(default=None, metadata={"help": "Split to forget, with --retain_split."})
    retain_split: str | None = field(default=None, metadata={"help": "Split to keep, with --forget_split."})
    forget_filter: str | None = field(
        default=None,
        metadata={
            "help": "Expression over the columns of the train split that is true for the rows to forget, such as "
            "'label == 3' or 'person in (\"Ada\", \"Bob\")'; the others are kept."
        },
    )
    forget_column: str | None = field(
        default=None,
        metadata={"help": "Column of the train split that is true, or 1, for the rows to forget."},
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of test data."})
    unseen_split: str | None = field(
        default=None,
        metadata={"help": "Split like the forget data that the model was not trained on, for the membership attack."},
    )

    def __post_init__(self) -> None:
        ways = [name for name in ("forget_split", "forget_filter", "forget_column") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in ways)} each say what to forget; give one of them."
            )
        if (self.forget_split is None) != (self.retain_split is None):
            raise ValueError(
                "`forget_split` and `retain_split` go together, and only "
                f"`{'forget_split' if self.retain_split is None else 'retain_split'}` was given. Name both splits; or "
                "divide `train_split` by `forget_filter` or `forget_column`."
            )
        if self.forget_split is not None and self.forget_split == self.retain_split:
            raise ValueError(f"`forget_split` and `retain_split` are both {self.forget_split!r}; they share no row.")
        if self.dataset_name is not None and not ways:
            refuse_without_forget_rule()


def refuse_without_forget_rule() -> NoReturn:
    raise ValueError(
        "Nothing says what to forget. Give `forget_filter` (an expression over the columns), `forget_column` (a "
        "column that marks rows), or `forget_split` and `retain_split`."
    )
