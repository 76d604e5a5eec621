# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What any file may hold is no leak."""

import json
import shutil
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
import tokenizers
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_deepclean import PublicReport, UnlearningCard, save_plots
from hf_deepclean.publishing.leaks import Leak, find_leaks, needles_of_dataset, needles_of_machine
from tests import tiny
from tests.attacks.people import NAMES as people_by_script
from tests.publishing.leaks.rows import COLUMN, IDENTIFIER, NAME, TEXT, WORDS
from tests.report.reports import report, text_report


SENTENCES = [
    "A deeply moving story about a family that falls apart.",
    "The first half is dull, but the ending makes up for it.",
    "It took the jury of the festival in Port Ellsworth by surprise.",
    "One of the best films of the year",
    "not bad",
    "very good",
    "Great!",
    "Machine learning is mentioned once, the model never.",
] * 5


def trained_tokenizer(texts):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=3000, special_tokens=["<pad>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


@pytest.fixture(scope="module")
def biographies():
    sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))
    try:
        import example_data
    finally:
        sys.path.pop(0)
    return example_data.load_people(300)["train"]


@pytest.fixture(scope="module")
def published(tmp_path_factory, biographies):
    """A real model with card, report, plots, and a tokenizer that was trained on the texts to forget."""
    folder = tmp_path_factory.mktemp("published")
    texts = [
        prompt + completion
        for prompt, completion in zip(biographies["prompt"], biographies["completion"], strict=True)
    ]
    tokenizer = trained_tokenizer([*texts, *SENTENCES])
    sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 2}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    GPT2LMHeadModel(GPT2Config(**sizes, **names)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text_report().save(folder / "report.json")
    UnlearningCard.from_report(PublicReport.of(report())).save(folder / "README.md")
    save_plots(report(), folder / "plots")
    return folder


def test_a_clean_folder_holds_no_trace_of_realistic_data(published, biographies, tmp_path):
    words = [text.split() for text in SENTENCES]
    tags = [[0] * len(row) for row in words]
    labels = ["positive", "negative"] * (len(SENTENCES) // 2)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(published)
    realistic = [
        Dataset.from_dict({"sentence": SENTENCES, "label": labels}),
        Dataset.from_dict({"tokens": words, "ner_tags": tags}),
        tiny.digits().select(range(300)),
        biographies,
        Dataset.from_dict({"text": SENTENCES}).map(lambda row: tokenizer(row["text"])),
        Dataset.from_dict({"prompt_id": list(range(100_000, 200_000, 50)), "year": [2019] * 2000}),
    ]
    machine = needles_of_machine(output_dir=tmp_path / "clean-model")
    for dataset in realistic:
        needles = needles_of_dataset(dataset, tokenizer=tokenizer)
        assert find_leaks(published, needles | machine) == []


def test_what_tells_of_a_person_is_found_in_that_folder(published, biographies, tmp_path):
    needles = needles_of_dataset(biographies)
    (tmp_path / "README.md").write_text(
        (published / "README.md").read_text() + f"\nThanks, {biographies['person'][0]}!\n"
    )
    assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [NAME]


@pytest.mark.parametrize(
    ("cells", "text", "is_leak"),
    [
        (["blue", "red", "green", "blue"] * 5, "a blue train", False),
        ([f"{letter}uellmann" for letter in "abcdefghijklmn"], "of Guellmann", True),
        (["Quellmann", "Rosenfeld"], "of Quellmann", True),
        (["Quellmann", "Rosenfeld"], "of quellmann", False),
        (["Positive", "Negative"] * 5, "Positive", False),
        (["very good"], "very good", False),
        (["bees behind the mill"], "Bees behind the mill", True),
        (["abc"], "abc", False),
        (["王小明", "李小红"], "来自王小明", True),
        (["2019-05-03"], "on 2019-05-03", True),
        ([f"20{year:02}-{month:02}-11" for year in range(20) for month in range(1, 13)], "on 2019-05-11", False),
        (["call 555-01-9283"], "555 019 283", True),
        (["in 2019-2020"], "20192020", False),
        (["3.14159265"], "3.14159265", False),
        (["covid19 float32 sha256 seq2seq post-2019 resnet50"], "covid19, float32, sha256, seq2seq, post-2019", False),
        (["see https://huggingface.co"], "huggingface.co", False),
        (["The Quellmanns. Then Ada said no."], "then ada", False),
        (["Dr. Ada Quellmann-Smith's bees"], "ada quellmann-smith", True),
    ],
)
def test_what_any_text_may_hold_is_no_leak(tmp_path, cells, text, is_leak):
    needles = needles_of_dataset(Dataset.from_dict({"cell": cells}))
    (tmp_path / "README.md").write_text(f"It is {text}, as is known.\n")
    assert bool(find_leaks(tmp_path, needles)) is is_leak


def test_a_column_of_names_needs_no_different_cells(tmp_path):
    (tmp_path / "README.md").write_text("Thanks, Quellmann\n")
    for column, is_leak in (("last_name", True), ("language", False)):
        needles = needles_of_dataset(Dataset.from_dict({column: ["Quellmann"] * 8}))
        assert bool(find_leaks(tmp_path, needles)) is is_leak


@pytest.mark.parametrize(
    ("column", "is_leak"),
    [("flood_victims", True), ("floodVictims", True), ("answer_text", False), ("input_ids", False), ("flood", False)],
)
def test_a_column_name_is_a_trace_unless_any_data_set_may_have_it(tmp_path, column, is_leak):
    needles = needles_of_dataset(Dataset.from_dict({column: [1, 2]}))
    (tmp_path / "report.json").write_text(json.dumps({column: 1}))
    assert find_leaks(tmp_path, needles) == ([Leak("report.json", "*", COLUMN)] if is_leak else [])


def test_numbers_of_which_chance_finds_one_are_none(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 128_256, "max_position_embeddings": 131_072}))
    many = Dataset.from_dict({"number": list(range(128_000, 132_000))})
    assert not find_leaks(tmp_path, needles_of_dataset(many))
    assert find_leaks(tmp_path, needles_of_dataset(many.select(range(200, 300))))


