# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Commits to the local Hub: what they hold, what they refuse, and what is pulled again."""

import base64
import json
import os
import threading
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import CommitOperationDelete, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from tests.hub import repositories
from tests.hub.use import CARD, REPO, WEIGHTS, add, commit, received
from tests.tiny import bert, image_batch, randomized, text_batch, vit


# huggingface_hub sends files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def logits(model, batch):
    with torch.no_grad():
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


def test_a_commit_is_one_whatever_it_holds_and_what_is_downloaded_is_what_was_uploaded(old, tmp_path):
    config, weights = b'{"a": "\xc3\xa9"}', os.urandom(3000)
    operations = [*add({"config.json": config, "model.safetensors": weights}), CommitOperationDelete("logs/")]
    head = commit(old, operations).oid
    assert [(entry.id, entry.title) for entry in old.commits(REPO)][0] == (head, "A change")
    assert len(old.commits(REPO)) == 3
    folder = snapshot_download(REPO, token=old.token, cache_dir=tmp_path)
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}
    expected = {"README.md": CARD, "config.json": config, "model.safetensors": weights}
    assert {path: content for path, content in there.items() if path != ".gitattributes"} == expected
    assert old.files(REPO) == there
    lfs = {path for path, file in old.commits(REPO)[0].files.items() if file.lfs}
    assert lfs == {"model.safetensors"}


def test_files_that_have_not_changed_make_no_commit(old):
    head = old.commits(REPO)[0].id
    assert commit(old, add({"README.md": CARD, "model.safetensors": WEIGHTS})).oid == head
    assert received(old, "POST", "/commit/") == received(old, "PUT", "/lfs/") == 0
    assert old.commits(REPO)[0].id == head


def test_a_file_is_in_lfs_by_its_name_its_size_or_as_it_is_no_text(old, monkeypatch):
    monkeypatch.setattr(repositories, "MAX_REGULAR_SIZE", 3000)
    text = ("a" + "\u00e9" * 600).encode()
    commit(old, add({"a.txt": text, "b.safetensors": text, "c.png": b"\x89PNG", "d.dat": b"\0", "e.txt": 3 * text}))
    regular = {path for path, file in old.commits(REPO)[0].files.items() if not file.lfs}
    assert regular == {".gitattributes", "README.md", "logs/old.txt", "a.txt"}
    commit(old, add({".gitattributes": b"*.txt filter=lfs diff=lfs merge=lfs -text\n"}))
    commit(old, add({"f.txt": b"f", "f.bin": b"f"}))
    files = old.commits(REPO)[0].files
    assert files["f.txt"].lfs and not files["f.bin"].lfs and not files["a.txt"].lfs


def test_an_object_that_is_there_is_not_uploaded_again(old):
    commit(old, add({"copy.safetensors": WEIGHTS}))
    assert received(old, "PUT", "/lfs/") == 0
    assert old.files(REPO)["copy.safetensors"] == WEIGHTS


@pytest.mark.parametrize(
    ("tiny", "batch", "auto"),
    [
        (bert, text_batch(), AutoModelForSequenceClassification),
        (vit, image_batch(dtype=torch.float32), AutoModelForImageClassification),
    ],
)
@pytest.mark.parametrize("max_shard_size", ["50GB", "8KB"])
def test_a_pulled_model_computes_what_the_pushed_one_does(hub, tmp_path, tiny, batch, auto, max_shard_size):
    model = randomized(tiny(), torch.float32)
    model.push_to_hub(REPO, private=True, token=hub.token, max_shard_size=max_shard_size)
    shards = [path for path in hub.files(REPO) if path.endswith(".safetensors")]
    assert (len(shards) == 1) == (max_shard_size == "50GB")
    pulled = auto.from_pretrained(REPO, token=hub.token, cache_dir=tmp_path)
    assert torch.equal(logits(pulled.eval(), batch), logits(model, batch))


def test_a_pulled_adapter_computes_what_the_pushed_one_does(hub, tmp_path):
    base, batch = randomized(bert(), torch.float32), text_batch()
    base.push_to_hub("tester/base", token=hub.token)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    model = get_peft_model(base, config).eval()
    model.push_to_hub(REPO, private=True, token=hub.token)
    assert "adapter_model.safetensors" in hub.files(REPO)
    fresh = AutoModelForSequenceClassification.from_pretrained("tester/base", token=hub.token, cache_dir=tmp_path)
    pulled = PeftModel.from_pretrained(fresh, REPO, token=hub.token, cache_dir=tmp_path).eval()
    assert torch.equal(logits(pulled, batch), logits(model, batch))


def test_a_pull_request_leaves_main_as_it_was(old):
    before = old.commits(REPO)
    requests = [commit(old, add({"model.safetensors": os.urandom(900)}), create_pr=True) for _ in range(2)]
    assert [request.pr_revision for request in requests] == ["refs/pr/1", "refs/pr/2"]
    assert old.commits(REPO) == before
    assert old.commits(REPO, "refs/pr/2") == [old.commits(REPO, requests[1].oid)[0], *before]
    refs = HfApi(token=old.token).list_repo_refs(REPO, include_pull_requests=True)
    assert [ref.target_commit for ref in refs.pull_requests] == [request.oid for request in requests]


