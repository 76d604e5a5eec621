# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A trace of the forgotten rows or of this machine stops a push."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hf_deepclean import LeakError, push_folder_to_hub
from hf_deepclean.publishing.folder import Publication
from hf_deepclean.publishing.leaks import Needles
from tests import published
from tests.publishing.pushing import REPO, output, push


@pytest.mark.parametrize("kind", published.RUNS)
def test_nothing_of_the_forgotten_rows_or_of_this_machine_is_received(runs, hub, api, kind, with_pictures):
    unlearner = runs[kind]
    push(unlearner, api)
    received = hub.received_bytes()
    rows = list(published.people()) if kind != "classifier" else []
    canaries = {value for row in rows for value in row.values()} | set(published.SURNAMES) | {"patient_reference"}
    canaries |= {str(output(unlearner)), str(Path.home()), "run-Habermehl", unlearner.args.run_name, "forget_dataset"}
    canaries |= {unlearner.forget_dataset._fingerprint, "ward_seven_patients"}
    commitment = json.loads((output(unlearner) / "forget_commitment.json").read_text())
    canaries.add(commitment["key"])
    # A string that must be there is found, so the search works.
    assert commitment["commitment"].encode() in received
    assert [canary for canary in canaries if canary.encode() in received] == []
    assert b"optimizer" not in received.replace(b"optimizer states", b"")


def plant_in_json(name, key, value):
    def plant(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {key: value}))

    return plant


def plant_in_readme(text):
    def plant(folder):
        (folder / "README.md").write_text(f"---\nlicense: mit\n---\n\n# My model\n\n{text}\n")

    return plant


def plant_in_weights(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    start = len(content) // 2
    text = b"Ottilie Zweifelsfrei"
    path.write_bytes(content[:start] + text + content[start + len(text) :])


def plant_in_metadata(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "note": "Ottilie Zweifelsfrei"})


def plant_in_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["Ottilie Zweifelsfrei"])
    tokenizer.save_pretrained(folder)


def plant_in_file_name(folder):
    """As the name of a template, which the tokenizer writes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": "{{ messages }}", "for PX48213007": "{{ messages }}"}
    tokenizer.save_pretrained(folder)


PLANTS = {
    "a name in the configuration": plant_in_json("config.json", "note", "for Ottilie Zweifelsfrei"),
    "a number in the configuration": plant_in_json("generation_config.json", "reference", "PX48213007"),
    "a column as a key": plant_in_json("config.json", "patient_reference", 1),
    "the run's name": plant_in_json("tokenizer_config.json", "source", "run-Habermehl"),
    "a path": plant_in_json("tokenizer_config.json", "source", str(Path.home() / "data")),
    "the split": plant_in_json("config.json", "source", "ward_seven_patients"),
    "the output directory": lambda folder: plant_in_json("config.json", "source", str(folder))(folder),
    "token ids": plant_in_json("config.json", "ids", [50, 87, 87, 76, 79, 76, 72, 34, 60]),
    "a row in the card": plant_in_readme("It knew that Ottilie Zweifelsfrei lives at 11 Mill Lane."),
    "a row in other words of the same names": plant_in_readme("It knew **Ottilie\nZweifelsfrei** too."),
    "bytes of the weights": plant_in_weights,
    "metadata of the weights": plant_in_metadata,
    "a token": plant_in_tokenizer,
    "the name of a file": plant_in_file_name,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_trace_in_a_staged_file_stops_the_push_before_the_first_request(runs, hub, api, plant, tmp_path):
    unlearner = runs["causal_lm"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    ids = unlearner.forget_dataset[0]["input_ids"]
    if plant is PLANTS["token ids"]:
        plant = plant_in_json("config.json", "ids", ids[:10])
    plant(folder)
    with pytest.raises(LeakError) as error:
        push_folder_to_hub(folder, REPO, needles=unlearner._needles(), api=api)
    assert hub.requests == []
    for value in ("Ottilie", "Zweifelsfrei", "48213007", "Habermehl", str(Path.home()), "Mill Lane"):
        assert value not in str(error.value)
    assert sorted(path.name for path in folder.glob(".incomplete*")) == []


def test_a_trace_in_message_branch_or_name_of_the_repository_stops_the_push(runs, hub, api):
    unlearner = runs["causal_lm"]
    for kwargs in (
        {"commit_message": "Forget Ottilie Zweifelsfrei"},
        {"revision": "without-PX48213007"},
        {"repo": "tester/without-ottilie-zweifelsfrei"},
    ):
        with pytest.raises(LeakError):
            push(unlearner, api, **kwargs)
    assert hub.requests == []


def test_a_trace_of_the_machine_in_the_message_or_the_token_in_a_file_stops_the_push_of_a_folder(
    runs, hub, api, tmp_path, monkeypatch
):
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(runs["classifier"]), folder)
    monkeypatch.setenv("HOME", "/homes/ward/zweifelsfrei")
    with pytest.raises(LeakError, match="commit message"):
        push_folder_to_hub(folder, REPO, needles=Needles(), api=api, commit_message="From /homes/ward/zweifelsfrei/x")
    plant_in_json("config.json", "note", f"with {api.token}")(folder)
    with pytest.raises((LeakError, ValueError), match=r"config\.json"):
        push_folder_to_hub(folder, REPO, needles=Needles(), api=api)
    assert hub.requests == []


def test_an_allowed_value_is_no_leak(runs, hub, api, tmp_path):
    unlearner = runs["causal_lm"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    PLANTS["a name in the configuration"](folder)
    allowed = Publication(allowed=["for Ottilie Zweifelsfrei"])
    push_folder_to_hub(folder, REPO, needles=unlearner._needles(), publication=allowed, api=api)
    assert hub.repo(REPO) is not None
