# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Tiny real runs of known size, and an attack that guesses the number of forgotten rows from what they published.

A run forgets 50 to 450 rows of 2,000: rows drawn at random, or every row of one class. Everybody knows the 2,000, the
range and the settings. The attacker has also seen the published records of other such runs, with their sizes.
"""

from pathlib import Path

import datasets
import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import BertConfig, BertForSequenceClassification

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig, UnlearningReport
from tests import tiny


NUM_TRAINING, NUM_OTHERS, FEWEST, MOST = 2000, 200, 50, 450
KINDS = ("text", "image")
VOCABULARY, LENGTH, NUM_CLASSES = 4000, 10, 5
SETTINGS = {
    "num_train_epochs": 1,
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 256,
    "max_repair_rounds": 1,
    "disable_tqdm": True,
    "report_to": "none",
}


def sizes(number: int) -> list[int]:
    """Numbers of forgotten rows, evenly spaced on a logarithmic scale, in random order."""
    spaced = np.geomspace(FEWEST, MOST, number).round().astype(int)
    return np.random.default_rng(0).permutation(spaced).tolist()


# The same request is published twice, with other settings and another seed.
PUBLICATIONS = {
    "text": ({"reset_fraction": 0.05}, {"gamma": 2.0, "learning_rate": 5e-3}),
    "image": ({"selection": "adaptive"}, {"gamma": 2.0, "learning_rate": 5e-3}),
}


def run(kind: str, number: int, num_forget: int, directory: Path, seed: int, **settings) -> UnlearningReport:
    """Forgets a class in every second run, and rows drawn at random in the others. `number` draws data and model."""
    generator = np.random.default_rng(number)
    # A class that is forgotten has as many rows as are forgotten.
    forgotten = np.arange(NUM_TRAINING + NUM_OTHERS) < num_forget
    labels = generator.integers(number % 2, NUM_CLASSES, len(forgotten)) * (1 - forgotten * (number % 2))
    order = generator.permutation(len(labels))
    forgotten, labels = forgotten[order], labels[order]
    rows = (_texts if kind == "text" else _images)(labels, generator)
    forget, rest = np.flatnonzero(forgotten), np.flatnonzero(~forgotten)
    retain, unseen, evaluated = rest[: NUM_TRAINING - num_forget], rest[-NUM_OTHERS:], rest[-NUM_OTHERS // 2 :]
    torch.manual_seed(number)
    model = _text_model() if kind == "text" else tiny.vit(num_labels=NUM_CLASSES)
    _train(model, rows.select(np.concatenate([forget, retain])))
    arguments = FisherUnlearningConfig(str(directory), seed=seed, **(SETTINGS | settings))
    return FisherUnlearner(
        model,
        arguments,
        forget_dataset=rows.select(forget),
        retain_dataset=rows.select(retain),
        unseen_dataset=rows.select(unseen[: NUM_OTHERS // 2]),
        eval_dataset=rows.select(evaluated),
    ).unlearn()


def _texts(labels: np.ndarray, generator: np.random.Generator) -> datasets.Dataset:
    """Words by Zipf's law. Some words of a row tell its class."""
    weights = 1 / np.arange(1, VOCABULARY - NUM_CLASSES)
    words = NUM_CLASSES + 1 + generator.choice(len(weights), size=(len(labels), LENGTH), p=weights / weights.sum())
    told = generator.random(len(labels)) < 0.8
    words[told, 0] = labels[told] + 1
    return datasets.Dataset.from_dict({"input_ids": words, "labels": labels}).with_format("torch")


def _images(labels: np.ndarray, generator: np.random.Generator) -> datasets.Dataset:
    patterns = np.random.default_rng(0).normal(size=(NUM_CLASSES, 1, 8, 8))
    images = patterns[labels] + generator.normal(size=(len(labels), 1, 8, 8))
    return datasets.Dataset.from_dict({"pixel_values": images.astype(np.float32), "labels": labels}).with_format(
        "torch"
    )


def _text_model() -> BertForSequenceClassification:
    shape = {"vocab_size": VOCABULARY, "num_labels": NUM_CLASSES, "num_hidden_layers": 1}
    return BertForSequenceClassification(BertConfig(**(tiny.TEXT | shape)))


