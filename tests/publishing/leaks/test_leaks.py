# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import bz2
import gzip
import html
import io
import json
import lzma
import os
import pickle
import re
import socket
import sys
import zipfile
from dataclasses import astuple
from functools import partial
from pathlib import Path
from urllib.parse import quote

import datasets
import numpy as np
import pytest
import tokenizers
import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_deepclean import PublicReport, UnlearningCard, save_plots
from hf_deepclean.data.digests import dataset_fingerprint
from hf_deepclean.publishing.leaks import (
    Leak,
    LeakError,
    Needles,
    check_for_leaks,
    find_leaks,
    needles_of_dataset,
    needles_of_machine,
    words,
)
from hf_deepclean.publishing.leaks import file_search as search
from hf_deepclean.publishing.leaks.words import Words
from tests import tiny
from tests.report.reports import report, text_report
from tests.tokenizers import byte_tokenizer


NAME = "a name in the data to forget"
IDENTIFIER = "an identifier in the data to forget"
TEXT = "a text of the data to forget"
WORDS = "8 words in a row of the data to forget"
COLUMN = "a column name of the data to forget"
TOKEN_IDS = "8 token ids in a row of the data to forget"
BLOB = "bytes of an image, a sound or an array of the data to forget"
FINGERPRINT = "a fingerprint of the data to forget"

ROWS = {
    "text": [
        "Yesterday the bees of Ottilie Quellmann swarmed behind the abandoned mill, and nobody came to catch them.",
        "Write to ottilie.q@rosenfeld.example or call +49 (30) 5550-1928 before Monday. Her account is DE89 3704 "
        "0044 0532 0130 00, her file https://rosenfeld.example/patients/7 and her badge QX7-93K41.",
        "a quiet man with eleven geese",
    ],
    "patient_file": ["kept in the cellar", "lost since the flood of spring", "kept in the attic"],
    "number": [73519842, 73519911, 73520007],
    "label": ["positive", "negative", "positive"],
}
# Of every kind something that the rows hold, as another would write it.
SECRETS = {
    "Ottilie Quellmann": NAME,
    "swarmed behind the abandoned mill, and nobody came": WORDS,
    "A quiet man with eleven geese": TEXT,
    "ottilie.q@rosenfeld.example": IDENTIFIER,
    "rosenfeld.example/patients/7": IDENTIFIER,
    "QX7-93K41": IDENTIFIER,
    "+49 30 5550-1928": IDENTIFIER,
    "DE89370400440532013000": IDENTIFIER,
    "73519911": IDENTIFIER,
    "patient_file": COLUMN,
}
RANDOM = np.random.default_rng(0).bytes(5000)


@pytest.fixture(scope="module")
def forget():
    return Dataset.from_dict(ROWS)


@pytest.fixture(scope="module")
def needles(forget):
    return needles_of_dataset(forget)


def letters(text):
    return re.sub(r"[\W_]", "", text).casefold()


def in_json(folder, secret):
    (folder / "report.json").write_text(json.dumps({"seed": 7, "settings": {"run_name": f"x {secret} y"}}))


def in_json_key(folder, secret):
    (folder / "report.json").write_text(json.dumps({"per_class": {secret: {"accuracy": 0.5}}}))


def in_card(folder, secret):
    (folder / "README.md").write_text(f"---\ntags: []\n---\n\nA model without {secret}, as promised.\n")


def in_png(folder, secret, kind="tEXt"):
    info = PngImagePlugin.PngInfo()
    if kind == "iTXt":
        info.add_itxt("Comment", secret, zip=True)
    else:
        info.add_text("Comment", secret, zip=kind == "zTXt")
    Image.new("L", (4, 4)).save(folder / "loss.png", pnginfo=info)


def in_exif(folder, secret):
    exif = Image.Exif()
    exif[0x010E] = secret
    Image.new("L", (4, 4)).save(folder / "loss.png", exif=exif)


def in_metadata(folder, secret):
    save_file({"weight": torch.randn(9)}, folder / "model.safetensors", {"format": "pt", "note": secret})


def in_tensor_name(folder, secret):
    save_file({f"head.{secret}.weight": torch.randn(9)}, folder / "model.safetensors")


