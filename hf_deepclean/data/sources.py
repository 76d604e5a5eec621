# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets from the Hub or from files, and which of their rows are to be forgotten."""

import ast
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, NoReturn

import datasets
from datasets import ClassLabel, Dataset, DatasetDict
from datasets.utils import tqdm
from pyarrow import ArrowInvalid


_FORMATS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
    ".arrow": ("arrow", {}),
}

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_STRING_METHODS = ("startswith", "endswith", "lower", "upper", "strip", "casefold")


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
            _refuse_no_way()


def load_unlearning_datasets(arguments: DataArguments) -> dict[str, Dataset]:
    """
    Loads the data sets of an unlearning run.

    Local files are read into memory through a temporary cache that is deleted before this returns, and folders
    written by `save_to_disk` into memory at once: no copy of their rows stays on the disk. A data set from the Hub
    stays where `datasets` and `huggingface_hub` keep downloads; delete it there if the rows to forget must not lie on
    this machine.

    Args:
        arguments ([`DataArguments`]):
            Which data.

    Returns:
        `dict[str, Dataset]`: Under `"forget"` and `"retain"`, and where given `"eval"` and `"unseen"`.

    Raises:
        `FileNotFoundError`: If there is no such file or data set, or the Hub cannot be reached.
        `ValueError`: If a split or column does not exist, or the rows to forget are none or all.
    """
    if arguments.dataset_name is None:
        raise ValueError("`dataset_name` is missing: a Hub id, a folder or a file.")
    names = {"eval": arguments.eval_split, "unseen": arguments.unseen_split}
    if arguments.forget_split is not None:
        names |= {"forget": arguments.forget_split, "retain": arguments.retain_split}
    else:
        names["train"] = arguments.train_split
    wanted = {part: name for part, name in names.items() if name is not None}
    splits = load_splits(arguments.dataset_name, wanted, arguments.dataset_config_name)
    if "train" in splits:
        splits["forget"], splits["retain"] = split_forget_rows(splits.pop("train"), arguments)
    return {part: splits[part] for part in ("forget", "retain", "eval", "unseen") if part in splits}


def split_forget_rows(dataset: Dataset, arguments: DataArguments) -> tuple[Dataset, Dataset]:
    """
    Divides a data set by `forget_filter` or `forget_column`, in memory; the order of the rows stays.

    Args:
        dataset ([`~datasets.Dataset`]):
            The data the model was trained on.
        arguments ([`DataArguments`]):
            Which of its rows are to be forgotten.

    Returns:
        `tuple[Dataset, Dataset]`: The rows to forget and those to keep.

    Raises:
        `ValueError`: If a column does not exist, the expression is none that is understood, the column marks rows by
            anything but true and false, or if no row or every row is to be forgotten.
    """
    if arguments.forget_column is not None:
        marks = _marks(dataset, arguments.forget_column)
        way = f"`forget_column={arguments.forget_column!r}`"
        dataset = dataset.remove_columns(arguments.forget_column)
    elif arguments.forget_filter is not None:
        marks = _matches(dataset, arguments.forget_filter)
        way = f"`forget_filter={arguments.forget_filter!r}`"
    else:
        _refuse_no_way()
    count = sum(marks)
    if count in (0, len(dataset)):
        hint = "" if count or arguments.forget_filter is None else _class_names(dataset, arguments.forget_filter)
        raise ValueError(
            f"{way} selects {'every one' if count else 'none'} of the {len(dataset)} rows; both the rows to forget "
            f"and the rows to keep must be some.{hint}"
        )
    parts = [[row for row, mark in enumerate(marks) if mark is wanted] for wanted in (True, False)]
    forget, retain = (dataset.select(rows, keep_in_memory=True) for rows in parts)
    return forget, retain


