# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses comparisons of a filter that mean something else than they look like."""

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import datasets
import numpy as np
from datasets import ClassLabel, Value


_TEXT, _NUMBER, _LIST, _TIME, _BYTES = "a text", "a number", "a list", "a time", "bytes"
_KINDS = {
    **dict.fromkeys(("string", "large_string"), _TEXT),
    **dict.fromkeys(("bool", "int", "uint", "float"), _NUMBER),
    **dict.fromkeys(("timestamp", "date", "time", "duration"), _TIME),
    **dict.fromkeys(("binary", "large_binary"), _BYTES),
}
_LISTS = tuple(
    kind for name in ("Sequence", "List", "LargeList") if isinstance(kind := getattr(datasets, name, None), type)
)
_MARK = "Mark the rows in a column of the data set, and pass its name as `forget_column`."

Refusal = Callable[[ast.AST, str], NoReturn]


def reads_column(node: ast.AST) -> bool:
    """Whether a part of an expression reads a column."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(reads_column(item) for item in node.elts)
    return not isinstance(node, ast.Constant) and any(isinstance(part, ast.Name) for part in ast.walk(node))


def pairs_of(node: ast.Compare) -> Iterator[tuple[ast.expr, ast.cmpop, ast.expr]]:
    """The two sides of every comparison of a chain, with the operator between them."""
    return zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)


def check_comparisons(tree: ast.AST, features: Mapping[str, Any], refuse: Refusal) -> None:
    """
    Refuses conditions and comparisons that Python takes, and that select other rows than their author can mean.

    Args:
        tree (`ast.AST`):
            The expression.
        features (`Mapping[str, Any]`):
            The types of the columns.
        refuse (`Callable`):
            Called with a part of the expression, and with what is wrong and what to do.
    """
    for node in ast.walk(tree):
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    _check_condition(value, refuse)
            case ast.UnaryOp(op=ast.Not(), operand=value):
                _check_condition(value, refuse)
            case ast.Compare():
                _check_chain(node, refuse)
                for left, op, right in pairs_of(node):
                    _check_pair(node, left, op, right, features, refuse)
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=[argument]):
                _check_not_empty(node, argument, refuse)


def _check_condition(node: ast.AST, refuse: Refusal) -> None:
    if not reads_column(node):
        refuse(
            node,
            "stands alone as a condition, so it is true or false for every row. Repeat the column, as in "
            "`label == 1 or label == 2`, or compare with a list, as in `label in (1, 2)`.",
        )


def _check_not_empty(node: ast.AST, part: ast.AST, refuse: Refusal) -> None:
    for item in part.elts if isinstance(part, (ast.Tuple, ast.List)) else [part]:
        if isinstance(item, ast.Constant) and item.value == "":
            refuse(node, "is true for every text, because the empty text is a part of each. Leave it out.")


def _check_chain(node: ast.Compare, refuse: Refusal) -> None:
    kinds = {type(op) for op in node.ops}
    if len(node.ops) > 1 and not (kinds <= {ast.Lt, ast.LtE} or kinds <= {ast.Gt, ast.GtE}):
        refuse(
            node,
            "is a chain, and means that each comparison holds for its two neighbours: `a == b == c` is `a == b and "
            "b == c`. Write it with `and`, or put the comparison that is meant first in parentheses.",
        )


def _check_pair(
    node: ast.AST, left: ast.expr, op: ast.cmpop, right: ast.expr, features: Mapping[str, Any], refuse: Refusal
) -> None:
    if isinstance(op, (ast.Is, ast.IsNot)):
        constants = [part.value for part in (left, right) if isinstance(part, ast.Constant)]
        if not any(value is None or isinstance(value, bool) for value in constants):
            refuse(node, "asks whether both sides are one object. Use `==` or `!=`; `is` is for None, True and False.")
        return
    if isinstance(op, (ast.In, ast.NotIn)):
        _check_container(node, left, right, features, refuse)
        return
    _check_kinds(node, left, right, features, refuse)
    is_search_for_nan = isinstance(op, (ast.Eq, ast.NotEq)) and _dtype(left, features).startswith("float")
    if ast.dump(left) == ast.dump(right) and not is_search_for_nan:
        refuse(node, "has the same on both sides. Put text constants in quotation marks.")
    if isinstance(op, (ast.Eq, ast.NotEq)):
        _check_precision(node, left, right, features, refuse)


def _check_container(
    node: ast.AST, left: ast.expr, right: ast.expr, features: Mapping[str, Any], refuse: Refusal
) -> None:
    if isinstance(right, (ast.Tuple, ast.List, ast.Set)):
        # One constant of each type stands for all.
        for item in {_kind(item, features) or item: item for item in right.elts}.values():
            _check_kinds(node, left, item, features, refuse)
        for item in right.elts if _dtype(left, features).startswith("float") else ():
            _check_precision(node, left, item, features, refuse)
        return
    if not reads_column(right):
        refuse(
            node,
            f"has no list behind `in`. Within one text, `in` searches for a part of it: every shorter text in it and "
            f"the empty text are selected too. A list of one has a comma: `({ast.unparse(right)},)`.",
        )
    _check_not_empty(node, left, refuse)
    kind = _kind(right, features)
    if kind == _TEXT:
        _check_kinds(node, left, right, features, refuse)
    elif kind == _LIST and isinstance(right, ast.Name):
        inner = getattr(features[right.id], "feature", None)
        if _differ(found := _kind(left, features), expected := _kind_of_feature(inner)):
            refuse(node, f"looks for {found} in lists of which each item is {expected}, so it is never there. {_MARK}")
    elif kind is not None:
        refuse(node, f"looks for something in {kind}. Write a list, as in `label in (1, 2)`.")


def _check_kinds(node: ast.AST, left: ast.expr, right: ast.expr, features: Mapping[str, Any], refuse: Refusal) -> None:
    kinds = _kind(left, features), _kind(right, features)
    if not _differ(*kinds):
        return
    column, constant = (left, right) if reads_column(left) else (right, left)
    remedy = _MARK
    if _LIST in kinds:
        remedy = "Compare with `in`."
    elif {_TEXT, _NUMBER} == set(kinds) and not reads_column(constant):
        is_text = _kind(constant, features) == _TEXT
        remedy = "Leave the quotation marks out." if is_text else "Put the constant in quotation marks."
        feature = features[column.id] if isinstance(column, ast.Name) else None
        if isinstance(feature, ClassLabel):
            remedy = f"Use the number of the class.{class_names(column.id, feature)}"
        elif is_text and _dtype(column, features) == "bool":
            remedy = "Use True or False, without quotation marks."
    refuse(node, f"compares {kinds[0]} with {kinds[1]}, which are never equal. {remedy}")


def _check_precision(
    node: ast.AST, left: ast.expr, right: ast.expr, features: Mapping[str, Any], refuse: Refusal
) -> None:
    for column, constant in ((left, right), (right, left)):
        dtype = _dtype(column, features)
        if dtype not in ("float16", "float32") or not isinstance(constant, ast.Constant):
            continue
        with np.errstate(over="ignore"):
            nearest = float(np.dtype(dtype).type(constant.value)) if isinstance(constant.value, float) else None
        if nearest is not None and nearest != constant.value:
            refuse(
                node,
                f"compares a column of {dtype} with {constant.value!r}, which is no number of this type, so they are "
                f"never equal. The nearest is {nearest!r}; a range such as `0.09 < score < 0.11` is safer.",
            )


def class_names(column: str, feature: ClassLabel) -> str:
    """A sentence about the classes whose numbers a column holds."""
    names = ", ".join(f"{number} {name}" for number, name in enumerate(feature.names))
    return f" The column {column!r} holds the numbers of classes: {names}."


def _differ(kind: str | None, other: str | None) -> bool:
    return None not in (kind, other) and kind != other


def _dtype(node: ast.AST, features: Mapping[str, Any]) -> str:
    feature = features[node.id] if isinstance(node, ast.Name) else None
    return feature.dtype if isinstance(feature, Value) else ""


def _kind(node: ast.AST, features: Mapping[str, Any]) -> str | None:
    """What a part of an expression is for every row that has a value; `None` if that is not known."""
    match node:
        case ast.Constant(value=str()):
            return _TEXT
        case ast.Constant(value=bool() | int() | float()):
            return _NUMBER
        case ast.Name(id=name):
            return _kind_of_feature(features[name])
        case ast.Tuple() | ast.List() | ast.Set():
            return _LIST
        case ast.Call(func=ast.Attribute(attr=method)):
            return _NUMBER if method.endswith("with") else _TEXT
        case ast.BinOp() | ast.UnaryOp() | ast.Compare():
            return _NUMBER
    return None


def _kind_of_feature(feature: Any) -> str | None:
    if isinstance(feature, ClassLabel):
        return _NUMBER
    if isinstance(feature, (list, *_LISTS)):
        return _LIST
    dtype = feature.dtype if isinstance(feature, Value) else ""
    return _KINDS.get(dtype.partition("[")[0].rstrip("0123456789"))