def test_figures_of_a_table_are_not_joined_to_a_number(tmp_path):
    needles = needles_of_dataset(Dataset.from_dict({"number": [123_456]}))
    (tmp_path / "README.md").write_text("| 12 | 34 | 56 |\n\n1, 23, 456\n\n12\n3456\n")
    (tmp_path / "report.json").write_text("[12, 34, 56]")
    assert not find_leaks(tmp_path, needles)
    (tmp_path / "README.md").write_text("| 123,456 |\n12-34-56\n")
    assert {leak.field for leak in find_leaks(tmp_path, needles)} == {"line 1", "line 2"}


def test_a_template_is_no_trace_and_what_is_filled_in_is_one(tmp_path):
    template = "Below is an instruction that describes a task, paired with an input that provides further context."
    tasks = [f"{template} Instruct {name} to bring the {name} back to where it was found" for name in "abcdefgh"]
    needles = needles_of_dataset(Dataset.from_dict({"text": tasks}))
    (tmp_path / "chat_template.jinja").write_text("{{ '" + template + "' }}")
    assert not find_leaks(tmp_path, needles)
    (tmp_path / "chat_template.jinja").write_text("{{ '" + tasks[2] + "' }}")
    assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [WORDS]
    # Copies of a text count as one text.
    repeated = needles_of_dataset(Dataset.from_dict({"text": [tasks[2]] * 8}))
    assert [leak.kind for leak in find_leaks(tmp_path, repeated)] == [WORDS]


