# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pushes by the real client to a Hub on this machine."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from hf_deepclean import PublicReport, needles_of_dataset, push_folder_to_hub
from tests import published
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in
from tests.publishing.pushing import ALLOWED, PICTURES, REPO, head_files, output, push


@pytest.mark.parametrize("kind", published.RUNS)
def test_what_is_pulled_answers_as_what_was_pushed(runs, hub, api, kind, tmp_path, with_pictures):
    """Round trip: one commit, the files of the allow-list, the same logits from a clean cache."""
    unlearner = runs[kind]
    result = push(unlearner, api)
    assert [commit.title for commit in hub.commits(REPO)][:-1] == ["Add the cleaned model"]
    assert head_files(hub) == ALLOWED[kind] | PICTURES == set(result.files)
    assert hub.repo(REPO).private
    pulled = published.load(REPO, kind, output(unlearner), token=hub.token, cache_dir=tmp_path)
    assert torch.equal(published.logits(pulled, kind), published.logits(unlearner.model, kind))
    if kind != "classifier":
        tokenizer = AutoTokenizer.from_pretrained(REPO, token=hub.token, cache_dir=tmp_path)
        assert tokenizer("a word").input_ids == unlearner.processing_class("a word").input_ids
    card = hub.files(REPO)["README.md"].decode()
    assert_is_a_valid_card(card)
    record = json.loads(hub.files(REPO)["report.json"])
    assert numbers_missing_in(card, record) == set()
    assert PublicReport.from_dict(record).commitment is not None


def test_weights_in_shards_make_the_round_trip(runs, hub, api, tmp_path):
    unlearner = runs["classifier"]
    folder = tmp_path / "run"
    shutil.copytree(output(unlearner), folder)
    published.in_shards(folder)
    result = push_folder_to_hub(folder, REPO, needles=needles_of_dataset(unlearner.forget_dataset), api=api)
    shards = {path.name for path in folder.glob("model-*-of-*.safetensors")}
    assert len(shards) > 2
    expected = ALLOWED["classifier"] - {"model.safetensors"} | shards | {"model.safetensors.index.json"}
    assert set(result.files) == head_files(hub) == expected
    assert len(hub.commits(REPO)) == 2
    pulled = published.load(REPO, "classifier", folder, token=hub.token, cache_dir=tmp_path / "cache")
    assert torch.equal(published.logits(pulled, "classifier"), published.logits(unlearner.model, "classifier"))
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match="lacks model-00002"):
        push_folder_to_hub(folder, REPO, needles=needles_of_dataset(unlearner.forget_dataset), api=api)


def test_what_belongs_to_the_training_stays_at_home(runs, hub, api, tmp_path):
    unlearner = runs["classifier"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    for name in ("optimizer.pt.json", "training_args.json", "trainer_state.json", "selection.safetensors", "rows.csv"):
        (folder / name).write_text("{}")
    for name in ("checkpoint-1", "_unlearning_state", "_fisher", "additional_chat_templates"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_text("x")
    # The classifier has no tokenizer that would write this.
    (folder / "additional_chat_templates" / "brief.jinja").write_text("{{ messages }}")
    push_folder_to_hub(folder, REPO, needles=unlearner._needles(), api=api)
    assert head_files(hub) == ALLOWED["classifier"]


def test_weights_that_are_no_safetensors_and_unfinished_runs_are_refused(runs, hub, api, tmp_path):
    unlearner = runs["classifier"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    needles = unlearner._needles()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        push_folder_to_hub(folder, REPO, needles=needles, api=api)
    (folder / "pytorch_model.bin").unlink()
    (folder / "report.json").rename(folder / "kept.json")
    with pytest.raises(FileNotFoundError, match="finished run"):
        push_folder_to_hub(folder, REPO, needles=needles, api=api)
    PublicReport.of(unlearner_report(unlearner)).save(folder / "report.json")
    with pytest.raises(ValueError, match="is not the report of a run"):
        push_folder_to_hub(folder, REPO, needles=needles, api=api)
    (folder / "kept.json").replace(folder / "report.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        push_folder_to_hub(folder, REPO, needles=needles, api=api)
    assert hub.requests == []


def unlearner_report(unlearner):
    from hf_deepclean import UnlearningReport

    return UnlearningReport.load(output(unlearner) / "report.json")


def test_a_repository_without_an_owner_is_refused(runs, hub, api):
    with pytest.raises(ValueError, match="owner/clean"):
        push(runs["classifier"], api, repo="clean")
    assert hub.requests == []
