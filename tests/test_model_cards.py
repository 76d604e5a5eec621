# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The code renders the cards in `model_cards/` from the reports beside them."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_deepclean import PublicReport
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in


ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
NAMES = sorted(path.name for path in CARDS.iterdir() if path.is_dir())


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import model_cards

    yield model_cards
    del sys.modules["model_cards"]


def test_there_is_a_card_of_every_run_and_the_page_links_to_it(recipe):
    assert NAMES == sorted(recipe.RUNS)
    page = (CARDS / "README.md").read_text()
    for name in NAMES:
        assert f"({name}/README.md)" in page


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_what_its_report_is_rendered_as(recipe, name):
    card = (CARDS / name / "README.md").read_text()
    assert card == recipe.render(name)
    assert_is_a_valid_card(card)
    record = json.loads((CARDS / name / "report.json").read_text())
    public = PublicReport.from_dict(record)
    assert public.disclosure == "withheld" and public == public.as_withheld()
    assert recipe.mask_report(record) == record
    assert numbers_missing_in(card, record) == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_of_the_card_are_there(name):
    pictures = re.findall(r"!\[[^]]+\]\((\S+)\)", (CARDS / name / "README.md").read_text())
    assert {f"plots/{path.name}" for path in (CARDS / name / "plots").iterdir()} == set(pictures)
    for picture in pictures:
        with Image.open(CARDS / name / picture) as image:
            image.verify()


def test_what_differs_from_run_to_run_is_masked(recipe):
    card = (
        f"commitment: '{'ab' * 32}'\n  hf_deepclean: 1.2\nkeyed commitment, `{'cd' * 32}`\n"
        "- ViT; python 3.11, torch 2.\n"
        f"SHA-256 of all above: {'ef' * 32} -->\n"
    )
    assert not re.search(r"[0-9a-f]{64}|1\.2|torch", recipe.mask_card(card))
    assert recipe.mask_card(card).count("masked") == 5
