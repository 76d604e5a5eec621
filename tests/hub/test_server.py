# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The local Hub itself: what it receives and keeps, and that no other is reached."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import transformers.utils.hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_api,
    hf_hub_url,
    model_info,
)
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from tests.hub.client import client_of
from tests.hub.server import LocalHub
from tests.hub.use import CARD, REPO, WEIGHTS, add, commit


# huggingface_hub sends files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_what_was_received_holds_what_was_sent_in_any_way_but_not_the_token(old, tmp_path):
    def planted(place):
        return f"Zweifelsfrei-é-{place}"

    old.seed(REPO, {planted("deleted"): b"x"})
    api = HfApi(token=old.token, headers={"X-Header": "Zweifelsfrei-header"}, user_agent="Zweifelsfrei-agent")
    large = os.urandom(100_000)
    operations = add(
        {
            f"{planted('name')}.txt": planted("regular").encode(),
            "model.safetensors": large + planted("lfs").encode(),
            "README.md": f"---\nlicense: mit\n---\n{planted('card')}".encode(),
        }
    )
    operations.append(CommitOperationDelete(planted("deleted")))
    texts = {"commit_message": planted("title"), "commit_description": planted("description")}
    api.create_commit(REPO, operations, **texts)
    api.create_branch(REPO, branch=planted("branch"))
    api.get_paths_info(REPO, [planted("path")])
    received_bytes = old.received_bytes()
    places = "name regular lfs card deleted title description branch path".split()
    for canary in [*map(planted, places), "Zweifelsfrei-header", "Zweifelsfrei-agent"]:
        assert canary.encode() in received_bytes, canary
    # The sample of a file is sent before the file, in a request of its own.
    old.requests.clear()
    old.fail("POST", "/preupload/", status=400)
    with pytest.raises(HfHubHTTPError):
        commit(old, [CommitOperationAdd("other.bin", b"Zweifelsfrei" + large)])
    assert [request.path for request in old.requests] == [f"/api/models/{REPO}/preupload/main"]
    assert b"Zweifelsfrei" in old.received_bytes() and large[:500] in old.received_bytes()
    assert large not in old.received_bytes()
    assert old.token in old.requests[0].headers["authorization"]
    assert old.token.encode() not in old.received_bytes()


def test_a_body_in_chunks_is_read_as_a_whole_and_a_range_is_a_part(old):
    session, headers = get_session(), {"Authorization": f"Bearer {old.token}"}
    chunks = [b'{"content": "a', b"b" * 70_000, b'"}']
    assert session.post(f"{old.endpoint}/api/validate-yaml", content=iter(chunks)).status_code == 200
    assert old.requests[-1].body == b"".join(chunks)
    assert old.requests[-1].headers["transfer-encoding"] == "chunked"
    url = hf_hub_url(REPO, "model.safetensors")
    for wanted, expected in (("3-9", WEIGHTS[3:10]), ("2000-", WEIGHTS[2000:]), ("0-99999", WEIGHTS)):
        answer = session.get(url, headers={**headers, "Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.content) == (206, expected)
    assert session.get(url, headers={**headers, "Range": "bytes=99999-"}).status_code == 416
    metadata = get_hf_file_metadata(url, token=old.token)
    newest = old.commits(REPO)[0]
    assert (metadata.size, metadata.commit_hash) == (len(WEIGHTS), newest.id)
    assert metadata.etag == newest.files["model.safetensors"].sha256


def test_what_a_hub_has_stored_another_one_on_the_same_folder_has(tmp_path):
    with LocalHub(tmp_path) as first:
        head = first.seed(REPO, {"README.md": CARD, "model.safetensors": WEIGHTS}, private=False, title="Old")
        first.seed(REPO, {"README.md": b"newer"})
        assert first.requests == []
    with LocalHub(tmp_path) as second:
        assert second.commits(REPO) == first.commits(REPO) and len(second.commits(REPO)) == 3
        assert second.files(REPO, head)["README.md"] == CARD
        assert second.files(REPO)["model.safetensors"] == WEIGHTS
        assert not second.repo(REPO).private and second.token != first.token
    with pytest.raises(KeyError, match="no v2 of"):
        second.files(REPO, "v2")


def test_what_a_hub_cannot_process_is_an_error_at_its_end(tmp_path):
    with pytest.raises(RuntimeError, match="could not process a request") as raised:
        with LocalHub(tmp_path) as hub, client_of(hub):
            answer = get_session().post(f"{hub.endpoint}/api/validate-yaml", content=b"no JSON")
            assert (answer.status_code, "JSONDecodeError" in answer.text) == (501, True)
    assert isinstance(raised.value.__cause__, json.JSONDecodeError)


def test_another_process_uses_the_hub_by_its_environment(old):
    code = (
        "from huggingface_hub import HfApi, hf_hub_download\n"
        f"HfApi().upload_file(path_or_fileobj=b'{{}}', path_in_repo='config.json', repo_id='{REPO}')\n"
        f"print(hf_hub_download('{REPO}', 'model.safetensors'))\n"
    )
    environment = {**os.environ, **old.environment()}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    path = Path(run.stdout.strip().splitlines()[-1])
    assert path.read_bytes() == WEIGHTS and path.is_relative_to(old.environment()["HF_HOME"])
    assert old.files(REPO)["config.json"] == b"{}"


def test_nothing_but_the_hub_on_this_machine_can_be_reached(hub):
    for reach in (
        lambda: get_session().get("https://huggingface.co/api/models"),
        lambda: HfApi(endpoint="http://192.0.2.1").model_info(REPO),
        lambda: socket.create_connection(("192.0.2.1", 80)),
        lambda: socket.socket().connect(("192.0.2.1", 80)),
    ):
        with pytest.raises(RuntimeError, match="Only the Hub on this machine"):
            reach()


def test_afterwards_the_client_is_offline_again_and_as_it_was(tmp_path):
    def state():
        settings = {name: value for name, value in vars(constants).items() if name.isupper()}
        functions = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex
        return settings, dict(os.environ), functions, hf_api.api.endpoint, transformers.utils.hub._hf_api

    before = state()
    assert constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "1"
    with LocalHub(tmp_path) as hub, client_of(hub):
        hub.seed(REPO, {"README.md": CARD})
        assert not constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "0"
        # With an address, without one, and by a function of the module.
        api, plain = HfApi(endpoint=hub.endpoint, token=hub.token), HfApi(token=hub.token)
        assert api.model_info(REPO).sha == plain.model_info(REPO).sha == model_info(REPO, token=hub.token).sha
        assert HfApi().token is None and get_token() is None
    assert state() == before
    with pytest.raises(OfflineModeIsEnabled):
        HfApi().model_info(REPO)
