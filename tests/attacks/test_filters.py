# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Filters that select other rows than their author can mean, without a word."""

import time

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_deepclean import DataArguments, split_forget_rows
from hf_deepclean.data.filters import forget_rows


PERSONS = ["Ada Smith", "Ada", "Smith", "", "Jose\u0301", "Bob ", "Zoe", "O\u2019Neil", None, "Cy"]
FEATURES = Features(
    {
        "person": Value("string"),
        "text": Value("string"),
        "code": Value("string"),
        "label": ClassLabel(names=["chess", "golf"]),
        "age": Value("int64"),
        "score": Value("float32"),
        "private": Value("bool"),
        "day": Value("timestamp[s]"),
        "tags": List(Value("int64")),
    }
)


def table():
    size = len(PERSONS)
    return Dataset.from_dict(
        {
            "person": PERSONS,
            "text": [f"{person}, at home" for person in PERSONS],
            "code": [str(number) for number in range(size)],
            "label": [number % 2 for number in range(size)],
            "age": [*range(20, 20 + size - 1), None],
            "score": [0.1 * number for number in range(size - 1)] + [float("nan")],
            "private": [number % 3 == 0 for number in range(size)],
            "day": [np.datetime64("2020-01-01", "s")] * size,
            "tags": [[number, number + 1] for number in range(size)],
        },
        features=FEATURES,
    )


def split(expression):
    return split_forget_rows(table(), DataArguments(forget_filter=expression))[0]["code"][:]


# Each with what its message must say.
REFUSED = {
    "person in ('Ada Smith')": r"A list of one has a comma: `('Ada Smith',)`",
    "person in 'Ada Smith'": "has a comma",
    "person not in ('Ada')": "has a comma",
    "label == 1 and person in ('Ada')": "has a comma",
    "not person in (('Ada Smith'))": "has a comma",
    "person in ('Ada'.lower())": "has a comma",
    "age in (20)": "has a comma: `(20,)`",
    "person in ('Ada' 'Smith')": "two texts side by side at character 17",
    "person in ['Cy', 'Ada'\n'Smith', 'Zoe']": "side by side at character 0 of line 2",
    "person == 'Ada' 'Smith'": "side by side",
    "age == 20 or 21": "stands alone as a condition",
    "age == 20 or 1": "stands alone as a condition",
    "age == 20 and 1": "stands alone as a condition",
    "person == ('Ada' or 'Smith')": "stands alone as a condition",
    "person == 'Ada' and not 0": "stands alone as a condition",
    "age == 20 == True": "is a chain",
    "person == 'Ada' != private": "is a chain",
    "20 <= age < 23 in (1, 2)": "is a chain",
    "person == person": "the same on both sides",
    "age < age": "the same on both sides",
    "person is 'Ada'": "Use `==`",
    "age is not 20": "Use `==`",
    "'' in person": "the empty text is a part of each",
    "text.startswith(('', 'Ada'))": "the empty text is a part of each",
    "code == 3": "Put the constant in quotation marks",
    "code != 3": "Put the constant in quotation marks",
    "code in ('3', 4)": "Put the constant in quotation marks",
    "code not in (3,)": "Put the constant in quotation marks",
    "code.strip() == 3": "Put the constant in quotation marks",
    "age == '20'": "Leave the quotation marks out",
    "age > '20'": "Leave the quotation marks out",
    "private == 'true'": "Use True or False",
    "label == 'golf'": "holds the numbers of classes: 0 chess, 1 golf",
    "code == age": "never equal",
    "day == '2020-01-01'": "pass its name as `forget_column`",
    "tags == 3": "Compare with `in`",
    "'3' in tags": "it is never there",
    "person == ('Ada', 'Smith')": "Compare with `in`",
    "score == 0.1": "The nearest is 0.10000000149011612",
    "score in (0.5, 0.1)": "no number of this type",
    "person = 'Ada'": "Equal is written `==`",
    "(age == 20) | (age == 21)": "Write `and` and `or`",
}  # fmt: skip


def test_a_filter_that_means_something_else_than_it_looks_like_is_refused_with_what_to_write(attack):
    got_through = {}
    for expression, message in REFUSED.items():
        try:
            split(expression)
        except ValueError as error:
            got_through[expression] = message not in str(error)
        else:
            got_through[expression] = True
    assert attack("a filter that means something else than it looks like is refused", got_through) == []


@pytest.fixture
def told(monkeypatch):
    """The warnings of a filter."""
    found = []
    monkeypatch.setattr(forget_rows.logger, "warning", found.append)
    return found


