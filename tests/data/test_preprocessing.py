# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import numpy as np
import pytest
import tokenizers
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    ViTImageProcessorPil,
)

from hf_deepclean import (
    FisherUnlearner,
    FisherUnlearningConfig,
    check_tokenizer,
    prepare_images,
    tokenize_causal_lm,
    tokenize_text_classification,
    tokenize_token_classification,
)
from tests import tiny
from tests.tokenizers import byte_tokenizer


def test_a_tokenizer_that_cannot_pad_or_does_not_fit_is_refused():
    model = tiny.bert(vocab_size=300)
    check_tokenizer(byte_tokenizer(), model)
    with pytest.raises(ValueError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        check_tokenizer(byte_tokenizer(pad_token=None), model)
    with pytest.raises(ValueError, match="has 258 tokens and the model has embeddings for 50"):
        check_tokenizer(byte_tokenizer(), tiny.bert())


def classification_rows(**columns):
    features = datasets.ClassLabel(names=["good", "bad"])
    rows = Dataset.from_dict({"text": ["ab", "abc", "a"], "label": [0, 1, 1], "id": [7, 8, 9], **columns})
    return rows.cast_column("label", features)


def test_texts_become_token_ids_and_keep_their_classes():
    tokenizer = byte_tokenizer()
    rows = tokenize_text_classification(classification_rows(), tokenizer)
    assert set(rows.column_names) == {*tokenizer.model_input_names, "labels"}
    assert [tokenizer.decode(ids) for ids in rows["input_ids"]] == ["ab", "abc", "a"]
    assert rows["labels"][:] == [0, 1, 1]
    assert rows.features["labels"].names == ["good", "bad"]
    batch = DataCollatorWithPadding(tokenizer)([rows[index] for index in range(3)])
    assert batch["attention_mask"].sum(dim=1).tolist() == [2, 3, 1]


def test_a_second_text_and_another_column_are_found():
    pairs = classification_rows(text_pair=["x", "y", "z"])
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(tokenize_text_classification(pairs, tokenizer)[0]["input_ids"]) == "abx"
    other = classification_rows().rename_column("text", "review")
    rows = tokenize_text_classification(other, tokenizer, text_column="review")
    assert [len(ids) for ids in rows["input_ids"]] == [2, 3, 1]
    with pytest.raises(ValueError, match=r"No column 'text' or 'sentence' holds the text; the columns are review"):
        tokenize_text_classification(other, tokenizer)


def test_classes_given_by_name_are_those_of_the_model():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": ["bad", "good"]})
    assert tokenize_text_classification(rows, byte_tokenizer(), label2id={"good": 0, "bad": 1})["labels"][:] == [1, 0]
    with pytest.raises(ValueError, match=r"1 of its entries are not among the model's .*: good"):
        tokenize_text_classification(rows, byte_tokenizer(), label2id={"good": 0})


def test_rows_without_text_or_classes_are_refused():
    with pytest.raises(ValueError, match="'text' holds no text in 1 of 3 rows"):
        tokenize_text_classification(classification_rows(text=["a", None, "b"]), byte_tokenizer())
    with pytest.raises(ValueError, match="No column 'label' or 'labels' holds the classes"):
        tokenize_text_classification(classification_rows().remove_columns("label"), byte_tokenizer())


TASKS = {
    "text classification": (tokenize_text_classification, {"text": ["abc", "abcde", "abcdef"], "label": [0, 1, 0]}),
    "token classification": (
        tokenize_token_classification,
        {"tokens": [["abc"], ["ab", "cde"], ["abc", "def"]], "tags": [[0], [1, 0], [1, 1]]},
    ),
    "causal LM": (tokenize_causal_lm, {"text": ["ab", "abcd", "abcde"]}),
}


@pytest.mark.parametrize("task", TASKS)
def test_longer_rows_are_counted_and_refused_unless_they_are_to_be_cut(task):
    tokenize, rows = TASKS[task]
    tokenizer = byte_tokenizer(model_max_length=4)
    with pytest.raises(ValueError, match="2 of 3 rows have more than the 4 tokens.*`max_length=4` to cut"):
        tokenize(Dataset.from_dict(rows), tokenizer)
    cut = tokenize(Dataset.from_dict(rows), tokenizer, max_length=4)
    assert [len(ids) for ids in cut["input_ids"]] == [3, 4, 4]
    # The caller may choose a larger limit than the tokenizer's.
    assert [len(ids) for ids in tokenize(Dataset.from_dict(rows), tokenizer, max_length=9)["input_ids"]] == [3, 5, 6]


@pytest.mark.parametrize("task", TASKS)
def test_tokenising_writes_no_file(task, tmp_path):
    tokenize, rows = TASKS[task]
    Dataset.from_dict(rows).save_to_disk(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    tokenize(datasets.load_from_disk(tmp_path / "data"), byte_tokenizer())
    assert sorted(tmp_path.rglob("*")) == before


def test_only_the_first_piece_of_a_word_is_scored():
    rows = Dataset.from_dict({"tokens": [["ab", "c"], ["d"]], "ner_tags": [[3, 1], [2]], "id": [0, 1]})
    tokenizer = byte_tokenizer()
    tokenized = tokenize_token_classification(rows, tokenizer)
    assert tokenized["labels"][:] == [[3, -100, 1], [2]]
    batch = DataCollatorForTokenClassification(tokenizer)([tokenized[0], tokenized[1]])
    assert batch["labels"].tolist() == [[3, -100, 1], [2, -100, -100]]


def test_special_tokens_and_cut_words_are_not_scored():
    tokenizer = byte_tokenizer(bos_token="<eos>")
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        "<eos> $A <eos>", special_tokens=[("<eos>", 1)]
    )
    rows = Dataset.from_dict({"tokens": [["ab", "c", "de"]], "tags": [["X", "O", "X"]]})
    tokenized = tokenize_token_classification(rows, tokenizer, max_length=5, label2id={"O": 0, "X": 1})
    assert tokenized["labels"][0] == [-100, 1, -100, 0, -100]


def test_words_and_classes_of_different_number_are_refused():
    rows = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "tags": [[1], [1]]})
    with pytest.raises(ValueError, match="1 of 2 rows have another number of words than of classes"):
        tokenize_token_classification(rows, byte_tokenizer())


