# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Ten folders as people publish them, and ten data sets to forget that have nothing to do with them."""

import ast
import importlib.util
import json
import shutil
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import tokenizers
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.numpy import save_file
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedTokenizerFast, ViTConfig

from tests import tiny


CARDS = Path(__file__).parents[2] / "model_cards"
sys.path.insert(0, str(CARDS.parent / "recipes"))
try:
    import example_data
finally:
    sys.path.pop(0)


@cache
def definitions(number, are_published=False):
    """Definitions of WordNet. Of any two in turn, one may be published and the other is forgotten."""
    texts = list(dict.fromkeys(synset.definition for synset in example_data.synsets()))
    return texts[not are_published :: 2][:number]


def page_of(package):
    """The page of a package, as a hand-written card."""
    return distribution(package).metadata.get_payload() or distribution(package).metadata["Description"] or ""


def licence_of(package):
    files = distribution(package).files or []
    return next(file.locate() for file in files if "licen" in file.name.lower() and file.suffix in ("", ".txt", ".md"))


def trained(kind, size):
    """A tokenizer of one of three kinds, trained on definitions."""
    models, trainers, parts = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
    options = {"vocab_size": size, "show_progress": False}
    if kind == "WordPiece":
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = (
            tokenizers.normalizers.BertNormalizer(),
            parts.BertPreTokenizer(),
        )
        trainer = trainers.WordPieceTrainer(special_tokens=["[UNK]", "[PAD]"], **options)
    elif kind == "Unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = parts.Metaspace()
        trainer = trainers.UnigramTrainer(special_tokens=["<unk>", "<pad>"], unk_token="<unk>", **options)
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = parts.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(special_tokens=["<pad>"], **options)
    tokenizer.train_from_iterator([*definitions(2500, True), page_of("transformers")], trainer)
    return tokenizer


CHAT = "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }}{% endfor %}"
# The card, a licence, the tokenizer and the configuration of each folder.
FOLDERS = {
    "biographies": (CARDS / "biographies", "numpy", "BPE", LlamaConfig),
    "biographies-adapter": (CARDS / "biographies-adapter", "torch", "BPE", LlamaConfig),
    "digits-class": (CARDS / "digits-class", "scipy", None, ViTConfig),
    "digits-random": (CARDS / "digits-random", "pillow", None, ViTConfig),
    "text-classifier": (CARDS / "text-classifier", "packaging", "WordPiece", BertConfig),
    "page of transformers": ("transformers", "transformers", "WordPiece", BertConfig),
    "page of datasets": ("datasets", "datasets", "Unigram", LlamaConfig),
    "page of peft": ("peft", "peft", "BPE", GPT2Config),
    "page of scikit-learn": ("scikit-learn", "scikit-learn", "Unigram", BertConfig),
    "page of networkx": ("networkx", "networkx", "BPE", GPT2Config),
}


def write_folder(folder, name):
    card, package, kind, config = FOLDERS[name]
    if isinstance(card, Path):
        shutil.copytree(card, folder)
    else:
        folder.mkdir()
        (folder / "README.md").write_text(f"---\nlicense: mit\n---\n\n{page_of(card)}", encoding="utf-8")
    shutil.copy(licence_of(package), folder / "LICENSE.txt")
    names = {"id2label": dict(enumerate(example_data.GLOSS_CLASSES))}
    config(**names if kind is None or config is BertConfig else {}).save_pretrained(folder)
    generator = np.random.default_rng(len(name))
    weights = {f"layers.{number}.weight": 0.02 * generator.normal(size=(64, 64)) for number in range(12)}
    save_file({key: value.astype(np.float32) for key, value in weights.items()}, folder / "model.safetensors")
    if kind is not None:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained(kind, 4000), chat_template=CHAT)
        tokenizer.save_pretrained(folder)
        tokenizer.backend_tokenizer.model.save(str(folder))
    (folder / "generation_config.json").write_text(json.dumps({"max_length": 128, "eos_token_id": [128001, 128009]}))


def functions_of(package, number):
    """The functions of a package, with their names."""
    sources = sorted(Path(importlib.util.find_spec(package).origin).parent.rglob("*.py"))
    rows = []
    for source in sources:
        text = source.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and len(rows) < number:
                rows.append({"func_name": node.name, "code": ast.get_source_segment(text, node)})
    return Dataset.from_list(rows)


def reviews():
    subjects = ("story", "cast", "music", "ending", "camera", "dialogue", "pace", "humour")
    verdicts = ("deeply moving", "a bit dull", "not bad", "very good", "Simply Great", "far too long", "one of a kind")
    texts = [f"The {one} is {verdict}." for one in subjects for verdict in verdicts]
    features = Features({"review": Value("string"), "label": ClassLabel(names=["Very Bad", "Very Good"])})
    return Dataset.from_dict({"review": texts, "label": [place % 2 for place in range(len(texts))]}, features)


def questions():
    texts = [f"What is {text.split(';')[0]}?" for text in definitions(200)]
    return Dataset.from_dict({"question": texts, "intent": ["ask_meaning", "ask_other"] * (len(texts) // 2)})


def news():
    people = example_data.fictitious_people(150, 5)
    texts = [
        f"{one['city']}: {one['company']} said on Monday that {one['name']}, {one['job']}, will leave in 2024. The "
        f"New York office stays open, the United States division too. It employs {1200 + 7 * place} people."
        for place, one in enumerate(people)
    ]
    return Dataset.from_dict({"article": texts, "topic": ["World News", "Business"] * 75})


def numbers():
    generator = np.random.default_rng(3)
    columns = {"account_id": generator.integers(10**7, 10**8, 400), "amount": generator.normal(size=400).round(2)}
    return Dataset.from_dict(
        {name: column.tolist() for name, column in columns.items()} | {"year": [2019, 2020] * 200}
    )


def one_person():
    return Dataset.from_list(example_data.sentences(example_data.fictitious_people(3, 11)[0]))


def customers():
    people = example_data.fictitious_people(300, 17)
    names = [one["name"].split() for one in people]
    rows = {"first_name": [one[0] for one in names], "last_name": [one[-1] for one in names]}
    return Dataset.from_dict(rows | {"street": [one["street"] for one in people]})


FORGET_SETS = {
    "names": lambda: example_data.load_people(300, seed=23)["train"],
    "customers": customers,
    "reviews": reviews,
    "questions": questions,
    "code": lambda: functions_of("mpmath", 300),
    "news": news,
    "numbers": numbers,
    "one person": one_person,
    "five thousand definitions": lambda: Dataset.from_dict({"text": definitions(5000)}),
    "pictures": lambda: tiny.digits().select(range(200)),
}