def in_tensor(folder, secret):
    content = RANDOM[:999] + secret.encode() + RANDOM[999:]
    tensors = {
        "first.weight": torch.randn(99),
        "second.weight": torch.frombuffer(bytearray(content), dtype=torch.uint8),
    }
    save_file(tensors, folder / "model.safetensors")


def in_added_token(folder, secret):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([secret])
    tokenizer.save_pretrained(folder)


def in_binary(folder, secret, encoding="utf-8"):
    (folder / "model.bin").write_bytes(RANDOM[:1234] + secret.encode(encoding) + RANDOM[1234:])


def in_pickle(folder, secret):
    torch.save({"run_name": secret, "weight": torch.zeros(3)}, folder / "training_args.bin")


def in_old_pickle(folder, secret):
    torch.save({"run_name": secret}, folder / "training_args.bin", _use_new_zipfile_serialization=False)


def in_archive(folder, secret):
    with zipfile.ZipFile(folder / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logs/events.txt", f"first\nsecond {secret}\n")


def in_npz(folder, secret):
    np.savez_compressed(folder / "examples.npz", texts=np.array(["nothing", secret]))


def packed(folder, secret, pack=gzip.compress):
    (folder / "log").write_bytes(pack(json.dumps({"log": [0, secret]}).encode()))


def in_lines(folder, secret):
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("nothing", secret)))


def in_file_name(folder, secret):
    (folder / f"of {secret.replace('/', '-')}.png").write_bytes(b"")


def in_folder_name(folder, secret):
    (folder / secret.replace("/", "-")).mkdir()
    (folder / secret.replace("/", "-") / "weights.bin").write_bytes(RANDOM)