def compile_filter(expression: str, columns: Iterable[str]) -> tuple[Callable[[Mapping[str, Any]], Any], list[str]]:
    """
    Makes a function of a row from an expression over its columns, by walking its syntax tree; nothing is executed.

    Args:
        expression (`str`):
            See `forget_filter` of [`DataArguments`].
        columns (`Iterable[str]`):
            The columns there are.

    Returns:
        `tuple[Callable, list[str]]`: The function, and the columns that it reads.

    Raises:
        `ValueError`: If it is no expression, names another column, or holds anything else than described there.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"`forget_filter={expression!r}` is no expression: {error.args[0]}.") from None
    columns = list(columns)
    used = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    for name in used:
        if name not in columns:
            raise ValueError(
                f"`forget_filter={expression!r}` names {name!r}, and the columns are {', '.join(columns)}. Text "
                "constants stand in quotation marks."
            )

    def refuse(node: ast.AST) -> Any:
        raise ValueError(
            f"`forget_filter={expression!r}` holds `{ast.unparse(node)}`, which is not understood: only comparisons, "
            f"and, or, not, in, arithmetic, constants, and the string methods {', '.join(_STRING_METHODS)}."
        )

    return _compile(tree.body, refuse), used


def _compile(node: ast.AST, refuse: Callable[[ast.AST], Any]) -> Callable[[Mapping[str, Any]], Any]:
    def compiled(nodes: Iterable[ast.AST]) -> list[Callable[[Mapping[str, Any]], Any]]:
        return [_compile(item, refuse) for item in nodes]

    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return lambda row: value
        case ast.Name(id=name):
            return lambda row: row[name]
        case ast.Tuple(elts=nodes) | ast.List(elts=nodes) | ast.Set(elts=nodes):
            items = compiled(nodes)
            return lambda row: [item(row) for item in items]
        case ast.BoolOp(op=ast.And(), values=nodes):
            conditions = compiled(nodes)
            return lambda row: all(_truth(condition(row)) for condition in conditions)
        case ast.BoolOp(op=ast.Or(), values=nodes):
            conditions = compiled(nodes)
            return lambda row: any(_truth(condition(row)) for condition in conditions)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            (condition,) = compiled([operand])
            return lambda row: not _truth(condition(row))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            (number,) = compiled([operand])
            return lambda row: _OPERATORS[type(op)](_number(number(row)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            first, second = compiled([left, right])
            return lambda row: _OPERATORS[type(op)](_number(first(row)), _number(second(row)))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = compiled([left, *comparators])
            return lambda row: _compare(values, ops, row)
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=arguments, keywords=[]) if (
            method in _STRING_METHODS
        ):
            text, *given = compiled([owner, *arguments])
            return lambda row: _call(text(row), method, [item(row) for item in given])
    return refuse(node)


def _compare(values: list[Callable[[Mapping[str, Any]], Any]], ops: list[ast.cmpop], row: Mapping[str, Any]) -> bool:
    left = values[0](row)
    for op, value in zip(ops, values[1:], strict=True):
        right = value(row)
        if not _OPERATORS[type(op)](left, right):
            return False
        left = right
    return True


def _call(text: Any, method: str, arguments: list[Any]) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"{method} is a method of text, and this is {type(text).__name__}")
    # A list of prefixes is a tuple to str.startswith.
    return getattr(text, method)(*(tuple(item) if isinstance(item, list) else item for item in arguments))


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError(f"arithmetic takes numbers, and this is {type(value).__name__}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool) and value not in (0, 1):
        raise TypeError(f"a condition is true or false, and this is {type(value).__name__}")
    return bool(value)


def _matches(dataset: Dataset, expression: str) -> list[bool]:
    function, used = compile_filter(expression, dataset.column_names)
    if not used:
        raise ValueError(
            f"`forget_filter={expression!r}` names no column, so it is the same for every row. The columns are "
            f"{', '.join(dataset.column_names)}."
        )
    rows = dataset.with_format(None).select_columns(used)
    marks = []
    with progress_bars_on_main_process():
        for position, row in enumerate(tqdm(rows, desc="filtering", leave=False)):
            try:
                marks.append(_truth(function(row)))
            except (TypeError, ZeroDivisionError) as error:
                raise ValueError(
                    f"`forget_filter={expression!r}` cannot be evaluated for the row at position {position}: {error}. "
                    "Rows without a value can be left out first, as in `age != None and age > 30`."
                ) from None
    return marks


def _marks(dataset: Dataset, column: str) -> list[bool]:
    if column not in dataset.column_names:
        raise ValueError(f"`forget_column` is {column!r}, and the columns are {', '.join(dataset.column_names)}.")
    marks = dataset.with_format(None)[column][:]
    wrong = sum(mark is None or mark not in (0, 1) for mark in marks)
    if wrong:
        raise ValueError(
            f"The column {column!r} of `forget_column` must be true or false (or 1 or 0) in every row; {wrong} of "
            f"{len(marks)} rows hold something else ({dataset.features[column]}). Say it by `forget_filter`, as in "
            f"`{column} == ...`."
        )
    return [bool(mark) for mark in marks]


def _class_names(dataset: Dataset, expression: str) -> str:
    _, used = compile_filter(expression, dataset.column_names)
    features = {name: dataset.features[name] for name in used if isinstance(dataset.features[name], ClassLabel)}
    named = {name: ", ".join(f"{n} {label}" for n, label in enumerate(f.names)) for name, f in features.items()}
    return "".join(f" The column {name!r} holds the numbers of classes: {classes}." for name, classes in named.items())


def _refuse_no_way() -> NoReturn:
    raise ValueError(
        "Nothing says what to forget. Give `forget_filter` (an expression over the columns), `forget_column` (a "
        "column that marks rows), or `forget_split` and `retain_split`."
    )


def load_splits(name: str, splits: Mapping[str, str], config_name: str | None = None) -> dict[str, Dataset]:
    """
    Loads splits of a data set, as [`load_unlearning_datasets`] does.

    Args:
        name (`str`):
            See `dataset_name` of [`DataArguments`].
        splits (`dict[str, str]`):
            Splits, or slices of splits, by the keys of the result.
        config_name (`str`, *optional*):
            Configuration of a data set on the Hub.

    Raises:
        `FileNotFoundError`: If there is no such file or data set, or the Hub cannot be reached.
        `ValueError`: If a split does not exist.
    """
    path = Path(name)
    if path.is_dir() and any((path / marker).exists() for marker in ("dataset_dict.json", "state.json")):
        saved = datasets.load_from_disk(name, keep_in_memory=True)
        saved = saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})
        _check_splits(name, saved, splits)
        return {part: _slice(saved, split) for part, split in splits.items()}
    files = [file for file in sorted(glob(name)) if Path(file).is_file()]
    if not files and not path.is_dir():
        return _load_hub_splits(name, splits, config_name)
    with tempfile.TemporaryDirectory() as cache, progress_bars_on_main_process():
        if files:
            kind, options = _format(name, files)
            builder = datasets.load_dataset_builder(kind, data_files=files, cache_dir=cache, **options)
        else:
            builder = datasets.load_dataset_builder(name, config_name, cache_dir=cache)
        return _prepare(builder, name, splits, in_memory=True)


def _load_hub_splits(name: str, splits: Mapping[str, str], config_name: str | None) -> dict[str, Dataset]:
    if Path(name).suffix in _FORMATS or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"`dataset_name` is {name!r}, and there is no such file or folder.")
    try:
        builder = datasets.load_dataset_builder(name, config_name)
        with progress_bars_on_main_process():
            return _prepare(builder, name, splits, in_memory=False)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        offline = "; offline mode is on (HF_HUB_OFFLINE)" if datasets.config.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"`dataset_name` is {name!r}: no such file or folder is here, and it could not be loaded from the Hub"
            f"{offline} ({type(error).__name__}). Check the name and the network, or pass a file or a folder."
        ) from None


def _prepare(builder: Any, name: str, splits: Mapping[str, str], *, in_memory: bool) -> dict[str, Dataset]:
    try:
        builder.download_and_prepare()
    except (datasets.exceptions.DatasetGenerationError, ArrowInvalid) as error:
        # The cause may quote rows.
        raise ValueError(
            f"The files of {name!r} could not be read ({type(error.__cause__ or error).__name__}): one of them is "
            "damaged, or its rows do not all have the same columns."
        ) from None
    _check_splits(name, builder.info.splits, splits)
    return {part: builder.as_dataset(split=split, in_memory=in_memory) for part, split in splits.items()}


def _format(pattern: str, files: list[str]) -> tuple[str, dict[str, str]]:
    suffixes = {Path(file).suffix for file in files}
    if len(suffixes) > 1 or not suffixes <= _FORMATS.keys():
        raise ValueError(
            f"`dataset_name` is {pattern!r}, and files of the formats {', '.join(sorted(suffixes)) or 'none'} were "
            f"found. Pass files of one of the formats {', '.join(_FORMATS)}."
        )
    return _FORMATS[suffixes.pop()]


def _check_splits(name: str, known: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    for split in wanted.values():
        for part in split.split("+"):
            if part.partition("[")[0] not in known:
                raise ValueError(f"The data set {name!r} has no split {split!r}; it has {', '.join(known)}.")


def _slice(splits: DatasetDict, split: str) -> Dataset:
    if split in splits:
        return splits[split]
    sizes = {name: len(dataset) for name, dataset in splits.items()}
    parts = []
    for part in datasets.ReadInstruction.from_spec(split).to_absolute(sizes):
        end = sizes[part.splitname] if part.to is None else part.to
        parts.append(splits[part.splitname].select(range(part.from_ or 0, end), keep_in_memory=True))
    return datasets.concatenate_datasets(parts)


@contextmanager
def progress_bars_on_main_process() -> Iterator[None]:
    """Progress bars of `datasets` only where this is the first of several processes."""
    if int(os.environ.get("RANK", 0)) == 0 or datasets.utils.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