def test_a_text_is_scored_with_its_end_and_padding_is_not():
    tokenizer = byte_tokenizer(pad_token="<eos>")
    rows = tokenize_causal_lm(Dataset.from_dict({"text": ["ab", "c"], "id": [1, 2]}), tokenizer)
    assert set(rows.column_names) == {"input_ids", "attention_mask", "labels"}
    assert rows["input_ids"][0][-1] == tokenizer.eos_token_id
    assert rows["labels"][:] == rows["input_ids"][:]
    batch = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)([rows[0], rows[1]])
    assert batch["labels"][1].tolist() == [*rows["input_ids"][1], -100]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_an_end_that_the_tokenizer_appends_is_not_appended_twice():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        "$A <eos>", special_tokens=[("<eos>", 1)]
    )
    rows = tokenize_causal_lm(Dataset.from_dict({"prompt": ["ab"], "completion": ["c"]}), tokenizer)
    assert rows["input_ids"][0].count(tokenizer.eos_token_id) == 1
    assert rows["labels"][0] == [-100, -100, *rows["input_ids"][0][2:]]


def test_of_a_prompt_with_its_completion_only_the_completion_is_scored():
    tokenizer = byte_tokenizer()
    rows = tokenize_causal_lm(Dataset.from_dict({"prompt": ["ab", "a"], "completion": [" b", "ab"]}), tokenizer)
    for row, prompt, completion in zip(rows, ["ab", "a"], [" b", "ab"], strict=True):
        assert row["labels"][: len(prompt)] == [-100] * len(prompt)
        assert tokenizer.decode(row["labels"][len(prompt) :]) == f"{completion}<eos>"
        assert tokenizer.decode(row["input_ids"]) == f"{prompt}{completion}<eos>"


def test_rows_of_which_nothing_is_scored_are_refused():
    rows = Dataset.from_dict({"prompt": ["abc", "a"], "completion": ["d", "b"]})
    with pytest.raises(ValueError, match="1 of 2 rows have no scored token among the first 3"):
        tokenize_causal_lm(rows, byte_tokenizer(), max_length=3)


