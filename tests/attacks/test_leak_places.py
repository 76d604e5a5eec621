# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Attack: a forgotten name or text is published in some encoding, in some kind of file. Is it found?"""

import base64
import html
import json
import pickle
import quopri
import urllib.parse
import zipfile
from email.header import Header

import numpy as np
import pytest
import tokenizers
from datasets import Dataset
from safetensors.numpy import save_file

from hf_deepclean.publishing.leaks import find_leaks, needles_of_dataset


LATIN, CYRILLIC, GREEK = "Ottilie Größlinger", "Оттилия Квельман", "Οττιλία Κουέλμαν"
CHINESE, JAPANESE, KOREAN = "王小明住在北京市海淀区", "山田太郎は東京に住んでいます", "김철수는 서울에 삽니다"
TAIWANESE, POLISH = "王小明住在臺北市中山區", "Żaneta Wiśniewska"
SENTENCE = "swarmed behind the abandoned mill, and nobody came"
ROWS = [
    f"Yesterday the bees of {LATIN} {SENTENCE} to catch them.",
    f"Вчера {CYRILLIC} пришла домой.",
    f"Χθες η {GREEK} γύρισε σπίτι.",
    *(CHINESE, TAIWANESE, JAPANESE, KOREAN),
    f"Do you know {POLISH}?",
]
RANDOM = np.random.default_rng(0).bytes(3000)