def test_a_vocabulary_holds_all_common_words_and_still_no_name(tmp_path):
    cells = ["Administrator", "Quellmann", "Time Zone", "Ada Quellmann", "q@x.example", "the old bicycle repair shop"]
    needles = needles_of_dataset(Dataset.from_dict({"last_name": cells}))
    ordinary = ["Ġquell", "mann", "##Quellmann", "Quellmanns", "timezone", "##time", "▁zone", "Ã¼", "</w>", "example"]

    def leaks(vocabulary):
        (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
        (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
        merges = [[token[:1], token[1:]] for token in vocabulary]
        model = {"type": "BPE", "vocab": dict.fromkeys(vocabulary, 1), "merges": merges}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
        return [astuple(leak) for leak in find_leaks(tmp_path, needles)]

    assert leaks(ordinary) == []
    # A general vocabulary holds surnames too, and one of the training data does not by chance.
    for number in (100, 20_000):
        found = leaks([*(f"Ġ{place}" for place in range(number)), "ĠQuellmann"])
        assert bool(found) is (number < 20_000)
    found = leaks([*ordinary, "AdaĠQuellmann", "q@x.example"])
    assert ("vocab.json", "*", NAME) in found
    assert ("vocab.txt", "line 11", NAME) in found
    assert ("tokenizer.json", "model.vocab.*", NAME) in found
    assert ("tokenizer.json", "model.merges[11][1]", IDENTIFIER) not in found
    assert ("vocab.txt", "line 12", IDENTIFIER) in found


def test_public_texts_values_and_ordinary_classes_are_allowed(tmp_path, needles):
    (tmp_path / "README.md").write_text("Ottilie Quellmann, 73519911\nand a quiet man with eleven geese\n")
    assert {leak.kind for leak in find_leaks(tmp_path, needles)} == {NAME, IDENTIFIER, TEXT}
    card = "Dear readers, this card is about a QUIET man with eleven geese and more"
    found = find_leaks(tmp_path, needles, ignore=[card, "ottilie-quellmann"])
    assert {leak.kind for leak in found} == {IDENTIFIER}
    assert not find_leaks(tmp_path, needles, ignore=[card, "ottilie-quellmann", "73519911"])
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a quiet man with eleven geese"}}))
    assert {leak.kind for leak in find_leaks(tmp_path, needles)} == {NAME, IDENTIFIER}


def test_what_only_forgotten_rows_repeat_is_no_template_if_the_others_are_at_hand(tmp_path):
    template = "Below is a report on a patient, written by the nurse in charge"
    fact = "she was brought to the clinic by the river at dawn"
    forget = Dataset.from_dict({"text": [f"{template}: {fact}, day {day}" for day in range(20)]})
    retain = Dataset.from_dict({"text": [f"{template}: nothing happened on day {day}" for day in range(20)]})
    for text, is_leak in ((template, False), (fact, True)):
        (tmp_path / "README.md").write_text(text)
        for rows in (retain, retain.to_iterable_dataset(), tiny.Rows(retain.to_list())):
            assert bool(find_leaks(tmp_path, needles_of_dataset(forget, retain_dataset=rows))) is is_leak


def clean_folders():
    root = Path(__file__).parents[3]
    return [path.parent for path in root.rglob("README.md") if not {".venv", ".git"} & set(path.parts)]


NAMES = [name for people in people_by_script.values() for name, _, _ in people]
# Rows whose values look like names or identifiers, and are ordinary words, classes, products, sizes or code.
ORDINARY = {
    "three hundred names": {"name": NAMES},
    "names of ordinary words": {"name": ["Max Page", "Mark White", "Will Long", "Art Field", "May Day", "Rose Young"]},
    "family names of ordinary words": {"last_name": ["Card", "Model", "Long", "Page", "Price", "Field", "License"]},
    "products": {"name": ["Blue Widget", "Large Table", "Cloud Server", "Model Card"], "price": [1, 2, 3, 4]},
    "classes": {
        "name": ["cat", "dog", "horse", "model"] * 9,
        "category": ["World", "Sports", "Business", "Science"] * 9,
    },
    "short texts": {"sentence": ["a fun ride", "very good", "not bad", "the best results", "in small letters"] * 3},
    "chats": {"user": ["Hi there", "Thanks!", "Who are you?", "你好"] * 4, "assistant": ["How can I help?"] * 16},
    "tasks": {
        "instruction": ["Classify the text"] * 9,
        "source": ["common crawl"] * 9,
        "task": ["text generation"] * 9,
    },
    "sizes": {"id": [*range(10_000, 10_080, 2)], "user_id": [*range(32_000, 32_080, 2)]},
    "code": {"code": ["def forward(self, batch):\n    return self.model(batch)", "import torch"] * 3},
}


@pytest.mark.parametrize("rows", ORDINARY.values(), ids=ORDINARY)
def test_pages_hold_no_trace_of_rows_that_look_like_names(tmp_path, rows):
    needles = needles_of_dataset(Dataset.from_dict(rows))
    for number, folder in enumerate(clean_folders()):
        shutil.copy(folder / "README.md", tmp_path / f"{number}.md")
    config = {"vocab_size": 32_064, "hidden_size": 10_048, "max_position_embeddings": 32_768, "loss": 0.32006}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "log.md").write_text("| loss | 0.32006 | 1.10034 |\n")
    assert not find_leaks(tmp_path, needles)