TOLD = {
    "person == 'José' or person == 'Ada'": ("1 of 10 rows are not selected because their text differs", "positions 4"),
    "person in ('Bob', 'Ada')": ("1 of 10 rows are not selected because", "positions 5"),
    "person == 'ada'  or age == 28": ("1 of 10 rows are not selected", "positions 1"),
    "person in (\"O'Neil\", 'Ada')": ("1 of 10 rows are not selected", "positions 7"),
    "person in ('Zo\u200be', 'Ada')": ("1 of 10 rows are not selected", "positions 6"),
    "person in ('Ada\u00a0 Smith', 'Ada')": ("1 of 10 rows are not selected", "positions 0"),
    "person != None and person not in ('Bob', 'Ada')": ("1 of 10 rows are selected because", "positions 5"),
    "'José' in text or age == 20": ("1 of 10 rows are not selected", "positions 4"),
    "text.startswith('José') or age == 20": ("1 of 10 rows are not selected", "positions 4"),
    "person in ('Ada', 'Adda', 'Smith', 'Bop')": ("2 of the 4 constants that 'person' is compared with", "2, 4"),
    "age == 20 or age == 99": ("1 of the 2 constants that 'age' is compared with are in no row", "order: 2"),
    "person != 'Ada'": ("1 of the 9 selected rows have no value in 'person'", "positions 8"),
    "not score < 0.5": ("1 of the 5 selected rows have no value in 'score'", "positions 9"),
    "not age == 20": ("1 of the 9 selected rows have no value in 'age'", "positions 9"),
    "person != None and person in text and label == 1": ("1 of the 5 selected rows match because the empty", "3"),
}  # fmt: skip


def test_rows_that_a_filter_may_have_missed_are_counted_and_told_without_their_values(attack, told):
    got_through = {}
    for expression, parts in TOLD.items():
        told.clear()
        split(expression)
        got_through[expression] = not any(all(part in message for part in parts) for message in told)
    assert attack("what a filter may have missed is told", got_through) == []


@pytest.mark.parametrize(
    "expression",
    [
        "person in ('Ada', 'Zoe')",
        "person != None and 'Smith' in person",
        "person != None and person != '' and person in text",
        "person != None and person != 'Ada'",
        "age != None and 20 <= age < 23",
        "score != score",
        "3 in tags",
        "label == 1 and private",
        "score == 0.5 or age == 21",
        "person is None or private is True",
        "person != None and person.strip().casefold() in ('bob', 'ada')",
        "text == 'Cy, at home' # a name",
    ],
)
def test_a_filter_that_means_what_it_looks_like_is_taken_without_a_word(expression, told):
    try:
        split(expression)
    except ValueError as error:
        # Only that nothing is left or chosen.
        assert "selects none" in str(error)
    assert told == []


def test_nothing_that_is_long_or_deep_ends_in_a_traceback(attack):
    names = [f"'name {number}'" for number in range(3000)]
    long = {
        "3,000 comparisons": " or ".join(f"person == {name}" for name in names),
        "3,000 exclusions": " and ".join(f"person != {name}" for name in names),
        "nested comparisons": "(" * 150 + "person == 'Ada'" + ")" * 150 + "".join(f" or person == {n}" for n in names),
        "parentheses": "(" * 3000 + "person == 'Ada'" + ")" * 3000,
        "negations": "not " * 3000 + "private",
        "negations that Python reads": "not " * 400 + "private",
        "signs": "-" * 5000 + "age == 1",
        "a sum": "+".join(["age"] * 3000) + " == 1",
        "a chain of methods": "person" + ".lower()" * 3000 + " == 'ada'",
        "a number": "age == " + "9" * 10_000,
        "half of a letter": "person == '\ud800'",
        "no letter": "person == '\0'",
    }
    got_through = {}
    for name, expression in long.items():
        try:
            split(expression)
        except ValueError as error:
            got_through[name] = len(str(error)) > 1000
        except BaseException:
            got_through[name] = True
        else:
            got_through[name] = False
    assert attack("a long filter gives a short message", got_through) == []
    with pytest.raises(ValueError, match="joins 3000 conditions.*person in .*forget_column"):
        split(long["3,000 comparisons"])


def test_a_list_of_thousands_is_found_at_once():
    size = 6000
    dataset = Dataset.from_dict({"person": [f"name {number}" for number in range(size)]})
    expression = f"person in ({', '.join(repr(f'name {number}') for number in range(0, size, 2))})"
    start = time.process_time()
    forget, retain = split_forget_rows(dataset, DataArguments(forget_filter=expression))
    assert time.process_time() - start < 5
    assert forget["person"][:] == [f"name {number}" for number in range(0, size, 2)] and len(retain) == size // 2
    numbers = Dataset.from_dict({"x": [0, 1, 2, 3]})
    for expression in ("x in (True, 2.0)", "x in (1.0, 2)", "x in (1, 2, None)"):
        assert split_forget_rows(numbers, DataArguments(forget_filter=expression))[0]["x"][:] == [1, 2]