def _train(model: torch.nn.Module, rows: datasets.Dataset) -> None:
    optimizer, batch = torch.optim.AdamW(model.parameters(), lr=5e-3), rows[:]
    for places in torch.randperm(len(rows)).repeat(2).split(50):
        model(**{name: values[places] for name, values in batch.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def numbers(record, path: str = "") -> dict[str, float]:
    """All numbers in a published record, by their place. Places that are there or not count too."""
    found = {}
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for name, value in items:
        place = f"{path}/{name}"
        if isinstance(value, (dict, list)):
            found |= {f"{place}/length": float(len(value))} | numbers(value, place)
        elif isinstance(value, (bool, int, float)):
            found[place] = float(value)
        else:
            found[f"{place}/={value}"] = 1.0
    return found


def features(records: list[dict[str, float]]) -> np.ndarray:
    """The numbers of several runs as a table, on a logarithmic and a linear scale; constant columns are left out."""
    names = sorted({name for record in records for name in record})
    table = np.nan_to_num([[record.get(name, 0.0) for name in names] for record in records], posinf=1e9)
    table = np.concatenate([np.sign(table) * np.log(np.abs(table) + 1e-9), table], axis=1)
    varies = table.std(0) > 1e-9 * (1 + np.abs(table).mean(0))
    return table[:, varies]


def guesses(table: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """
    Guesses every run's value from all other runs, by several attacks: the one field that fits the others best, the
    five best together, the nearest neighbours and a ridge regression on all fields.

    Args:
        table (`np.ndarray`): The features, shape `(num_runs, num_features)`.
        truth (`np.ndarray`): The value to guess, shape `(num_runs,)`.

    Returns:
        `dict[str, np.ndarray]`: The guesses by attack; `"prior"` is the mean of the others.
    """
    found = {name: np.empty(len(truth)) for name in ("prior", "best field", "five fields", "neighbours", "ridge")}
    for left_out in range(len(truth)):
        known = np.arange(len(truth)) != left_out
        values, mean = truth[known], truth[known].mean()
        found["prior"][left_out] = mean
        spread = table[known].std(0)
        usable = spread > 1e-12
        if not usable.any():
            for guess in found.values():
                guess[left_out] = mean
            continue
        columns = (table[:, usable] - table[known][:, usable].mean(0)) / spread[usable]
        rows, row = columns[known], np.clip(columns[left_out], -5, 5)
        slopes = rows.T @ (values - mean) / len(values)
        order = np.argsort(-np.abs(slopes))
        found["best field"][left_out] = mean + slopes[order[0]] * row[order[0]]
        found["five fields"][left_out] = mean + (slopes[order[:5]] * row[order[:5]]).mean()
        nearest = np.argsort(np.abs(rows - row).sum(1))[:3]
        found["neighbours"][left_out] = values[nearest].mean()
        kernel = rows @ rows.T / rows.shape[1]
        weights = np.linalg.solve(kernel + 0.3 * np.eye(len(values)), values - mean)
        found["ridge"][left_out] = mean + row @ rows.T @ weights / rows.shape[1]
    return found


def attack(tables: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """
    Attacks the runs of every kind of model.

    Args:
        tables (`list[np.ndarray]`): The features by kind of model.
        truths (`list[np.ndarray]`): The logarithms of the numbers of forgotten rows by kind of model.

    Returns:
        `dict[str, tuple[float, float]]`: Mean absolute logarithmic error and rank correlation by attack.
    """
    by_kind = [guesses(table, truth) for table, truth in zip(tables, truths, strict=True)]
    truth = np.concatenate(truths)
    joined = {name: np.concatenate([found[name] for found in by_kind]) for name in by_kind[0]}
    return {
        name: (float(np.abs(guess - truth).mean()), float(spearmanr(guess, truth).statistic))
        for name, guess in joined.items()
    }


def smallest_error(tables: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """The mean absolute logarithmic error of the best attack."""
    return min(error for name, (error, _) in attack(tables, truths).items() if name != "prior")


def chance(tables: list[np.ndarray], truths: list[np.ndarray], num_draws: int = 200) -> float:
    """How often the best attack does as well as here when the sizes are shuffled, so that nothing can tell them."""
    generator = np.random.default_rng(0)
    smallest = smallest_error(tables, truths)
    shuffled = ([generator.permutation(truth) for truth in truths] for _ in range(num_draws))
    return sum(smallest_error(tables, truth) <= smallest for truth in shuffled) / num_draws
