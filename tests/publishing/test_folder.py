# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import ViTForImageClassification

from hf_deepclean import (
    ForgetCommitment,
    LeakError,
    Publication,
    PublicReport,
    UnlearningCard,
    UnlearningReport,
    needles_of_dataset,
    save_published,
)
from hf_deepclean.publishing.folder import card_of_run, relative_files
from tests import published
from tests.card_checks import assert_is_a_valid_card


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a finished run of a classifier, and its needles."""
    shutil.copytree(runs["classifier"].args.output_dir, tmp_path / "run")
    return tmp_path / "run", needles_of_dataset(runs["classifier"].forget_dataset)


def test_a_folder_gets_what_a_push_would_publish_and_loads(runs, tmp_path, with_pictures):
    unlearner = runs["classifier"]
    files = unlearner.save_pretrained(tmp_path / "public", repo_id="me/clean")
    assert files == relative_files(tmp_path / "public")
    assert set(files) >= {"README.md", "config.json", "model.safetensors", "plots/loss.png", "report.json"}
    assert not any("commitment" in name for name in files)
    loaded = ViTForImageClassification.from_pretrained(tmp_path / "public")
    assert torch.equal(published.logits(loaded, "classifier"), published.logits(unlearner.model, "classifier"))
    public = PublicReport.load(tmp_path / "public" / "report.json")
    kept = ForgetCommitment.load(f"{unlearner.args.output_dir}/forget_commitment.json")
    assert public.commitment == kept.commitment
    assert kept.verify(unlearner.forget_dataset)
    # The files are copies: changing one does not change the other.
    with (tmp_path / "public" / "model.safetensors").open("r+b") as file:
        file.write(b"x")
    assert ViTForImageClassification.from_pretrained(unlearner.args.output_dir)


def test_nothing_is_overwritten_and_nothing_is_left_of_a_refusal(run, tmp_path):
    folder, needles = run
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        save_published(folder, tmp_path / "taken", needles)
    (folder / "config.json").write_text(json.dumps({"note": str(folder)}))
    before = relative_files(folder)
    with pytest.raises(LeakError, match=r"config\.json, note: "):
        save_published(folder, tmp_path / "new", needles)
    assert not (tmp_path / "new").exists()
    assert relative_files(folder) == before


def test_the_configuration_is_the_one_from_before(runs, tmp_path):
    """Training and the constructor of Trainer change the configuration on the way."""
    torch.manual_seed(0)
    untouched = published.RUNS["classifier"](tmp_path / "run").model
    original = ViTForImageClassification(untouched.config)
    original.save_pretrained(tmp_path / "original")
    kept = json.loads((tmp_path / "original" / "config.json").read_text())
    runs["classifier"].save_pretrained(tmp_path / "public")
    assert json.loads((tmp_path / "public" / "config.json").read_text()) == kept


def test_local_paths_give_way_to_the_hubs_name_or_to_none(runs, tmp_path):
    unlearner = runs["adapter"]
    unlearner.save_pretrained(tmp_path / "nameless")
    config = json.loads((tmp_path / "nameless" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    unlearner.save_pretrained(tmp_path / "named", base_model="me/base")
    config = json.loads((tmp_path / "named" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base"
    data = ModelCard.load(tmp_path / "named" / "README.md").data
    assert (data.base_model, data["base_model_relation"], data.library_name) == ("me/base", "adapter", "peft")
    original = json.loads((Path(unlearner.args.output_dir) / "adapter_config.json").read_text())
    assert original["base_model_name_or_path"] == str(Path(unlearner.args.output_dir).parent / "base")


def test_a_card_of_the_owners_goes_out_as_it_is_and_the_generated_one_beside_it(run, tmp_path):
    folder, needles = run
    own = "---\nlicense: mit\n---\n\n# My model\n"
    (folder / "README.md").write_text(own)
    save_published(folder, tmp_path / "public", needles)
    assert (tmp_path / "public" / "README.md").read_text() == own
    assert UnlearningCard.is_generated((tmp_path / "public" / "UNLEARNING.md").read_text())
    (folder / "README.md").write_text(str(card_of_run(folder)))
    save_published(folder, tmp_path / "again", needles, Publication(forget_disclosure="size"))
    assert not (tmp_path / "again" / "UNLEARNING.md").exists()
    assert "disclosure: size" in (tmp_path / "again" / "README.md").read_text()


def test_trainers_card_is_the_unlearning_card_and_overwrites_none_by_hand(runs):
    unlearner = runs["classifier"]
    readme = Path(unlearner.args.output_dir) / "README.md"
    for disclosure in ("withheld", "size"):
        unlearner.create_model_card(forget_disclosure=disclosure)
        assert f"disclosure: {disclosure}" in readme.read_text()
    readme.write_text("# My model\n")
    with pytest.raises(FileExistsError, match="written by hand"):
        unlearner.create_model_card()
    readme.unlink()


def test_the_metadata_of_the_model_from_before_are_on_the_card(tmp_path):
    unlearner = published.RUNS["classifier"](tmp_path / "first")
    unlearner.model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_bytes(
        b"\xef\xbb\xbf---\r\nlicense: mit\r\nlanguage: no\r\ndatasets: [me/secret]\r\nself: 1\r\nto_yaml: 2\r\n"
        b"base_model: /home/someone/models/x\r\n---\r\n\r\n# It, caf\xe9\r\n"
    )
    again = type(unlearner)(
        str(tmp_path / "model"),
        published.arguments(tmp_path / "run"),
        forget_dataset=unlearner.forget_dataset,
        retain_dataset=unlearner.retain_dataset,
    )
    again.unlearn()
    again.save_pretrained(tmp_path / "public")
    card = (tmp_path / "public" / "README.md").read_text()
    assert_is_a_valid_card(card)
    assert "someone" not in card
    data = ModelCard.load(tmp_path / "public" / "README.md").data.to_dict()
    assert data["license"] == "mit" and data["language"] == "no"
    assert "datasets" not in data and "base_model" not in data
    assert UnlearningReport.load(tmp_path / "run" / "report.json").provenance.card["license"] == "mit"


def test_the_words_on_what_was_forgotten_must_fit(run, tmp_path):
    folder, needles = run
    with pytest.raises(ValueError, match="forget_description"):
        save_published(folder, tmp_path / "public", needles, Publication(forget_disclosure="description"))
    told = Publication(forget_disclosure="description", forget_description="a tenth of the digits")
    save_published(folder, tmp_path / "public", needles, told)
    assert "a tenth of the digits" in (tmp_path / "public" / "README.md").read_text()