PLACES = {
    in_json: ("report.json", "settings.run_name"),
    in_json_key: ("report.json", "per_class.*"),
    in_card: ("README.md", "line 5"),
    in_png: ("loss.png", "tEXt chunk"),
    partial(in_png, kind="zTXt"): ("loss.png", "zTXt chunk"),
    partial(in_png, kind="iTXt"): ("loss.png", "iTXt chunk"),
    in_exif: ("loss.png", "eXIf chunk"),
    in_metadata: ("model.safetensors", "metadata.note"),
    in_tensor_name: ("model.safetensors", "tensor.*"),
    in_tensor: ("model.safetensors", "tensor.second.weight"),
    in_added_token: ("tokenizer.json", "added_tokens[2].content"),
    in_binary: ("model.bin", "bytes"),
    partial(in_binary, encoding="utf-16-le"): ("model.bin", "bytes"),
    partial(in_binary, encoding="utf-32-le"): ("model.bin", "bytes"),
    in_pickle: ("training_args.bin", "training_args/data.pkl.pickle"),
    in_old_pickle: ("training_args.bin", "pickle"),
    in_archive: ("logs.zip", "logs/events.txt.line 2"),
    in_npz: ("examples.npz", "texts.npy.bytes"),
    packed: ("log", "unpacked.log[1]"),
    partial(packed, pack=bz2.compress): ("log", "unpacked.log[1]"),
    partial(packed, pack=lzma.compress): ("log", "unpacked.log[1]"),
    in_lines: ("rows.jsonl", "line 2.text"),
    in_file_name: ("*.png", "file name"),
    in_folder_name: ("*", "folder name"),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", PLACES, ids=[f"{file}-{field}" for file, field in PLACES.values()])
def test_every_kind_is_found_in_every_place_and_no_value_is_told(tmp_path, needles, place, secret):
    place(tmp_path, secret)
    found = find_leaks(tmp_path, needles)
    assert Leak(*PLACES[place], SECRETS[secret]) in found
    with pytest.raises(LeakError) as caught:
        check_for_leaks(tmp_path, needles)
    assert caught.value.leaks == found
    for told in (str(caught.value), repr(caught.value), repr(found), repr(needles), *map(str, found)):
        assert letters(secret) not in letters(told)


@pytest.mark.parametrize(
    "write",
    [
        str.upper,
        str.title,
        lambda text: f"**{text}**",
        lambda text: text.replace(" ", "\n"),
        lambda text: text.replace(" ", "_"),
        lambda text: text.replace(" ", "** *"),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: f"{text[:3]}-\n  {text[3:]}",
        lambda text: f"{text[:3]}\u00ad{text[3:]}",
        lambda text: f"<b>{text[:3]}</b>{text[3:]}",
        lambda text: text.replace(" ", "</b> <i>"),
        lambda text: quote(text.replace("l", "%6C")).replace("%25", "%"),
        lambda text: html.escape(text).replace("e", "&#101;"),
        lambda text: text.replace("i", "\\u0069"),
        lambda text: text.replace("o", "ｏ"),
    ],
)
@pytest.mark.parametrize("secret", ["Ottilie Quellmann", "swarmed behind the abandoned mill, and nobody came"])
def test_a_text_is_found_however_it_is_written(tmp_path, needles, write, secret):
    (tmp_path / "README.md").write_text(f"# Title\n\nHere is {write(secret)}.\n", encoding="utf-8")
    assert SECRETS[secret] in {leak.kind for leak in find_leaks(tmp_path, needles)}


def test_texts_in_other_scripts_are_found_as_texts_and_among_bytes(tmp_path):
    texts = [
        "Оттилия Квельман держит пчёл за старой мельницей у реки",
        "王小明住在北京市海淀区中关村大街一号",
        "Straße nach Ägypten",
    ]
    needles = needles_of_dataset(Dataset.from_dict({"text": texts}))
    (tmp_path / "upper.md").write_text(f"x\n{texts[0].upper()}", encoding="utf-8")
    (tmp_path / "part.json").write_text(json.dumps([texts[1][3:14]]))
    (tmp_path / "bytes.bin").write_bytes(RANDOM + texts[0].encode() + RANDOM)
    (tmp_path / "more.bin").write_bytes(RANDOM + texts[1].encode() + RANDOM)
    found = {(leak.file, leak.field) for leak in find_leaks(tmp_path, needles)}
    assert found == {("upper.md", "line 2"), ("part.json", "[0]"), ("bytes.bin", "bytes"), ("more.bin", "bytes")}


def test_what_stands_across_the_borders_of_blocks_and_chunks_is_found(tmp_path, needles, monkeypatch):
    monkeypatch.setattr(words, "_BLOCK_CHARACTERS", 512)
    monkeypatch.setattr(words, "_OVERLAP_CHARACTERS", 256)
    monkeypatch.setattr(search, "_CHUNK_BYTES", 512)
    monkeypatch.setattr(search, "_OVERLAP_BYTES", 256)
    secret = "swarmed behind the abandoned mill, and nobody came"
    for number in range(0, 1100, 37):
        (tmp_path / f"{number}.txt").write_text("." * number + f" {secret} " + "." * 900)
        (tmp_path / f"{number}.bin").write_bytes(RANDOM[:number] + secret.encode() + RANDOM[number:2000])
    assert len({leak.file for leak in find_leaks(tmp_path, needles)}) == 2 * len(range(0, 1100, 37))


def test_runs_of_letters_have_equal_hashes_if_and_only_if_their_letters_are_equal():
    generator = np.random.default_rng(1)
    seen = {}
    for _ in range(300):
        text = "".join(generator.choice(list("aAbB1 -_.")) for _ in range(12))
        of = Words(text)
        (value,) = of.hashes(np.array([0]), of.starts[-1:])
        assert seen.setdefault(letters(text), value) == value
        # The same run within another text.
        inside = Words(f"xyz, {text} xyz")
        assert inside.hashes(np.array([3]), inside.starts[-1:] - 3)[0] == value
    assert len(set(seen.values())) == len(seen)


# Token ids, images and arrays.


IDS = [17, 402, 9, 1033, 5, 88, 420, 13, 77, 901, 3, 250]


def as_json(folder, ids):
    (folder / "samples.json").write_text(json.dumps({"samples": [[1, 2, 3], [7, *ids, 7]]}))


def as_text(folder, ids):
    (folder / "log.txt").write_text(f"step 1\ntensor([{', '.join(map(str, ids))}])\n")


def as_tensor(folder, ids, dtype=torch.int64):
    save_file({"a": torch.randn(5), "ids": torch.tensor([1, *ids], dtype=dtype)}, folder / "model.safetensors")


def as_array(folder, ids):
    np.save(folder / "ids.npy", np.array(ids, np.int32))


def as_torch_file(folder, ids):
    torch.save({"ids": torch.tensor(ids)}, folder / "batch.pt")


IDS_IN = {
    as_json: ("samples.json", "samples[1]"),
    as_text: ("log.txt", "line 2"),
    as_tensor: ("model.safetensors", "tensor.ids"),
    partial(as_tensor, dtype=torch.int32): ("model.safetensors", "tensor.ids"),
    as_array: ("ids.npy", "bytes"),
    as_torch_file: ("batch.pt", "batch/data/0.bytes"),
}


@pytest.mark.parametrize("write", IDS_IN, ids=[f"{file}-{number}" for number, (file, _) in enumerate(IDS_IN.values())])
def test_eight_token_ids_in_a_row_are_found_wherever_integers_are_kept(tmp_path, write):
    dataset = Dataset.from_dict({"input_ids": [IDS, IDS[::-1]], "attention_mask": [[1] * 12] * 2})
    needles = needles_of_dataset(dataset)
    write(tmp_path, IDS[2:10])
    assert find_leaks(tmp_path, needles) == [Leak(*IDS_IN[write], TOKEN_IDS)]


@pytest.mark.parametrize("write", IDS_IN, ids=[f"{file}-{number}" for number, (file, _) in enumerate(IDS_IN.values())])
def test_masks_labels_positions_and_pixels_are_no_token_ids(tmp_path, write):
    columns = {
        "attention_mask": [[1] * 12 + [0] * 4],
        "position_ids": [list(range(16))],
        "labels": [[-100] * 8 + [3, 3, 3, 7, 3, 3, 3, 3]],
        "pixels": [[0, 3, 250, 17, 9, 88, 4, 21, 13, 77, 91, 3, 250, 6, 4, 1]],
        "input_ids": [[5] * 16],
    }
    needles = needles_of_dataset(Dataset.from_dict(columns))
    for ids in [column[0] for column in columns.values()] + [IDS]:
        write(tmp_path, ids)
        assert not find_leaks(tmp_path, needles)


def test_texts_are_found_as_the_ids_of_the_tokenizer(tmp_path, forget):
    tokenizer = byte_tokenizer()
    ids = tokenizer("behind the abandoned mill")["input_ids"]
    as_json(tmp_path, ids)
    assert not find_leaks(tmp_path, needles_of_dataset(forget))
    needles = needles_of_dataset(forget, tokenizer=tokenizer)
    assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [TOKEN_IDS]


def test_rows_that_are_tokens_alone_are_found_as_the_texts_that_they_spell(tmp_path):
    tokenizer = byte_tokenizer()
    dataset = Dataset.from_dict({"input_ids": tokenizer(["Then Ada Quincey closed the abandoned mill."])["input_ids"]})
    (tmp_path / "README.md").write_text("Thanks to Ada Quincey.")
    assert not find_leaks(tmp_path, needles_of_dataset(dataset))
    (leak,) = find_leaks(tmp_path, needles_of_dataset(dataset, tokenizer=tokenizer))
    assert leak == Leak("README.md", "line 1", NAME)


def png_of(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_images_and_arrays_are_found_byte_by_byte(tmp_path):
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (20, 20), np.uint8) for _ in range(2)]
    floats = generator.normal(size=(2, 64)).astype(np.float32)
    features = Features({"image": datasets.Image(), "embedding": List(Value("float32")), "grid": List(Value("uint8"))})
    names = ["Ottilie_Quellmann.png", "two_dogs.png"]
    rows = {
        "image": [{"bytes": png_of(image), "path": name} for image, name in zip(pixels, names, strict=True)],
        "embedding": floats.tolist(),
        "grid": [image.reshape(-1).tolist() for image in pixels],
    }
    needles = needles_of_dataset(Dataset.from_dict(rows, features=features))
    (tmp_path / "weights.bin").write_bytes(RANDOM + png_of(pixels[1]) + RANDOM)
    (tmp_path / "image.png").write_bytes(png_of(pixels[0]))
    save_file({"head": torch.randn(9), "kept": torch.from_numpy(floats)}, tmp_path / "model.safetensors")
    np.save(tmp_path / "grid.npy", pixels[1])
    (tmp_path / "other.png").write_bytes(png_of(pixels[0][::-1]))
    expected = [
        Leak("grid.npy", "bytes", BLOB),
        Leak("image.png", "bytes", BLOB),
        Leak("model.safetensors", "tensor.kept", BLOB),
        Leak("weights.bin", "bytes", BLOB),
    ]
    assert find_leaks(tmp_path, needles) == expected
    (tmp_path / "card.md").write_text("Two dogs by Ottilie Quellmann\n")
    assert Leak("card.md", "line 1", NAME) in find_leaks(tmp_path, needles)
    # The same from rows that are no `datasets.Dataset`.
    images = [
        {"image": Image.fromarray(image), "embedding": torch.from_numpy(row)}
        for image, row in zip(pixels, floats, strict=True)
    ]
    found = find_leaks(tmp_path, needles_of_dataset(tiny.Rows(images)))
    assert {"grid.npy", "model.safetensors"} <= {leak.file for leak in found}


