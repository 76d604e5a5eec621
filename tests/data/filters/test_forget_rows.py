# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean import DataArguments, split_forget_rows
from hf_deepclean.data.filters.expressions import compile_filter
from tests.data.examples import PEOPLE, people


def forgotten(**arguments):
    forget, retain = split_forget_rows(people(), DataArguments(**arguments))
    assert sorted(forget["person"][:] + retain["person"][:]) == PEOPLE
    assert retain["person"][:] == [person for person in PEOPLE if person not in forget["person"][:]]
    return forget["person"][:]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("label == 2", ["Cy", "Fay"]),
        ('person in ("Ada", "Bob")', ["Ada", "Bob"]),
        ('person not in ["Ada", "Bob", "Cy", "Dee"]', ["Eve", "Fay"]),
        ("age != None and 30 <= age < 50", ["Bob", "Cy"]),
        ("age is None or age / 10 % 2 == 0", ["Ada", "Cy", "Eve", "Fay"]),
        ("not private and label != 2", ["Bob", "Eve"]),
        ("private", ["Ada", "Dee"]),
        ('person.lower().startswith(("a", "b"))', ["Ada", "Bob"]),
        ('"e" in person', ["Dee", "Eve"]),
        ("label == -1 + 1 * 2", ["Bob", "Eve"]),
    ],
)
def test_a_filter_selects_what_python_would(expression, expected):
    assert forgotten(forget_filter=expression) == expected
    rows = people().to_list()
    assert [row["person"] for row in rows if eval(expression, {}, row)] == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("lable == 3", "names 'lable', and the columns are person, label, age, private"),
        ("person == Ada", "names 'Ada'.*Put text constants in quotation marks"),
        ("label = 3", "is not an expression"),
        ("label ==", "is not an expression"),
        ("label == 9", r"selects none of the 6 rows.*holds the numbers of classes: 0 chess, 1 tennis, 2 golf"),
        ("label >= 0", "selects every one of the 6 rows"),
        ("1 == 1", "names no column"),
        ("age > 30", r"row at position 5: '>' not supported.*age != None and age > 30"),
        ("age", "a condition is true or false, but this is int"),
        ("label / 0 == 1", "row at position 0: division by zero"),
        ("person + 1 == 2", "arithmetic takes numbers, but this is str"),
        ("age.startswith('a')", "startswith is a method of text"),
        ("age ** 9 > 1", r"holds `age \*\* 9`, which is not understood"),
        ("person[0] == 'A'", "is not understood"),
        ("len(person) > 3", "names 'len'"),
        ("person.format('a') == 'b'", "is not understood"),
        ("person.__class__ == 1", "is not understood"),
        ("(lambda: 1)() == label", "is not understood"),
        ("[p for p in person] == label", "names 'p'"),
        ("person == f'{label}'", "is not understood"),
        ("person == b'x'", "is not understood"),
        ("__import__('os').system('true') == label", "names '__import__'"),
        ("", "is not an expression"),
    ],
)
def test_a_filter_that_is_none_or_selects_nothing_is_refused(expression, message):
    with pytest.raises(ValueError, match=message):
        split_forget_rows(people(), DataArguments(forget_filter=expression))


def test_the_message_of_a_filter_does_not_show_the_row():
    with pytest.raises(ValueError, match="position 0") as error:
        split_forget_rows(people(), DataArguments(forget_filter="person.strip() and label == 1"))
    assert "Ada" not in str(error.value)


def test_a_filter_reads_only_the_columns_that_it_names():
    compiled = compile_filter("age > 3 and not private", people().features)
    assert compiled.columns == ["age", "private"]
    assert compiled.matches({"age": 4, "private": False}) is True


def test_a_column_marks_rows_and_is_dropped():
    assert forgotten(forget_column="private") == ["Ada", "Dee"]
    forget, retain = split_forget_rows(people(), DataArguments(forget_column="private"))
    assert forget.column_names == retain.column_names == ["person", "label", "age"]
    numbers = people().add_column("forget", [0, 1, 0, 0, 0, 1])
    forget, _ = split_forget_rows(numbers, DataArguments(forget_column="forget"))
    assert forget["person"][:] == ["Bob", "Fay"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("gone", "'gone', and the columns are person"),
        ("label", "must be true or false.*2 of 6 rows hold something else"),
        ("age", "6 of 6 rows"),
        ("person", "6 of 6 rows"),
    ],
)
def test_a_column_that_marks_nothing_is_refused(column, message):
    with pytest.raises(ValueError, match=message):
        split_forget_rows(people(), DataArguments(forget_column=column))


def test_without_a_way_nothing_is_split():
    with pytest.raises(ValueError, match="Nothing says what to forget"):
        split_forget_rows(people(), DataArguments())
