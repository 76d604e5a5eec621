# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict

from hf_deepclean import DataArguments, load_unlearning_datasets, split_forget_rows
from hf_deepclean.data.filters import compile_filter


PEOPLE = ["Ada", "Bob", "Cy", "Dee", "Eve", "Fay"]


def people():
    features = datasets.Features(
        {
            "person": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["chess", "tennis", "golf"]),
            "age": datasets.Value("int64"),
            "private": datasets.Value("bool"),
        }
    )
    return Dataset.from_dict(
        {
            "person": PEOPLE,
            "label": [0, 1, 2, 0, 1, 2],
            "age": [20, 30, 40, 50, 60, None],
            "private": [True, False, False, True, False, False],
        },
        features=features,
    )


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
        split_forget_rows(people(), DataArguments(forget_filter="person > 3"))
    assert "Ada" not in str(error.value)


def test_a_filter_reads_only_the_columns_that_it_names():
    function, used = compile_filter("age > 3 and not private", people().column_names)
    assert used == ["age", "private"]
    assert function({"age": 4, "private": False}) is True


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forget_filter": "a == 1", "forget_column": "b"}, "`forget_filter` and `forget_column` each say"),
        ({"forget_split": "a", "retain_split": "b", "forget_column": "b"}, "`forget_split` and `forget_column`"),
        ({"forget_split": "a"}, "only `forget_split` was given"),
        ({"retain_split": "a", "forget_filter": "a == 1"}, "only `retain_split` was given"),
        ({"forget_split": "a", "retain_split": "a"}, "are both 'a'"),
        ({"dataset_name": "x"}, "Nothing says what to forget"),
    ],
)
def test_what_to_forget_is_said_in_exactly_one_way(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**arguments)


def test_without_a_way_nothing_is_split():
    with pytest.raises(ValueError, match="Nothing says what to forget"):
        split_forget_rows(people(), DataArguments())


WRITERS = {
    "csv": lambda dataset, path: dataset.to_csv(path),
    "tsv": lambda dataset, path: dataset.to_csv(path, sep="\t"),
    "json": lambda dataset, path: dataset.to_json(path),
    "jsonl": lambda dataset, path: dataset.to_json(path),
    "parquet": lambda dataset, path: dataset.to_parquet(path),
    "arrow": lambda dataset, path: dataset.save_to_disk(path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_every_format_are_read(tmp_path, kind):
    WRITERS[kind](people(), tmp_path / f"people.{kind}")
    name = tmp_path / f"people.{kind}"
    if kind == "arrow":
        name = name / "*.arrow"
    loaded = load_unlearning_datasets(DataArguments(dataset_name=str(name), forget_filter='person == "Ada"'))
    assert {part: dataset["person"][:] for part, dataset in loaded.items()} == {
        "forget": ["Ada"],
        "retain": PEOPLE[1:],
    }


def test_lines_of_text_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    loaded = load_unlearning_datasets(
        DataArguments(dataset_name=str(tmp_path / "*.txt"), forget_filter='text.startswith("t")')
    )
    assert (loaded["forget"]["text"][:], loaded["retain"]["text"][:]) == (["two", "three"], ["one"])


@pytest.fixture(params=["folder of files", "save_to_disk"])
def folder(tmp_path, request):
    """A folder with three splits."""
    rows = people()
    splits = {"train": rows, "test": rows.select([4]), "validation": rows.select([2, 3])}
    if request.param == "save_to_disk":
        DatasetDict(splits).save_to_disk(tmp_path / "data")
    else:
        for name, split in splits.items():
            (tmp_path / "data").mkdir(exist_ok=True)
            split.to_json(tmp_path / "data" / f"{name}.jsonl")
    return str(tmp_path / "data")


def test_splits_of_a_folder_are_found_by_name_and_by_slice(folder):
    loaded = load_unlearning_datasets(
        DataArguments(
            dataset_name=folder,
            train_split="train[:4]",
            forget_column="private",
            eval_split="test",
            unseen_split="train[4:]",
        )
    )
    assert {part: dataset["person"][:] for part, dataset in loaded.items()} == {
        "forget": ["Ada", "Dee"],
        "retain": ["Bob", "Cy"],
        "eval": ["Eve"],
        "unseen": ["Eve", "Fay"],
    }
    loaded = load_unlearning_datasets(
        DataArguments(dataset_name=folder, forget_split="test", retain_split="train[:50%]")
    )
    assert {part: len(dataset) for part, dataset in loaded.items()} == {"forget": 1, "retain": 3}


def test_a_split_that_does_not_exist_is_named_with_those_that_do(folder):
    with pytest.raises(ValueError, match=r"has no split 'tset'; it has (train|test|validation), \w+, \w+"):
        load_unlearning_datasets(DataArguments(dataset_name=folder, forget_column="private", eval_split="tset"))
    with pytest.raises(ValueError, match="has no split 'all"):
        load_unlearning_datasets(DataArguments(dataset_name=folder, forget_column="private", train_split="all[:3]"))


def test_a_data_set_saved_without_splits_is_the_split_train(tmp_path):
    people().save_to_disk(tmp_path / "data")
    loaded = load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "data"), forget_filter="label == 1"))
    assert loaded["forget"]["person"][:] == ["Bob", "Eve"]