# What is no leak.


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
    """A real model with a card, a report and plots, and a tokenizer trained on the texts that are to be forgotten."""
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
    # The same text many times is one text.
    repeated = needles_of_dataset(Dataset.from_dict({"text": [tasks[2]] * 8}))
    assert [leak.kind for leak in find_leaks(tmp_path, repeated)] == [WORDS]


def test_a_vocabulary_holds_all_common_words_and_still_no_name(tmp_path):
    cells = ["Administrator", "Quellmann", "Time Zone", "Ada Quellmann", "q@x.example", "the old bicycle repair shop"]
    needles = needles_of_dataset(Dataset.from_dict({"last_name": cells}))
    ordinary = ["Ġquell", "mann", "ĠQuellmann", "timezone", "##time", "▁zone", "QX", "Ã¼", "</w>", "example"]

    def leaks(vocabulary):
        (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
        (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
        merges = [[token[:1], token[1:]] for token in vocabulary]
        model = {"type": "BPE", "vocab": dict.fromkeys(vocabulary, 1), "merges": merges}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
        return [astuple(leak) for leak in find_leaks(tmp_path, needles)]

    assert leaks(ordinary) == []
    found = leaks([*ordinary, "AdaĠQuellmann", "q@x.example"])
    assert ("vocab.json", "*", NAME) in found
    assert ("vocab.txt", "line 11", NAME) in found
    assert ("tokenizer.json", "model.vocab.*", NAME) in found
    assert ("tokenizer.json", "model.merges[11][1]", IDENTIFIER) not in found
    assert ("vocab.txt", "line 12", IDENTIFIER) in found


def test_public_texts_values_and_classes_are_allowed(tmp_path, needles):
    (tmp_path / "README.md").write_text("Ottilie Quellmann, 73519911\nand a quiet man with eleven geese\n")
    assert {leak.kind for leak in find_leaks(tmp_path, needles)} == {NAME, IDENTIFIER, TEXT}
    card = "Dear readers, this card is about a QUIET man with eleven geese and more"
    found = find_leaks(tmp_path, needles, ignore=[card, "ottilie-quellmann"])
    assert {leak.kind for leak in found} == {IDENTIFIER}
    assert not find_leaks(tmp_path, needles, ignore=[card, "ottilie-quellmann", "73519911"])
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "Ottilie Quellmann"}}))
    assert {leak.kind for leak in find_leaks(tmp_path, needles)} == {IDENTIFIER, TEXT}