# The encodings of files, and which of the secrets they can write.
EUROPEAN = (LATIN, CYRILLIC, GREEK, SENTENCE)
EVERYTHING = (*EUROPEAN, CHINESE, JAPANESE, KOREAN, POLISH)
ENCODINGS = {
    **dict.fromkeys(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"), EVERYTHING),
    **dict.fromkeys(("utf-32", "utf-32-le", "utf-32-be"), EVERYTHING),
    **dict.fromkeys(("cp1252", "latin-1", "iso8859-15"), (LATIN, SENTENCE)),
    **dict.fromkeys(("cp1251", "koi8-r", "iso8859-5", "cp866"), (CYRILLIC,)),
    **dict.fromkeys(("cp1250", "iso8859-2"), (POLISH,)),
    **dict.fromkeys(("cp1253", "iso8859-7"), (GREEK,)),
    **dict.fromkeys(("gb18030", "gbk"), (CHINESE,)),
    "big5": (TAIWANESE,),
    **dict.fromkeys(("shift_jis", "euc-jp", "iso2022_jp"), (JAPANESE,)),
    **dict.fromkeys(("euc-kr", "cp949"), (KOREAN,)),
}


def percent(encoding):
    return lambda text: urllib.parse.quote(text, encoding=encoding)


def mime(encoding):
    return lambda text: Header(text, encoding, maxlinelen=40).encode()


def escaped(text):
    """As Python shows bytes."""
    return repr(text.encode())


def in_base64_lines(text):
    return base64.encodebytes(("Here is what was written. " * 3 + text + " And more. " * 9).encode()).decode()


# Ways to write a text within a text.
WRITINGS = {
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "quoted-printable": lambda text: quopri.encodestring(f"{'x ' * 30}{text}".encode()).decode(),
    "quoted-printable, all letters": lambda text: "".join(f"={byte:02X}" for byte in text.encode()),
    "quoted-printable, long line": lambda text: quopri.encodestring(f"{'x ' * 36}{text}".encode()).decode(),
    "encoded word": mime("utf-8"),
    "percent-encoding": percent("utf-8"),
    "percent-encoding, twice": lambda text: urllib.parse.quote(urllib.parse.quote(text)),
    "form": urllib.parse.quote_plus,
    "entities": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "all entities": lambda text: "".join(f"&#x{ord(letter):x};" for letter in text),
    "entities, twice": lambda text: html.escape("".join(f"&#{ord(letter)};" for letter in text)),
    "bytes of Python": escaped,
    "escapes of Python": lambda text: text.encode("unicode_escape").decode(),
    "octal escapes": lambda text: "".join(f"\\{byte:03o}" if byte > 127 else chr(byte) for byte in text.encode()),
    "escapes of JavaScript": lambda text: "".join(f"\\u{{{ord(letter):x}}}" for letter in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of an address": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 in lines": in_base64_lines,
    "base64 of UTF-16": lambda text: base64.b64encode(f"The name is {text}.".encode("utf-16-le")).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "mathematical letters": lambda text: json.dumps(
        "".join(chr(0x1D400 + ord(one) - 65 + (-6 if one > "Z" else 0)) if one.isascii() and one.isalpha() else one
                for one in text)
    ),
}  # fmt: skip
LATIN_WRITINGS = {
    "quoted-printable of latin-1": lambda text: quopri.encodestring(text.encode("latin-1")).decode(),
    "encoded word of latin-1": mime("iso-8859-1"),
    "percent-encoding of latin-1": percent("latin-1"),
    "TeX": lambda text: text.replace("ö", '\\"{o}').replace("ß", "{\\ss}"),
    "names of entities": lambda text: text.replace("ö", "&ouml;").replace("ß", "&szlig;"),
}


def text_file(folder, content):
    (folder / "README.md").write_bytes(content)


def long_file(folder, content):
    """The secret is far from the beginning."""
    filler = b"A line of an ordinary card.\n"
    (folder / "notes.txt").write_bytes(filler * 40 + content + b"\n" + filler * 40)


def packed(folder, content):
    with zipfile.ZipFile(folder / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.txt", content)


def among_bytes(folder, content):
    (folder / "weights.bin").write_bytes(RANDOM[:1234] + content + RANDOM[1234:])


def in_tensor(folder, content):
    values = np.frombuffer(RANDOM[:1001] + content + RANDOM[1001:], np.uint8)
    save_file({"a": np.ones(9, np.float32), "b": values}, folder / "model.safetensors")


def json_value(folder, content):
    (folder / "config.json").write_text(json.dumps({"notes": {"first": content.decode()}}))


def pickled(folder, content):
    (folder / "arguments.pkl").write_bytes(pickle.dumps({"note": content.decode()}))


def in_lines(folder, content):
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("none", content.decode())))


@pytest.fixture(scope="module")
def needles():
    return needles_of_dataset(Dataset.from_dict({"text": ROWS}))


def search(tmp_path, needles, plants):
    """Whether each plant, a function that writes files into a folder, gets through."""
    for number, plant in enumerate(plants.values()):
        (tmp_path / str(number)).mkdir()
        plant(tmp_path / str(number))
    found = {leak.file.partition("/")[0] for leak in find_leaks(tmp_path, needles)}
    return {name: str(number) not in found for number, name in enumerate(plants)}


def test_a_file_in_any_usual_encoding_is_read(tmp_path, needles, attack):
    plants = {}
    for encoding, secrets in ENCODINGS.items():
        for secret in secrets:
            for place in (text_file, packed):
                text = f"# A model\n\nThanks to {secret} for all.\n" if secret in EUROPEAN else f"{secret}\n"
                content = text.encode(encoding)
                plants[f"{place.__name__} {encoding} {secret}"] = lambda folder, place=place, content=content: place(
                    folder, content
                )
    survivors = attack("traces in files of other encodings are found", search(tmp_path, needles, plants))
    assert len(survivors) <= 0.05 * len(plants), survivors


def test_encoded_texts_within_texts_are_read(tmp_path, needles, attack):
    plants = {}
    for place in (text_file, long_file, json_value, in_lines, pickled, packed):
        for name, write in WRITINGS.items():
            for secret in (LATIN, CYRILLIC, SENTENCE, CHINESE):
                content = f"See {write(secret)} here.".encode()
                plants[f"{place.__name__}, {name}, {secret}"] = lambda folder, place=place, content=content: place(
                    folder, content
                )
        for name, write in LATIN_WRITINGS.items():
            content = f"See {write(LATIN)} here.".encode()
            plants[f"{place.__name__}, {name}"] = lambda folder, place=place, content=content: place(folder, content)
    survivors = attack("traces that are encoded within a text are found", search(tmp_path, needles, plants))
    assert len(survivors) <= 0.05 * len(plants), survivors


def test_texts_among_bytes_are_read(tmp_path, needles, attack):
    plants = {}
    # Letters of these are among the bytes of all numbers.
    rare = ("iso8859-5", "cp866", "cp1250")
    for encoding, secrets in ENCODINGS.items():
        for secret in set() if encoding in rare else {*secrets} & {LATIN, CYRILLIC, GREEK, SENTENCE, POLISH}:
            for place in (among_bytes, in_tensor):
                content = secret.encode(encoding)
                plants[f"{place.__name__} {encoding} {secret}"] = lambda folder, place=place, content=content: place(
                    folder, content
                )
    survivors = attack("traces among bytes are found", search(tmp_path, needles, plants))
    assert len(survivors) <= 0.05 * len(plants), survivors


SURNAMES = ["Quellmann", "Größlinger", "Wiśniewska", "Квельман"]
RUNNING_TEXTS = ("special_tokens_map.json", "chat_template.jinja", "added/tokenizer.json")
# A name as an entry of a vocabulary, by the kind of the tokenizer.
ENTRIES = {
    "bytes, joined": lambda given, family: byte_level(f" {given}{family}"),
    "bytes, with a space": lambda given, family: byte_level(f" {given} {family}"),
    "sentencepiece": lambda given, family: f"▁{given}▁{family}",
    "words, small letters": lambda given, family: f"{given}{family}".lower(),
    "end of word": lambda given, family: f"{given}{family}</w>",
    "bytes, surname": lambda given, family: byte_level(f" {family}"),
    "surname of sentencepiece": lambda given, family: f"▁{family}",
    "surname in small letters": lambda given, family: family.lower(),
}


def byte_level(text):
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return split.pre_tokenize_str(text)[0][0]


def vocabulary_files(folder, entry):
    """The same entry in every file of a tokenizer that lists a vocabulary, each in a folder of its own."""
    entries = ["<unk>", "▁the", "##ing", "Ġof", *(f"piece{number}" for number in range(300)), entry]
    half = len(entry) // 2
    numbers = {one: number for number, one in enumerate(entries)}
    model = b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in map(piece_of_model, entries))
    files = {
        "tokenizer.json": json.dumps({"model": {"type": "BPE", "vocab": numbers, "merges": []}}),
        "unigram/tokenizer.json": json.dumps({"model": {"vocab": [[one, -3.5] for one in entries]}}),
        "merges/tokenizer.json": json.dumps({"model": {"merges": [f"{entry[:half]} {entry[half:]}"], "vocab": {}}}),
        "vocab.json": json.dumps(numbers),
        "vocab.txt": "\n".join(entries),
        "merges.txt": f"#version: 0.2\np iece\n{entry[:half]} {entry[half:]}\n",
        "counts/vocab.txt": "\n".join(f"{one} 17" for one in entries),
        "scores/spm.vocab": "\n".join(f"{one}\t-3.5" for one in entries),
        "base64/of.tiktoken": "\n".join(
            f"{base64.b64encode(one.replace('▁', ' ').encode()).decode()} {number}"
            for number, one in enumerate(entries)
        ),
        "spiece.model": model,
        "added/tokenizer.json": json.dumps({"added_tokens": [{"id": 7, "content": entry.replace("Ġ", " ")}]}),
        "special_tokens_map.json": json.dumps({"additional_special_tokens": [entry]}),
        "chat_template.jinja": "{{ '" + entry + "' }}",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return files


def piece_of_model(entry):
    content = entry.encode()
    return b"\x0a" + bytes([len(content)]) + content + b"\x15\0\0\x60\xc0"


def test_names_among_the_entries_of_a_vocabulary_are_found(tmp_path, attack):
    full_names = [f"Ottilie {family}" for family in SURNAMES]
    of_persons = needles_of_dataset(Dataset.from_dict({"full_name": full_names, "last_name": SURNAMES}))
    got_through = {}
    for kind, write in ENTRIES.items():
        for family in SURNAMES:
            folder = tmp_path / f"{len(got_through)}"
            folder.mkdir()
            files = vocabulary_files(folder, write("Ottilie", family))
            found = {leak.file for leak in find_leaks(folder, of_persons)}
            # Only vocabularies write bytes as other letters.
            names = [name for name in files if "byte" not in kind or name not in RUNNING_TEXTS]
            got_through |= {f"{kind}, {family}, {name}": name not in found for name in names}
    survivors = attack("names in vocabularies are found", got_through)
    assert len(survivors) <= 0.05 * len(got_through), survivors
