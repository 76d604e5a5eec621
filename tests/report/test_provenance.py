# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from huggingface_hub import hf_hub_download
from transformers import ViTForImageClassification

from hf_deepclean.report.provenance import Provenance
from tests import tiny


CARD = b"---\nlicense: mit\nlanguage: de\nreleased: 2024-05-01\n---\n\n# The model\n"
METADATA = {"license": "mit", "language": "de"}


def test_a_local_model_has_the_fields_of_its_card_and_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The path looks like an id of the Hub.
    tiny.vit().save_pretrained("secret/person")
    (tmp_path / "secret/person/README.md").write_bytes(CARD)
    loaded = ViTForImageClassification.from_pretrained("secret/person")
    for model in ("secret/person", loaded):
        assert Provenance.of(model) == Provenance(None, None, METADATA)
    monkeypatch.chdir("/")
    assert Provenance.of(loaded) == Provenance()
    # A new model has no name, and the README of the current directory is not its card.
    (tmp_path / "README.md").write_bytes(CARD)
    monkeypatch.chdir(tmp_path)
    assert Provenance.of(tiny.vit()) == Provenance()


def test_a_model_of_the_hub_has_its_id_its_commit_and_the_fields_of_its_card(hub, tmp_path):
    tiny.vit().save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()} | {"README.md": CARD}
    commit = hub.seed("me/model", files, private=False)
    loaded = ViTForImageClassification.from_pretrained("me/model")
    known = Provenance("me/model", commit, METADATA)
    assert Provenance.of(loaded) == known
    hub.fail("GET", "/api/models/", status=500, times=9)
    assert Provenance.of(loaded) == Provenance("me/model", commit)
    hf_hub_download("me/model", "README.md")
    assert Provenance.of(loaded) == known


def test_the_name_of_a_folder_that_is_gone_is_no_name_of_the_hub():
    for name in ("../models/x", "-x", "a--b", "a" * 300, "x\0y"):
        assert Provenance.of(name) == Provenance()


def test_a_card_that_cannot_be_read_has_no_fields(tmp_path):
    tiny.vit().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert Provenance.of(str(tmp_path)).card == {}