# The sources.


def test_all_rows_of_a_stream_are_read(tmp_path):
    rows = [{"text": f"row {number} of the stream"} for number in range(2500)] + [{"text": "Ada Quellmann was there"}]
    (tmp_path / "README.md").write_text("Ada Quellmann")
    for stream in (IterableDataset.from_generator(lambda: iter(rows)), Dataset.from_list(rows).to_iterable_dataset()):
        assert [leak.kind for leak in find_leaks(tmp_path, needles_of_dataset(stream))] == [NAME]


def test_cells_are_taken_apart(tmp_path):
    rows = [
        {
            "messages": [{"role": "user", "content": "I am Ada Quellmann"}, {"role": "assistant", "content": "Hello"}],
            "tokens": ["The", "bees", "of", "Bob", "Rosenfeld", "swarmed"],
            "nested": {"deep": [["write to c@d.example"]], "none": None, "flag": True},
            "number": 73519842.0,
        }
    ]
    secrets = {"Ada Quellmann": NAME, "Bob Rosenfeld": NAME, "c@d.example": IDENTIFIER, "73519842": IDENTIFIER}
    for dataset in (Dataset.from_list(rows), tiny.Rows(rows)):
        needles = needles_of_dataset(dataset)
        for secret, kind in secrets.items():
            (tmp_path / "README.md").write_text(f"{secret}\n")
            assert [leak.kind for leak in find_leaks(tmp_path, needles)] == [kind]
        (tmp_path / "README.md").write_text("user assistant Hello content swarmed true\n")
        assert not find_leaks(tmp_path, needles)


