# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Checks a rendered card against its public report."""

import re

import yaml
from huggingface_hub import ModelCard

from hf_deepclean.publishing.card import static_text


NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


def numbers_of(text):
    return {float(number.replace(",", "")) for number in NUMBER.findall(text)}


def leaves(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def numbers_missing_in(card, record):
    """The numbers on a card, metadata included, that are neither in the public report nor in the fixed text."""
    # The checksum of the card is the only number that no report can hold.
    text = re.sub(r"<!-- Generated.*-->", "", str(card))
    known = numbers_of(static_text())
    for leaf in leaves(record):
        if isinstance(leaf, str):
            known |= numbers_of(leaf)
        elif leaf is not None and not isinstance(leaf, bool):
            known |= {float(leaf), float(f"{leaf:.4g}"), round(100 * leaf, 2)}
    # The card shows at most four digits of a number.
    return {number for number in numbers_of(text) if not any(abs(number - one) <= 1e-9 * abs(one) for one in known)}


def assert_is_a_valid_card(text):
    """The metadata follow the Hub's specification, and nothing was left undefined."""
    card = ModelCard(text)
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert all(isinstance(tag, str) for tag in metadata["tags"])
    assert metadata["library_name"] in ("transformers", "peft")
    for entry in metadata.get("model-index", []):
        for result in entry["results"]:
            assert result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
            assert all(isinstance(metric["value"], (int, float)) and metric["type"] for metric in result["metrics"])
    assert card.data.to_dict()["unlearning"]["num_changed_outside"] == 0
    for undefined in (r"\bUndefined", r"\bNone\b", r"\bnan\b", "{{", "}}", "{%", "!!python"):
        assert not re.search(undefined, text), undefined
