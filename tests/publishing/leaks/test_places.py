# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Texts are found in every place of every kind of file, however they are written."""

import bz2
import gzip
import html
import json
import lzma
import zipfile
from functools import partial
from urllib.parse import quote

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from hf_deepclean.publishing.leaks import Leak, LeakError, check_for_leaks, find_leaks, needles_of_dataset, words
from hf_deepclean.publishing.leaks import file_search as search
from hf_deepclean.publishing.leaks.words import Words
from tests.publishing.leaks.rows import RANDOM, SECRETS, letters
from tests.tokenizers import byte_tokenizer


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
        # The same run, within another text.
        inside = Words(f"xyz, {text} xyz")
        assert inside.hashes(np.array([3]), inside.starts[-1:] - 3)[0] == value
    assert len(set(seen.values())) == len(seen)