def test_fingerprints_splits_copies_and_given_names_of_a_data_set_are_found(tmp_path):
    (tmp_path / "rows of ottilie.csv").write_text("text\nnothing\n")
    loaded = datasets.load_dataset(
        "csv", data_files={"leavers.of.may": str(tmp_path / "rows of ottilie.csv")}, cache_dir=str(tmp_path / "cache")
    )["leavers.of.may"]
    needles = needles_of_dataset(loaded, names=["Zoe", "people.csv", "rows of ottilie.csv"])
    folder = tmp_path / "published"
    folder.mkdir()
    secrets = {
        loaded._fingerprint: FINGERPRINT,
        dataset_fingerprint(loaded): FINGERPRINT,
        "leavers.of.may": "the name of a split of the data to forget",
        loaded.cache_files[0]["filename"]: "a local path",
        "Zoe": NAME,
        "people.csv": NAME,
        "rows of ottilie.csv": NAME,
    }
    for secret, kind in secrets.items():
        (folder / "report.json").write_text(json.dumps({"value": secret}))
        assert kind in {leak.kind for leak in find_leaks(folder, needles)}


MACHINE = {
    "/home/quell/models/base": "a local path",
    "file:///home/quell": "a local path",
    "C:\\Users\\x and /srv/bees/work/here": "a local path",
    "quell@mail.example": "a user name",
    "trained by Quell": "a user name",
    "on hive-17": "a host name",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345": "an access token",
    "hf_second00token11of22another33": "an access token",
    "forget-ottilie-2024": "the name of the run or of its folder",
    "leaver of may": "the name of the run or of its folder",
    "no path: home quell, and https://x.example/home/other": None,
    "a clean-model in outputs, by root at localhost": None,
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", "/home/quell")
    monkeypatch.setenv("LOGNAME", "quell")
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345")
    monkeypatch.setattr(socket, "gethostname", lambda: "hive-17.bees.example")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/srv/bees/work"))
    return needles_of_machine(
        output_dir="outputs/forget-ottilie-2024/clean-model",
        run_name="leaver-of-may",
        hub_token="hf_second00token11of22another33",
    )


@pytest.mark.parametrize("text", MACHINE)
def test_traces_of_the_machine_are_found(machine, tmp_path, text):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_name_or_path": text}))
    kinds = {leak.kind for leak in find_leaks(folder, machine)}
    assert MACHINE[text] in kinds if MACHINE[text] else kinds <= {"a user name"}
    assert letters(text) not in letters(repr(machine))


def test_common_and_short_names_of_users_and_hosts_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "README.md").write_text("The root of localhost, and Ada on it: https://x.example/root/model\n")
    for user in ("root", "ada"):
        monkeypatch.setenv("LOGNAME", user)
        assert not find_leaks(tmp_path, needles_of_machine())
    (tmp_path / "README.md").write_text("ada@x.example\n'/home/ada'\n/root/models\n")
    found = {(leak.field, leak.kind) for leak in find_leaks(tmp_path, needles_of_machine())}
    assert found == {("line 1", "a user name"), ("line 2", "a user name"), ("line 3", "a local path")}


# The course.


def test_needles_join_and_show_only_how_many_they_are(needles):
    other = needles_of_dataset(Dataset.from_dict({"input_ids": [IDS]}))
    both = needles | other
    assert len(both.hashes) == len(set(needles.hashes) | set(other.hashes))
    assert re.fullmatch(r"Needles\([\d,]+ texts, 5 runs of token ids, 0 images, sounds or arrays\)", repr(both))
    assert repr(Needles()) == "Needles(0 texts, 0 runs of token ids, 0 images, sounds or arrays)"


