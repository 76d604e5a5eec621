# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Turns an expression over columns into a function of a row, by walking its syntax tree. Nothing is executed."""

import ast
import io
import operator
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from .comparisons import check_comparisons, pairs_of, reads_column
from .folding import folded


Row = Mapping[str, Any]
Function = Callable[[Row], Any]

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
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_STRING_METHODS = ("startswith", "endswith", "lower", "upper", "strip", "casefold")
_MAX_SHOWN = 200
# More conditions take minutes on a large data set, and a few thousand are too many for Python.
_MAX_CONDITIONS = 1000
_TOO_LONG = (
    "is too long or too deep. Compare with a list, as in `person in (...)`, which may be of any length. Or mark the "
    "rows in a column of the data set, and pass its name as `forget_column`."
)


@dataclass(frozen=True)
class Filter:
    """
    An expression over columns.

    Args:
        shown (`str`): The expression for messages, cut if it is long.
        tree (`ast.AST`): Its syntax tree.
        columns (`list[str]`): The columns that it reads.
        matches (`Callable`): Its value for a row.
        nearly_matches (`Callable`): The same, if texts are equal that look alike.
    """

    shown: str
    tree: ast.AST
    columns: list[str]
    matches: Function
    nearly_matches: Function

    def terms(self) -> dict[str, list[Any]]:
        """The constants that each column is compared with by `==`, `!=`, `in` and `not in`, in their order."""
        found: dict[str, list[Any]] = {}
        for node in ast.walk(self.tree):
            for left, op, right in pairs_of(node) if isinstance(node, ast.Compare) else ():
                if isinstance(op, (ast.Eq, ast.NotEq)):
                    sides = [(left, [right]), (right, [left])]
                elif isinstance(op, (ast.In, ast.NotIn)):
                    sides = [(left, getattr(right, "elts", []))]
                else:
                    continue
                for column, items in sides:
                    if isinstance(column, ast.Name):
                        constants = [item.value for item in items if isinstance(item, ast.Constant)]
                        found.setdefault(column.id, []).extend(value for value in constants if value is not None)
        return found

    def negated_columns(self) -> set[str]:
        """The columns below `!=`, `not in` or `not`, unless the expression asks somewhere whether there is a value."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            match node:
                case ast.Constant(value=None):
                    return set()
                case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]) if ast.dump(
                    left
                ) == ast.dump(right):
                    return set()
                case ast.Compare(ops=[ast.NotEq() | ast.NotIn()]) | ast.UnaryOp(op=ast.Not()):
                    names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return names

    def texts_in_columns(self) -> list[Function]:
        """The texts that are looked for in the text of a column, as functions of a row."""
        return [
            _compile(left, _refuse_nothing)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Compare)
            for left, op, right in pairs_of(node)
            if isinstance(op, ast.In) and not isinstance(right, (ast.Tuple, ast.List, ast.Set)) and reads_column(left)
        ]


def compile_filter(expression: str, features: Mapping[str, Any]) -> Filter:
    """
    Reads and checks an expression over columns.

    Args:
        expression (`str`):
            See `forget_filter` of [`DataArguments`].
        features (`Mapping[str, Any]`):
            The columns that exist, with their types.

    Returns:
        [`Filter`]

    Raises:
        `ValueError`: If it is not an expression, if it names another column, if it uses anything that is not allowed
            there, or if a comparison means something else than it looks like.
    """
    shown = f"`forget_filter={_cut(expression)!r}`"

    def refuse(node: ast.AST, why: str) -> NoReturn:
        raise ValueError(f"{shown} holds `{_cut(ast.unparse(node))}`, which {why}")

    try:
        tree = _parsed(expression.strip(), shown)
        _check_size(tree, shown)
        used = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
        for name in used:
            if name not in features:
                raise ValueError(
                    f"{shown} names {name!r}, and the columns are {', '.join(features)}. Put text constants in "
                    "quotation marks."
                )
        if not used:
            raise ValueError(
                f"{shown} names no column, so it has the same value for every row. The columns are "
                f"{', '.join(features)}."
            )
        _check_commas(expression.strip(), shown)
        exact = _compile(tree, partial(_not_understood, refuse))
        check_comparisons(tree, features, refuse)
        return Filter(shown, tree, used, exact, _compile(tree, _refuse_nothing, loose=True))
    except (RecursionError, MemoryError):
        raise ValueError(f"{shown} {_TOO_LONG}") from None


def _parsed(expression: str, shown: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError) as error:
        if "too many nested" in str(error):
            raise MemoryError from None
        is_one_sign = "=" in expression and not any(sign in expression for sign in ("==", "!=", "<=", ">="))
        hint = " Equal is written `==`." if is_one_sign else ""
        raise ValueError(f"{shown} is not an expression: {error.args[0]}.{hint}") from None


def _check_size(tree: ast.expr, shown: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp) and len(node.values) > _MAX_CONDITIONS:
            raise ValueError(
                f"{shown} joins {len(node.values)} conditions, and at most {_MAX_CONDITIONS} are read: it {_TOO_LONG}"
            )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _check_commas(expression: str, shown: str) -> None:
    """Refuses two texts side by side, which Python joins into one."""
    before = None
    for token in tokenize.generate_tokens(io.StringIO(expression).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if token.type == before == tokenize.STRING:
            raise ValueError(
                f"{shown} has two texts side by side at character {token.start[1]} of line {token.start[0]}, which "
                "Python joins into one text. Put a comma between them, or write them as one."
            )
        before = token.type


def _not_understood(refuse: Callable[[ast.AST, str], NoReturn], node: ast.AST) -> NoReturn:
    hint = " Write `and` and `or`." if isinstance(getattr(node, "op", None), (ast.BitAnd, ast.BitOr)) else ""
    refuse(
        node,
        "is not understood. Use only comparisons, and, or, not, in, arithmetic, constants, and the string methods "
        f"{', '.join(_STRING_METHODS)}.{hint}",
    )


def _refuse_nothing(node: ast.AST) -> NoReturn:
    raise AssertionError(node)


def _compile(node: ast.AST, refuse: Callable[[ast.AST], NoReturn], *, loose: bool = False) -> Function:
    def compiled(nodes: Iterable[ast.AST]) -> list[Function]:
        return [_compile(item, refuse, loose=loose) for item in nodes]

    match node:
        case ast.Constant(value=value) if _is_constant(node):
            return lambda row: value
        case ast.Name(id=name):
            return lambda row: row[name]
        case ast.Tuple(elts=nodes) | ast.List(elts=nodes) | ast.Set(elts=nodes):
            if all(_is_constant(item) for item in nodes):
                # Thousands of names are not asked for one by one.
                constants = [item.value for item in nodes]
                return lambda row: constants
            items = compiled(nodes)
            return lambda row: [item(row) for item in items]
        case ast.BoolOp(op=ast.And(), values=nodes):
            conditions = compiled(nodes)
            return lambda row: all(truth(condition(row)) for condition in conditions)
        case ast.BoolOp(op=ast.Or(), values=nodes):
            conditions = compiled(nodes)
            return lambda row: any(truth(condition(row)) for condition in conditions)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            (condition,) = compiled([operand])
            return lambda row: not truth(condition(row))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            (number,) = compiled([operand])
            return lambda row: _OPERATORS[type(op)](_number(number(row)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            first, second = compiled([left, right])
            return lambda row: _OPERATORS[type(op)](_number(first(row)), _number(second(row)))
        case ast.Compare():
            values = [
                _terms(item, function)
                for item, function in zip(
                    [node.left, *node.comparators], compiled([node.left, *node.comparators]), strict=True
                )
            ]
            tests = [_test(left, op, right, loose=loose) for left, op, right in pairs_of(node)]
            return lambda row: _compare(values, tests, row)
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=arguments, keywords=[]) if (
            method in _STRING_METHODS
        ):
            text, *given = compiled([owner, *arguments])
            call = _loose_call if loose and method.endswith("with") else _call
            return lambda row: call(text(row), method, [item(row) for item in given])
    return refuse(node)


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, type(None)))


class _Terms(tuple):
    """A list of constants, in which a value is found at once."""

    def __new__(cls, items: Iterable[Any]) -> "_Terms":
        terms = super().__new__(cls, items)
        terms.values, terms.folded = frozenset(terms), frozenset(map(folded, terms))
        return terms

    def __contains__(self, value: Any) -> bool:
        try:
            return value in self.values
        except TypeError:
            # A list is equal to no constant.
            return False


def _terms(node: ast.AST, function: Function) -> Function:
    if not isinstance(node, (ast.Tuple, ast.List, ast.Set)) or reads_column(node):
        return function
    try:
        terms = _Terms(function({}))
    except TypeError:
        # Lists within the list.
        return function
    return lambda row: terms


def _test(left: ast.expr, op: ast.cmpop, right: ast.expr, *, loose: bool) -> Callable[[Any, Any], bool]:
    exact = _OPERATORS[type(op)]
    if not loose or (reads_column(left) and reads_column(right)):
        return exact
    match op:
        case ast.Eq():
            return _look_alike
        case ast.NotEq():
            return lambda value, other: not _look_alike(value, other)
        case ast.In():
            return _is_nearly_in
        case ast.NotIn():
            return lambda value, container: not _is_nearly_in(value, container)
    return exact


def _look_alike(value: Any, other: Any) -> bool:
    return value == other or (isinstance(value, str) and folded(value) == folded(other))


def _is_nearly_in(value: Any, container: Any) -> bool:
    if value in container or not isinstance(value, str):
        return value in container
    if isinstance(container, _Terms):
        return folded(value) in container.folded
    if isinstance(container, str):
        # Within longer texts, small letters belong to other words.
        return folded(value, keep_case=True, keep_edges=True) in folded(container, keep_case=True, keep_edges=True)
    return any(_look_alike(value, item) for item in container)


def _compare(values: list[Function], tests: list[Callable[[Any, Any], bool]], row: Row) -> bool:
    left = values[0](row)
    for test, value in zip(tests, values[1:], strict=True):
        right = value(row)
        if not test(left, right):
            return False
        left = right
    return True


def _call(text: Any, method: str, arguments: list[Any]) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"{method} is a method of text, but this is {type(text).__name__}")
    # str.startswith takes several prefixes as a tuple.
    return getattr(text, method)(*(tuple(item) if isinstance(item, list) else item for item in arguments))


def _loose_call(text: Any, method: str, arguments: list[Any]) -> bool:
    if _call(text, method, arguments):
        return True
    form = partial(folded, keep_case=True, keep_edges=True)
    parts = [[form(part) for part in item] if isinstance(item, list) else form(item) for item in arguments]
    return _call(folded(text, keep_case=True), method, parts)


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError(f"arithmetic takes numbers, but this is {type(value).__name__}")
    return value


def truth(value: Any) -> bool:
    """
    The value of a condition.

    Args:
        value (`Any`):
            What the expression is for a row.

    Raises:
        `TypeError`: If it is neither true nor false.
    """
    if not isinstance(value, bool) and value not in (0, 1):
        raise TypeError(f"a condition is true or false, but this is {type(value).__name__}")
    return bool(value)
