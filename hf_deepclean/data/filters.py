# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the rows to forget, by an expression over the columns or by a column that marks them."""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from datasets import ClassLabel, Dataset
from datasets.utils import tqdm

from .arguments import DataArguments, refuse_without_forget_rule
from .progress_bars import progress_bars_on_main_process


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


def split_forget_rows(dataset: Dataset, arguments: DataArguments) -> tuple[Dataset, Dataset]:
    """
    Divides a data set by `forget_filter` or `forget_column`, in memory and in the order of the rows.

    Args:
        dataset ([`~datasets.Dataset`]):
            The data that the model was trained on.
        arguments ([`DataArguments`]):
            Which of its rows to forget.

    Returns:
        `tuple[Dataset, Dataset]`: The rows to forget and the rows to keep.

    Raises:
        `ValueError`: If a column does not exist, if the expression is not understood, if the column holds anything but
            true and false, or if no row or every row is to be forgotten.
    """
    if arguments.forget_column is not None:
        marks = _marks(dataset, arguments.forget_column)
        way = f"`forget_column={arguments.forget_column!r}`"
        dataset = dataset.remove_columns(arguments.forget_column)
    elif arguments.forget_filter is not None:
        marks = _matches(dataset, arguments.forget_filter)
        way = f"`forget_filter={arguments.forget_filter!r}`"
    else:
        refuse_without_forget_rule()
    count = sum(marks)
    if count in (0, len(dataset)):
        hint = "" if count or arguments.forget_filter is None else _class_names(dataset, arguments.forget_filter)
        raise ValueError(
            f"{way} selects {'every one' if count else 'none'} of the {len(dataset)} rows, but there must be rows to "
            f"forget and rows to keep.{hint}"
        )
    parts = [[row for row, mark in enumerate(marks) if mark is wanted] for wanted in (True, False)]
    forget, retain = (dataset.select(rows, keep_in_memory=True) for rows in parts)
    return forget, retain


def compile_filter(expression: str, columns: Iterable[str]) -> tuple[Callable[[Mapping[str, Any]], Any], list[str]]:
    """
    Turns an expression over columns into a function of a row, by walking its syntax tree. Nothing is executed.

    Args:
        expression (`str`):
            See `forget_filter` of [`DataArguments`].
        columns (`Iterable[str]`):
            The columns that exist.

    Returns:
        `tuple[Callable, list[str]]`: The function, and the columns that it reads.

    Raises:
        `ValueError`: If it is not an expression, if it names another column, or if it uses anything that is not
            allowed there.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"`forget_filter={expression!r}` is not an expression: {error.args[0]}.") from None
    columns = list(columns)
    used = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    for name in used:
        if name not in columns:
            raise ValueError(
                f"`forget_filter={expression!r}` names {name!r}, and the columns are {', '.join(columns)}. Put text "
                "constants in quotation marks."
            )

    def refuse(node: ast.AST) -> Any:
        raise ValueError(
            f"`forget_filter={expression!r}` holds `{ast.unparse(node)}`, which is not understood. Use only "
            "comparisons, and, or, not, in, arithmetic, constants, and the string methods "
            f"{', '.join(_STRING_METHODS)}."
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
        raise TypeError(f"{method} is a method of text, but this is {type(text).__name__}")
    # str.startswith takes several prefixes as a tuple.
    return getattr(text, method)(*(tuple(item) if isinstance(item, list) else item for item in arguments))


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError(f"arithmetic takes numbers, but this is {type(value).__name__}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool) and value not in (0, 1):
        raise TypeError(f"a condition is true or false, but this is {type(value).__name__}")
    return bool(value)


def _matches(dataset: Dataset, expression: str) -> list[bool]:
    function, used = compile_filter(expression, dataset.column_names)
    if not used:
        raise ValueError(
            f"`forget_filter={expression!r}` names no column, so it has the same value for every row. The columns are "
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
                    "Exclude rows without a value first, as in `age != None and age > 30`."
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
            f"{len(marks)} rows hold something else ({dataset.features[column]}). Use `forget_filter` instead, as in "
            f"`{column} == ...`."
        )
    return [bool(mark) for mark in marks]


def _class_names(dataset: Dataset, expression: str) -> str:
    _, used = compile_filter(expression, dataset.column_names)
    features = {name: dataset.features[name] for name in used if isinstance(dataset.features[name], ClassLabel)}
    named = {name: ", ".join(f"{n} {label}" for n, label in enumerate(f.names)) for name, f in features.items()}
    return "".join(f" The column {name!r} holds the numbers of classes: {classes}." for name, classes in named.items())