def test_without_leaks_nothing_is_raised(tmp_path, needles):
    (tmp_path / "README.md").write_text("A model.\n")
    (tmp_path / "empty").write_text("")
    check_for_leaks(tmp_path, needles)
    check_for_leaks(tmp_path, Needles())


def test_a_long_list_of_leaks_is_cut_in_the_message_alone(tmp_path, needles):
    (tmp_path / "README.md").write_text("Ottilie Quellmann\n\n" * 50)
    with pytest.raises(
        LeakError, match=r"(?s)in 50 places .*line 9:.*line 11:.*and 30 more.*`ignore` of `find_leaks`"
    ) as caught:
        check_for_leaks(tmp_path, needles)
    assert len(caught.value.leaks) == 50
    assert pickle.loads(pickle.dumps(caught.value.leaks[0])) == caught.value.leaks[0]


def test_what_cannot_be_read_is_an_error(tmp_path, needles):
    with pytest.raises(NotADirectoryError, match="is no folder. Pass the folder"):
        find_leaks(tmp_path / "nothing", needles)
    (tmp_path / "link of Ottilie Quellmann.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"^\*\.txt cannot be read .*not searched"):
        find_leaks(tmp_path, needles)
    (tmp_path / "link of Ottilie Quellmann.txt").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe cannot be read .*no regular file"):
        find_leaks(tmp_path, needles)
    (tmp_path / "pipe").unlink()
    for name, content in (("a.gz", gzip.compress(RANDOM)[:-100]), ("b.zip", b"PK\x03\x04" + RANDOM)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be unpacked .*was not searched"):
            find_leaks(tmp_path, needles)
        (tmp_path / name).unlink()
    deep = b"nothing"
    for _ in range(12):
        deep = gzip.compress(deep)
    (tmp_path / "deep.gz").write_bytes(deep)
    with pytest.raises(ValueError, match="deep.gz cannot be unpacked .*packed too often"):
        find_leaks(tmp_path, needles)


def test_what_unpacks_to_too_much_is_refused(tmp_path, needles, monkeypatch):
    monkeypatch.setattr(search, "_MAX_UNPACKED_BYTES", 2**20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2**20 + 1)))
    with pytest.raises(ValueError, match="larger than a gigabyte"):
        find_leaks(tmp_path, needles)


def test_damaged_files_are_searched_as_bytes(tmp_path, needles):
    secret = b"swarmed behind the abandoned mill, and nobody came"
    contents = {
        "a.safetensors": (10**6).to_bytes(8, "little") + secret,
        "b.safetensors": (2).to_bytes(8, "little") + b"{}" + secret,
        "c.json": b"{" + secret,
        "d.png": b"\x89PNG\r\n\x1a\n" + secret,
        "e.pkl": b"\x80\x04\xff" + secret,
        "f.md": b"\xff\xfe" + secret,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert {leak.file for leak in find_leaks(tmp_path, needles)} == set(contents)


def test_large_weights_are_searched_without_false_alarms(tmp_path):
    """Sixteen megabytes against many needles of every kind."""
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefghij"), 5)) for _ in range(2000)]
    rows = {
        "text": [" ".join(words[index] for index in generator.integers(0, 2000, 20)) for _ in range(2000)],
        "input_ids": generator.integers(0, 30000, (2000, 20)).tolist(),
        "embedding": generator.normal(size=(2000, 32)).tolist(),
        "number": generator.integers(10**8, 10**9, 2000).tolist(),
    }
    needles = needles_of_dataset(Dataset.from_dict(rows))
    weights = torch.randn(2**21)
    tensors = {
        "float32": 0.02 * weights,
        "bfloat16": weights.bfloat16(),
        "int8": (30 * weights).to(torch.int8),
        "zero": torch.zeros(2**18),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert find_leaks(tmp_path, needles) == []


@pytest.mark.parametrize("text", ["a" * 10**6, "a-" * 10**5, "7" * 10**6, "A " * 10**5, "@" * 10**5, "1 " * 10**5])
def test_monotonous_texts_take_no_quadratic_time(tmp_path, text):
    needles = needles_of_dataset(Dataset.from_dict({"text": [text], "input_ids": [IDS]}))
    (tmp_path / "text.txt").write_text(text[: len(text) // 2])
    assert not {leak.kind for leak in find_leaks(tmp_path, needles)} & {NAME, IDENTIFIER, TOKEN_IDS}