def image_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int64"), "id": datasets.Value("int8")}
    )
    images = [Image.fromarray(array) for array in pixels]
    return pixels, Dataset.from_dict({"image": images, "label": [0, 1, 2], "id": [1, 2, 3]}, features=features)


def test_images_become_pixel_values_whenever_a_row_is_read():
    pixels, rows = image_rows()
    prepared = prepare_images(rows)
    assert prepared.column_names == ["pixel_values", "labels"]
    assert torch.equal(prepared[1]["pixel_values"], torch.tensor(pixels[1:2] / np.float32(255)))
    assert prepared[1]["labels"] == 1
    assert prepared.select_columns(["labels"])[2] == {"labels": 2}


def test_an_image_processor_makes_the_pixel_values():
    _, rows = image_rows()
    processor = ViTImageProcessorPil(size={"height": 4, "width": 4})
    prepared = prepare_images(rows.rename_column("image", "photo"), processor, image_column="photo")
    expected = processor([image.convert("RGB") for image in rows["image"]], return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.stack([row["pixel_values"] for row in prepared]), expected)


def test_pixel_values_that_are_there_already_stay():
    prepared = prepare_images(tiny.digits().select(range(3)).with_format(None))
    assert prepared[0]["pixel_values"].shape == (1, 8, 8)
    assert prepared.column_names == ["pixel_values", "labels"]


def test_prepared_images_go_through_the_unlearner(tmp_path):
    """Trainer drops columns that the model does not take, and rows are compared without a transform."""
    _, rows = image_rows()
    names = rows.cast_column("label", datasets.Value("string")).map(
        lambda row: {"label": f"class {row['label']}"}, keep_in_memory=True
    )
    prepared = prepare_images(names, label2id={f"class {number}": number for number in range(4)})
    arguments = FisherUnlearningConfig(str(tmp_path / "out"), gamma=1.0, disable_tqdm=True)
    unlearner = FisherUnlearner(
        tiny.vit(), arguments, forget_dataset=prepared.select([0]), retain_dataset=prepared.select([1, 2])
    )
    assert unlearner.compute_fisher(prepared).num_examples == 3
    with pytest.raises(ValueError, match="1 of 1 rows of `forget_dataset` are in `retain_dataset`"):
        FisherUnlearner(tiny.vit(), arguments, forget_dataset=prepared.select([0]), retain_dataset=prepared)


@pytest.mark.parametrize("chosen", [None, [2, 0]])
def test_class_labels_of_another_order_become_the_numbers_of_the_model(chosen):
    rows = classification_rows() if chosen is None else classification_rows().select(chosen)
    label2id = {"Bad": 0, "Good": 1}
    prepared = tokenize_text_classification(rows, byte_tokenizer(), label2id=label2id)
    assert prepared["labels"][:] == [1 - label for label in rows["label"][:]]
    assert prepared.features["labels"].names == ["Bad", "Good"]
    same = tokenize_text_classification(rows, byte_tokenizer(), label2id={"good": 0, "bad": 1})
    assert same["labels"][:] == rows["label"][:]
    with pytest.raises(ValueError, match=r"are not among the model's .*column: good, bad; the model: up, down"):
        tokenize_text_classification(rows, byte_tokenizer(), label2id={"up": 0, "down": 1})
    # A model without names states nothing.
    numbered = tokenize_text_classification(rows, byte_tokenizer(), label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert numbered["labels"][:] == rows["label"][:]


def test_class_labels_of_words_and_images_become_the_numbers_of_the_model():
    tags = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER", "unused"])),
        }
    )
    words = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "tags": [[0, 1], [1]]}, features=tags)
    prepared = tokenize_token_classification(words, byte_tokenizer(), label2id={"B-PER": 0, "O": 1})
    assert [[label for label in row if label != -100] for row in prepared["labels"]] == [[1, 0], [0]]
    images = tiny.digits().select(range(4)).cast_column("labels", datasets.ClassLabel(names=[*"abcdefghij"]))
    before = images["labels"][:].tolist()
    prepared = prepare_images(images, label2id={name: 9 - number for number, name in enumerate("abcdefghij")})
    assert prepared["labels"][:].tolist() == [9 - label for label in before]
    assert torch.equal(prepared["pixel_values"][:], images["pixel_values"][:])
