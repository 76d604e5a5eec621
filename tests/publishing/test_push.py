# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pushes by the real client to a Hub on this machine."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoTokenizer

from hf_deepclean import (
    LeakError,
    PublicReport,
    UnlearningCard,
    find_old_weights,
    needles_of_dataset,
    push_folder_to_hub,
    squash_history,
)
from hf_deepclean.publishing import folder as staging
from hf_deepclean.publishing.folder import Publication
from tests import published
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in


REPO = "tester/clean-model"
PLOTS = ["fisher_plane", "gamma", "loss", "reset_share", "results"]
# What every pushed repository holds, whatever the model.
ALWAYS = {"README.md", "report.json"}
PICTURES = {f"plots/{name}.png" for name in PLOTS}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ALLOWED = {
    "classifier": ALWAYS | {"config.json", "model.safetensors"},
    "causal_lm": ALWAYS | TOKENIZER | {"config.json", "generation_config.json", "model.safetensors"},
    "adapter": ALWAYS | TOKENIZER | {"adapter_config.json", "adapter_model.safetensors"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run of every kind: the unlearner, whose output directory holds the result."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    unlearners = {}
    for kind, make in published.RUNS.items():
        unlearners[kind] = make(tmp_path_factory.mktemp(kind) / "run", run_name="run-Habermehl")
        unlearners[kind].unlearn()
    yield unlearners
    torch.set_num_threads(num_threads)


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch, request):
    """They take most of the time of a push."""
    if "with_pictures" not in request.fixturenames:
        monkeypatch.setattr(staging, "find_spec", lambda name: None)


@pytest.fixture
def with_pictures():
    pass


def output(unlearner):
    return Path(unlearner.args.output_dir)


def head_files(hub, repo=REPO):
    return {name for name in hub.files(repo) if name != ".gitattributes"}


def push(unlearner, api, repo=REPO, **kwargs):
    return unlearner.push_to_hub(repo, api=api, **kwargs)


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
    # A known string is there, so that the search is one.
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
    (folder / "vocab_PX48213007.txt").write_text("a\n")


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


def test_an_allowed_value_is_no_leak(runs, hub, api, tmp_path):
    unlearner = runs["causal_lm"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    PLANTS["a name in the configuration"](folder)
    allowed = Publication(allowed=["for Ottilie Zweifelsfrei"])
    push_folder_to_hub(folder, REPO, needles=unlearner._needles(), publication=allowed, api=api)
    assert hub.repo(REPO) is not None


def test_what_belongs_to_the_training_stays_at_home(runs, hub, api, tmp_path):
    unlearner = runs["classifier"]
    folder = tmp_path / "elsewhere"
    shutil.copytree(output(unlearner), folder)
    for name in ("optimizer.pt.json", "training_args.json", "trainer_state.json", "selection.safetensors", "rows.csv"):
        (folder / name).write_text("{}")
    for name in ("checkpoint-1", "_unlearning_state", "_fisher", "additional_chat_templates"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_text("x")
    (folder / "additional_chat_templates" / "brief.jinja").write_text("{{ messages }}")
    push_folder_to_hub(folder, REPO, needles=unlearner._needles(), api=api)
    assert head_files(hub) == ALLOWED["classifier"] | {"additional_chat_templates/brief.jinja"}


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


OLD = {
    "README.md": b"---\nlicense: mit\n---\n\n# By hand\n",
    "config.json": b"{}",
    "model.safetensors": b"old weights, all of them" * 50,
    "pytorch_model.bin": b"old weights again" * 50,
    "checkpoint-5/optimizer.pt": b"moments",
    "training_args.bin": b"pickled",
    "notes.txt": b"mine",
}


def test_an_existing_repository_is_only_changed_when_asked_and_then_loses_its_old_weights(runs, hub, api, caplog):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    with pytest.raises(FileExistsError, match="exist_ok=True"):
        push(runs["classifier"], api)
    assert hub.repo(REPO) == before
    result = push(runs["classifier"], api, exist_ok=True)
    assert len(hub.commits(REPO)) == len(before.commits) + 1
    files = hub.files(REPO)
    # What somebody has written stays as it was, and the card goes beside it.
    assert files["README.md"] == OLD["README.md"] and files["notes.txt"] == b"mine"
    assert UnlearningCard.is_generated(files["UNLEARNING.md"].decode())
    assert set(result.deleted) == {"pytorch_model.bin", "checkpoint-5/optimizer.pt", "training_args.bin"}
    assert head_files(hub) == ALLOWED["classifier"] | {"UNLEARNING.md", "notes.txt"}
    # The weights from before are one revision away, and the owner hears of it.
    assert result.history.old_commits and "squash_history" in caplog.text
    assert "new_version" in str(result) or result.base_model is None
    assert "old revisions" in str(result)


def test_a_second_push_replaces_the_generated_card_and_changes_nothing_without_a_change(runs, hub, api):
    push(runs["classifier"], api)
    first = hub.repo(REPO)
    push(runs["classifier"], api, exist_ok=True)
    assert hub.repo(REPO) == first
    push(runs["classifier"], api, exist_ok=True, forget_disclosure="size")
    assert "UNLEARNING.md" not in hub.files(REPO)
    assert b"disclosure: size" in hub.files(REPO)["README.md"]


def test_a_public_repository_is_only_pushed_to_as_such(runs, hub, api):
    hub.seed(REPO, {"config.json": b"{}"}, private=False)
    before = hub.repo(REPO)
    with pytest.raises(ValueError, match="is public"):
        push(runs["classifier"], api, exist_ok=True)
    assert hub.repo(REPO) == before
    push(runs["classifier"], api, exist_ok=True, private=False)
    push(runs["classifier"], api, repo="tester/open", private=False)
    assert not hub.repo("tester/open").private


def test_a_pull_request_leaves_the_branch_as_it_was(runs, hub, api):
    hub.seed(REPO, OLD)
    before = hub.commits(REPO)
    result = push(runs["classifier"], api, create_pr=True)
    assert hub.commits(REPO) == before
    assert result.commit.pr_url
    assert "pytorch_model.bin" not in hub.files(REPO, "refs/pr/1")
    assert result.history is None


def test_another_branch_and_a_gate(runs, hub, api):
    hub.seed(REPO, {"notes.txt": b"mine"})
    with pytest.raises(ValueError, match="no branch 'clean'"):
        push(runs["classifier"], api, revision="clean", exist_ok=True)
    api.create_branch(REPO, branch="clean")
    before = hub.commits(REPO)
    push(runs["classifier"], api, revision="clean", exist_ok=True, gated="manual", gated_prompt="Say who you are.")
    assert hub.commits(REPO) == before
    assert hub.repo(REPO).gated == "manual"
    card = ModelCard(hub.files(REPO, "clean")["README.md"].decode())
    assert card.data["extra_gated_prompt"] == "Say who you are."
    hub.seed("tester/other", {"notes.txt": b"mine"})
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(ConnectionError):
        push(runs["classifier"], api, repo="tester/other", exist_ok=True, gated="auto")
    assert not hub.repo("tester/other").gated


def test_a_repository_without_an_owner_is_refused(runs, hub, api):
    with pytest.raises(ValueError, match="owner/clean"):
        push(runs["classifier"], api, repo="clean")
    assert hub.requests == []


def test_a_push_whose_history_cannot_be_looked_through_has_succeeded(runs, hub, api, caplog):
    hub.fail("GET", "/commits/", status=500, times=50)
    result = push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2 and result.history is None
    assert "could not be found out" in caplog.text


def test_a_squash_is_a_dry_run_first_and_then_leaves_no_old_weights(runs, hub, api):
    hub.seed(REPO, OLD)
    api.create_branch(REPO, branch="backup")
    push(runs["classifier"], api, exist_ok=True)
    before = hub.repo(REPO)
    found = squash_history(REPO, api=api)
    assert hub.repo(REPO) == before
    assert found.holds_old_weights and not found.squashed
    assert found.other_refs == ("backup",)
    done = squash_history(REPO, dry_run=False, api=api)
    assert done.squashed and done.num_commits == 1 and done.old_commits == ()
    assert done.other_refs == ("backup",) and "delete these branches" in str(done)
    api.delete_branch(REPO, branch="backup")
    clean = find_old_weights(REPO, api=api)
    assert not clean.holds_old_weights and "no revision holds" in str(clean)
    assert head_files(hub) >= ALLOWED["classifier"] - {"README.md"}


FAULTS = [{"status": 429}, {"status": 500}, {"drop": True}]
UPLOAD = [("POST", "/preupload/"), ("POST", "objects/batch"), ("PUT", "/lfs/"), ("POST", "/verify")]


@pytest.mark.parametrize(("method", "path"), UPLOAD)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_during_the_upload_is_overcome(runs, hub, api, method, path, fault):
    hub.fail(method, path, **fault, times=2)
    push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2
    assert sum(r.method == method and re.search(path, r.path) is not None for r in hub.requests) >= 3


@pytest.mark.parametrize(("method", "path"), [*UPLOAD, ("POST", "/commit/")])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_that_lasts_leaves_the_repository_as_it_was(runs, hub, api, method, path, fault):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    hub.fail(method, path, **fault, times=500)
    with pytest.raises(ConnectionError, match="No commit was made: 'main' is at"):
        push(runs["classifier"], api, exist_ok=True)
    assert (hub.repo(REPO).refs, hub.repo(REPO).commits) == (before.refs, before.commits)
    assert list(output(runs["classifier"]).glob(".incomplete*")) == []


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": True}], ids=["500", "drop"])
def test_a_commit_whose_answer_was_lost_is_found(runs, hub, api, fault):
    hub.fail("POST", "/commit/", **fault, after=True)
    result = push(runs["classifier"], api)
    assert len(hub.commits(REPO)) == 2
    assert result.commit.oid == hub.commits(REPO)[0].id


@pytest.mark.parametrize("path", ["/api/repos/create", "/api/models/"])
def test_a_fault_before_the_upload_is_a_clear_error(runs, hub, api, path):
    hub.fail("POST" if "create" in path else "GET", path, status=500, times=50)
    with pytest.raises(ConnectionError, match="Nothing was committed to 'main'"):
        push(runs["classifier"], api)


def test_after_a_push_that_failed_the_empty_repository_takes_the_next_one(runs, hub, api):
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(ConnectionError, match="No commit was made"):
        push(runs["classifier"], api)
    assert head_files(hub) == set()
    push(runs["classifier"], api)
    assert head_files(hub) >= {"model.safetensors", "README.md"}


def test_somebody_elses_commit_in_between_is_not_overwritten(runs, hub, api, monkeypatch):
    hub.seed(REPO, {"notes.txt": b"mine"})
    create_commit = api.create_commit

    def interrupted(*args, **kwargs):
        hub.seed(REPO, {"notes.txt": b"theirs"})
        return create_commit(*args, **kwargs)

    monkeypatch.setattr(api, "create_commit", interrupted)
    with pytest.raises(ConnectionError, match="somebody else has pushed"):
        push(runs["classifier"], api, exist_ok=True)
    assert hub.files(REPO)["notes.txt"] == b"theirs"
    assert "model.safetensors" not in hub.files(REPO)


def test_a_process_that_is_killed_during_the_push_leaves_no_partial_commit(runs, hub):
    hub.seed(REPO, OLD)
    before = hub.repo(REPO)
    hub.fail("PUT", "/lfs/", delay=60)
    code = (
        "import sys\n"
        "from datasets import Dataset\n"
        "from hf_deepclean import needles_of_dataset, push_folder_to_hub\n"
        "needles = needles_of_dataset(Dataset.from_dict({'text': ['nothing of the kind']}))\n"
        "push_folder_to_hub(sys.argv[1], sys.argv[2], needles=needles, exist_ok=True)\n"
    )
    arguments = [sys.executable, "-c", code, str(output(runs["classifier"])), REPO]
    environment = hub.environment() | {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any("/preupload/" in request.path for request in hub.requests):
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read().decode()[-2000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert (hub.repo(REPO).refs, hub.repo(REPO).commits) == (before.refs, before.commits)
    for path in output(runs["classifier"]).glob(".incomplete*"):
        shutil.rmtree(path)