def test_a_commit_on_top_of_another_parent_is_refused_and_changes_nothing(old):
    api, base = HfApi(token=old.token), old.commits(REPO)[0].id
    newer = api.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id=REPO, parent_commit=base).oid
    before = old.commits(REPO), old.files(REPO)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as raised:
        commit(old, add({"late.txt": b"late"}), parent_commit=base)
    assert raised.value.response.status_code == 412
    assert (old.commits(REPO), old.files(REPO)) == before
    # A pull request starts at the given commit.
    request = commit(old, add({"a.txt": b"a"}), parent_commit=base, create_pr=True)
    assert old.commits(REPO, request.oid)[0].parent == base
    assert commit(old, add({"late.txt": b"late"}), parent_commit=newer).oid == old.commits(REPO)[0].id


def test_commits_at_the_same_time_follow_one_another(old):
    def one(number):
        commit(old, add({f"{number}.txt": str(number).encode()}))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"{number}.txt" for number in range(8)} < old.files(REPO).keys()
    assert len(old.commits(REPO)) == 2 + 8


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("- a\n- list", "must be a mapping"),
        ("tags: [", "no YAML"),
        ("value: !!python/object/apply:numpy.float64 [1]", "no YAML"),
        ("license: MIT License", "license"),
        ("license: 3", "license"),
        ("tags: one", "tags"),
        ("tags: [1]", "tags"),
        ("language: English", "language"),
        ("base_model: /home/me/model", "base_model"),
        ("base_model: [a/b/c]", "base_model"),
        ("base_model_relation: unlearned", "base_model_relation"),
        ("pipeline_tag: unlearning", "pipeline_tag"),
        ("model-index: none", "model-index"),
        ("model-index: [{results: []}]", r"model-index\[0\].name"),
        ("model-index: [{name: a, results: [{}]}]", r"results\[0\].task.type"),
        (
            "model-index: [{name: a, results: [{task: {type: b}, dataset: {type: c, name: d}, "
            "metrics: [{type: e, value: f}]}]}]",
            r"metrics\[0\].value",
        ),
    ],
)
def test_a_card_with_bad_metadata_is_refused_before_and_at_the_commit(old, metadata, said):
    card, before = f"---\n{metadata}\n---\n", old.commits(REPO)
    with pytest.raises(ValueError, match=said):
        commit(old, add({"README.md": card.encode()}))
    assert received(old, "POST", "/preupload/") == 0
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    body = b'{"key": "header", "value": {"summary": "", "description": ""}}\n'
    body += b'{"key": "file", "value": {"path": "README.md", "content": "%s"}}' % base64.b64encode(card.encode())
    answer = session.post(f"{old.endpoint}/api/models/{REPO}/commit/main", content=body, headers=headers)
    assert answer.status_code == 400
    assert old.commits(REPO) == before


def test_a_card_with_good_metadata_is_taken_and_one_without_is_warned_of(old):
    data = {
        "license": "apache-2.0",
        "language": ["en", "multilingual"],
        "library_name": "transformers",
        "tags": ["machine-unlearning"],
        "base_model": ["google-bert/bert-base-uncased"],
        "base_model_relation": "finetune",
        "pipeline_tag": "text-classification",
        "unlearning": {"method": "fisher"},
        "model-index": [
            {
                "name": "a",
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"name": "b", "type": "c"},
                        "metrics": [{"type": "accuracy", "value": 0.5}],
                    }
                ],
            }
        ],
    }
    ModelCard(f"---\n{yaml.safe_dump(data)}---\n# A card\n").validate()
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(old, add({"README.md": b"# No metadata\n"}))
    assert old.files(REPO)["README.md"] == b"# No metadata\n"


def test_an_object_that_was_not_uploaded_as_it_is_named_is_no_part_of_a_commit(old):
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    missing = {"oid": "0" * 64, "size": 3}
    batch = f"{old.endpoint}/{REPO}.git/info/lfs/objects/batch"
    wanted = {"operation": "upload", "objects": [missing]}
    actions = session.post(batch, json=wanted, headers=headers).json()["objects"][0]["actions"]
    assert session.put(actions["upload"]["href"], content=b"abc").status_code == 400
    assert session.put(actions["upload"]["href"].split("?")[0], content=b"abc").status_code == 403
    assert session.post(actions["verify"]["href"], json=missing, headers=headers).status_code == 422
    before = old.commits(REPO)
    header = {"key": "header", "value": {"summary": "", "description": ""}}
    for oid, size in (("0" * 64, 3), (before[0].files["model.safetensors"].sha256, 3)):
        file = {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": oid, "size": size}}
        text = {"key": "file", "value": {"path": "b.txt", "content": "YQ==", "encoding": "base64"}}
        body = "\n".join(map(json.dumps, [header, text, file]))
        answer = session.post(f"{old.endpoint}/api/models/{REPO}/commit/main", content=body, headers=headers)
        assert (answer.status_code, "does not exist" in answer.text) == (400, True)
    assert old.commits(REPO) == before