@pytest.mark.parametrize("name", ["gone.csv", "./gone", "/gone/data", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        load_unlearning_datasets(DataArguments(dataset_name=name, forget_column="private"))


def test_files_of_mixed_or_unknown_formats_are_refused(tmp_path):
    for name in ("a.csv", "b.jsonl", "c.xls"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"formats \.csv, \.jsonl, \.xls were found"):
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "*"), forget_column="private"))
    with pytest.raises(ValueError, match=r"formats \.xls were found"):
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / "c.xls"), forget_column="private"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"text": "Ada"}\n{"text"'), ("a.csv", 'a,b\n1,2\n"Ada'), ("a.parquet", "Ada")],
)
def test_damaged_files_are_refused_without_showing_their_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="could not be read") as error:
        load_unlearning_datasets(DataArguments(dataset_name=str(tmp_path / name), forget_column="private"))
    assert "Ada" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_hub_id_without_network_is_refused_within_seconds():
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*could not be loaded from the Hub; offline mode"):
        load_unlearning_datasets(DataArguments(dataset_name="nobody/nothing", forget_column="private"))
    assert time.perf_counter() - start < 5


def test_no_row_of_local_data_stays_in_any_cache(tmp_path):
    """Of files and saved data sets, loaded, split and tokenised in a process of its own."""
    canary = "Zweifelsfrei"
    rows = Dataset.from_dict({"text": [canary, "a", "b"], "private": [True, False, False], "label": [0, 1, 1]})
    (tmp_path / "data").mkdir()
    rows.to_json(tmp_path / "data" / "train.jsonl")
    rows.save_to_disk(tmp_path / "saved")
    code = """
import sys
from hf_deepclean import DataArguments, load_unlearning_datasets, tokenize_causal_lm, tokenize_text_classification
from tests.tokenizers import byte_tokenizer
for name in sys.argv[1:]:
    loaded = load_unlearning_datasets(DataArguments(dataset_name=name, forget_column="private"))
    assert loaded["forget"][0]["text"] == "Zweifelsfrei"
    tokenize_causal_lm(loaded["forget"], byte_tokenizer())
    tokenize_text_classification(loaded["forget"], byte_tokenizer())
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "TMP"))}
    environment |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "TMPDIR": str(home)}
    root = Path(__file__).parents[2]
    sources = [tmp_path / "data", tmp_path / "data" / "train.jsonl", tmp_path / "saved"]
    subprocess.run([sys.executable, "-c", code, *map(str, sources)], check=True, cwd=root, env=environment)
    left = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in left if canary.encode() in path.read_bytes() or path.suffix == ".arrow"]
