# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A Hub on this machine, for the real client: models only, without Xet."""

import base64
import hashlib
import json
import re
import secrets
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlencode, urlsplit

import yaml

from tests.hub.front_matter import front_matter, validate
from tests.hub.repositories import (
    GIT_ATTRIBUTES,
    MAIN,
    Commit,
    File,
    LfsObject,
    Repositories,
    Repository,
    is_lfs,
    lfs_pointer,
    now,
)


# Entries of a list in one answer; far fewer than the Hub's, so that a short history already has two pages.
PAGE_SIZE = 20


@dataclass(frozen=True)
class ReceivedRequest:
    """
    A request as it arrived.

    Args:
        method (`str`):
            Such as `"POST"`.
        path (`str`):
            With its query, percent-encoded.
        headers (`dict[str, str]`):
            By their names in lower case.
        body (`bytes`):
            Joined, if it came in chunks.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    def plain(self) -> bytes:
        """All that was sent but the token; what was encoded stands in it a second time, decoded."""
        headers = [f"{name}: {value}" for name, value in self.headers.items() if name != "authorization"]
        sent = "\n".join([f"{self.method} {self.path}", *headers]).encode("latin-1")
        decoded = [unquote(self.path).encode()]
        if "ndjson" in self.headers.get("content-type", ""):
            decoded += [text for line in self.lines() for text in _texts(line)]
        elif "json" in self.headers.get("content-type", ""):
            decoded += _texts(self.json())
        elif "urlencoded" in self.headers.get("content-type", ""):
            decoded.append(unquote_plus(self.body.decode()).encode())
        return b"\n".join([sent, self.body, *decoded])


def _texts(value: Any) -> Iterator[bytes]:
    """Every string within what JSON holds, and what those that can be base64 would then say."""
    if isinstance(value, str):
        yield value.encode()
        try:
            yield base64.b64decode(value, validate=True)
        except ValueError:
            pass
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(list(pair))
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


def _in_json(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Answer:
    return Answer(
        json.dumps(value, default=str).encode(), status, {"Content-Type": "application/json", **(headers or {})}
    )


class Refusal(Exception):
    """
    What ends a request with an error.

    Args:
        status (`int`):
            Of the answer.
        message (`str`):
            What the client says.
        code (`str`, *optional*):
            What the client chooses its exception by.
        headers (`dict[str, str]`, *optional*):
            More headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        codes = {"X-Error-Code": code} if code else {}
        headers = {"X-Error-Message": message, **codes, **(headers or {})}
        self.answer = _in_json({"error": message}, status, headers)


@dataclass
class _Fault:
    method: str
    path: re.Pattern[str]
    status: int | None
    drop: bool
    delay: float
    after: bool
    times: int

    def applies_to(self, request: ReceivedRequest) -> bool:
        return self.times > 0 and self.method == request.method and self.path.search(request.path) is not None


class LocalHub:
    """
    A Hub that runs for the length of a `with` block.

    A state that is written is written as a whole or not at all; one request is processed at a time.

    Args:
        folder (`Path`):
            Where it keeps its repositories. One that another `LocalHub` has left is taken up.

    Attributes:
        folder (`Path`):
            As given; the contents that are stored are in its `blobs`.
        endpoint (`str`):
            The address, of this machine only.
        user (`str`):
            Whose repositories those without a namespace are.
        token (`str`):
            What writing, and reading what is private, demands.
        requests (`list[ReceivedRequest]`):
            All that were received, also those that failed.
    """

    user = "tester"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._repositories = Repositories(folder)
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.token = f"hf_{secrets.token_hex(17)}"
        self.requests: list[ReceivedRequest] = []
        self._errors: list[Exception] = []

    def __enter__(self) -> "LocalHub":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._errors:
            raise RuntimeError("This Hub could not process a request. See the error above.") from self._errors[0]

    def environment(self) -> dict[str, str]:
        """The variables of the environment by which another process uses this Hub, with the token."""
        home = self.folder / "home"
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # Or a thread asks a service elsewhere for a conversion.
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int | None = None,
        drop: bool = False,
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
    ) -> None:
        """
        Lets the next matching requests fail, or come late.

        Args:
            method (`str`):
                Of the requests.
            path (`str`):
                A regular expression that is searched for in path and query.
            status (`int`, *optional*):
                Of the answer. 429 comes with `Retry-After: 0`.
            drop (`bool`, *optional*, defaults to `False`):
                Ends the connection without an answer.
            delay (`float`, *optional*, defaults to 0.0):
                Seconds before the request is processed.
            after (`bool`, *optional*, defaults to `False`):
                Processes the request first, and only then fails.
            times (`int`, *optional*, defaults to 1):
                How many requests.

        Raises:
            `ValueError`: If nothing would happen, or two things at once.
        """
        if (status is not None and drop) or not (status is not None or drop or delay):
            raise ValueError(f"A request fails by one of `status` ({status}) and `drop` ({drop}), or has a `delay`.")
        if after and status is None and not drop:
            raise ValueError("`after` without `status` or `drop` fails nothing. Pass one of them.")
        with self._lock:
            self._faults.append(_Fault(method, re.compile(path), status, drop, delay, after, times))

    def received_bytes(self) -> bytes:
        """All that was received but the token, as `ReceivedRequest.plain` says."""
        return b"\n".join(request.plain() for request in list(self.requests))

    def repo(self, repo_id: str) -> Repository | None:
        with self._lock:
            return self._repositories.read(repo_id)

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """The commits that a revision leads to, newest first."""
        with self._lock:
            repository, commit = self._found(repo_id, revision)
            return repository.history(commit)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The contents by their paths, with the `.gitattributes` of every repository."""
        with self._lock:
            repository, commit = self._found(repo_id, revision)
            contents = {path: self._repositories.content(repository, file) for path, file in commit.files.items()}
            return {path: content for path, content in contents.items() if content is not None}

    def seed(self, repo_id: str, files: dict[str, bytes], private: bool = True, title: str = "Upload files") -> str:
        """
        Commits files to `main` without a request, to a new repository where there is none.

        Args:
            repo_id (`str`):
                Namespace and name.
            files (`dict[str, bytes]`):
                Contents by their paths; other files stay as they are.
            private (`bool`, *optional*, defaults to `True`):
                Of a new repository.
            title (`str`, *optional*, defaults to `"Upload files"`):
                Of the commit.

        Returns:
            `str`: The id of the commit.
        """
        with self._lock:
            repository = self._repositories.read(repo_id) or self._new_repository(repo_id, private)
            head = repository.commit("main")
            attributes = self._git_attributes(repository, head)
            changed, lfs = dict(head.files), {}
            for path, content in files.items():
                sha256 = self._repositories.store(content)
                if is_lfs(path, len(content), content[:512], attributes):
                    changed[path] = File.in_lfs(sha256, len(content))
                    lfs[sha256] = LfsObject(len(content), now())
                else:
                    changed[path] = File.regular(content)
            commit = Commit.new(head.id, title, "", changed)
            repository = replace(repository, lfs={**lfs, **repository.lfs})
            self._repositories.write(repository.with_commit(MAIN, commit))
            return commit.id

    # Of requests.

    def receive(self, request: ReceivedRequest) -> Answer | None:
        """Answers a request; None for a connection that is to end without an answer."""
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self._faults if fault.applies_to(request)), None)
            if fault:
                fault.times -= 1
        if fault is None:
            return self._answer(request)
        time.sleep(fault.delay)
        fails = fault.drop or fault.status is not None
        answer = self._answer(request) if fault.after or not fails else None
        if fault.status is not None:
            headers = {"Retry-After": "0"} if fault.status == HTTPStatus.TOO_MANY_REQUESTS else {}
            return _in_json({"error": "A failure that a test has asked for"}, fault.status, headers)
        return None if fault.drop else answer

    def _answer(self, request: ReceivedRequest) -> Answer:
        method = "GET" if request.method == "HEAD" else request.method
        path = urlsplit(request.path).path
        try:
            for routed, pattern, respond in ROUTES:
                match = re.fullmatch(pattern, path) if routed == method else None
                if match:
                    names = {name: unquote(value) for name, value in match.groupdict("").items()}
                    with self._lock:
                        return respond(self, request, **names)
            if path.startswith("/api/models/"):
                raise Refusal(HTTPStatus.NOT_FOUND, "Repository not found", "RepoNotFound")
            raise Refusal(HTTPStatus.NOT_FOUND, "This Hub has no such endpoint")
        except Refusal as refusal:
            return refusal.answer
        except Exception as error:
            # Not a status after which the client tries again. A client that goes on without does not hide it either.
            self._errors.append(error)
            return _in_json({"error": traceback.format_exc()}, HTTPStatus.NOT_IMPLEMENTED)

    def _is_owner(self, request: ReceivedRequest) -> bool:
        given = request.headers.get("authorization")
        if given not in (None, f"Bearer {self.token}"):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return given is not None

    def _check_owner(self, request: ReceivedRequest) -> None:
        if not self._is_owner(request):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")

    def _readable(self, request: ReceivedRequest, repo_id: str) -> Repository:
        owner = self._is_owner(request)
        repository = self._repositories.read(repo_id)
        if repository is None or (repository.private and not owner):
            status = HTTPStatus.NOT_FOUND if owner else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, request: ReceivedRequest, repo_id: str) -> Repository:
        if not self._is_owner(request):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", "RepoNotFound")
        return self._readable(request, repo_id)

    def _commit_at(self, repository: Repository, revision: str) -> Commit:
        commit = repository.commit(revision)
        if commit is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Invalid rev id", "RevisionNotFound")
        return commit

    def _found(self, repo_id: str, revision: str) -> tuple[Repository, Commit]:
        repository = self._repositories.read(repo_id)
        commit = repository and repository.commit(revision)
        if not commit:
            raise KeyError(f"There is no {revision} of {repo_id}.")
        return repository, commit

    def _git_attributes(self, repository: Repository, commit: Commit) -> bytes:
        file = commit.files.get(".gitattributes")
        return self._repositories.content(repository, file) if file else b""

    def _new_repository(self, repo_id: str, private: bool) -> Repository:
        self._repositories.store(GIT_ATTRIBUTES)
        commit = Commit.new(None, "initial commit", "", {".gitattributes": File.regular(GIT_ATTRIBUTES)})
        repository = Repository(repo_id, private, False, {MAIN: commit.id}, {commit.id: commit}, {})
        self._repositories.write(repository)
        return repository

    def _page(self, request: ReceivedRequest, entries: list[Any]) -> Answer:
        start = int(request.query.get("cursor", ["0"])[0])
        end, headers = start + PAGE_SIZE, {}
        if end < len(entries):
            query = urlencode({**request.query, "cursor": end}, doseq=True)
            headers["Link"] = f'<{self.endpoint}{urlsplit(request.path).path}?{query}>; rel="next"'
        return _in_json(entries[start:end], headers=headers)

    # Endpoints.

    def _whoami(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
        return _in_json({"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": auth})

    def _validate_yaml(self, request: ReceivedRequest) -> Answer:
        errors, warnings = validate(request.json()["content"])
        status = HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK
        if request.headers.get("accept") == "text/plain":
            return Answer("\n".join(errors).encode(), status, {"Content-Type": "text/plain"})
        said = {"errors": errors, "warnings": warnings}
        return _in_json(
            {key: [{"message": message} for message in messages] for key, messages in said.items()}, status
        )

    def _named(self, wanted: dict[str, Any]) -> str:
        if wanted.get("type") not in (None, "model"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "This Hub has models only")
        return f"{wanted.get('organization') or self.user}/{wanted['name']}"

    def _create_repository(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        wanted = request.json()
        repo_id = self._named(wanted)
        url = f"{self.endpoint}/{repo_id}"
        if self._repositories.read(repo_id):
            return _in_json({"error": "You already created this model repo", "url": url}, HTTPStatus.CONFLICT)
        self._new_repository(repo_id, wanted.get("visibility") == "private" or wanted.get("private") is True)
        return _in_json({"url": url, "name": repo_id})

    def _delete_repository(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        self._repositories.delete(self._readable(request, self._named(request.json())).id)
        return _in_json({})

    def _settings(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository, wanted = self._writable(request, repo_id), request.json()
        private = wanted["visibility"] == "private" if "visibility" in wanted else wanted.get("private")
        private = repository.private if private is None else private
        self._repositories.write(replace(repository, private=private, gated=wanted.get("gated", repository.gated)))
        return _in_json({})

    def _preupload(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._writable(request, repo_id)
        commit = self._commit_at(repository, revision)
        attributes = self._git_attributes(repository, commit)
        files = []
        for file in request.json()["files"]:
            lfs = is_lfs(file["path"], file["size"], base64.b64decode(file["sample"]), attributes)
            there = commit.files.get(file["path"])
            oid = there and (there.sha256 if there.lfs else there.oid)
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _in_json({"files": files, "commitOid": commit.id})

    def _signature(self, repo_id: str, sha256: str) -> str:
        return hashlib.sha256(f"{self.token} {repo_id} {sha256}".encode()).hexdigest()

    def _lfs_batch(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository = self._writable(request, repo_id)
        verify = {"href": f"{self.endpoint}/{repo_id}.git/info/lfs/objects/verify"}
        objects = []
        for wanted in request.json()["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in repository.lfs:
                signature = self._signature(repo_id, wanted["oid"])
                upload = {"href": f"{self.endpoint}/lfs/{repo_id}/{wanted['oid']}?signature={signature}"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return _in_json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request: ReceivedRequest, repo_id: str, sha256: str) -> Answer:
        # As at a storage service, the signature in the address stands for the token.
        repository = self._repositories.read(repo_id)
        if repository is None or request.query.get("signature") != [self._signature(repo_id, sha256)]:
            raise Refusal(HTTPStatus.FORBIDDEN, "The signature does not fit")
        if hashlib.sha256(request.body).hexdigest() != sha256:
            raise Refusal(HTTPStatus.BAD_REQUEST, "The content does not have this sha256")
        self._repositories.store(request.body)
        uploaded = LfsObject(len(request.body), now())
        self._repositories.write(replace(repository, lfs={sha256: uploaded, **repository.lfs}))
        return Answer()

    def _lfs_verify(self, request: ReceivedRequest, repo_id: str) -> Answer:
        wanted = request.json()
        uploaded = self._writable(request, repo_id).lfs.get(wanted["oid"])
        if uploaded is None or uploaded.size != wanted["size"]:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "The object was not uploaded in this size")
        return _in_json({})

    def _create_commit(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._writable(request, repo_id)
        header, *operations = request.lines()
        parent, create_pr = header["value"].get("parentCommit"), "create_pr" in request.query
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
        base = self._commit_at(repository, parent if create_pr and parent else revision)
        ref = f"refs/pr/{number}" if create_pr else repository.ref(revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "A commit must be on top of a branch")
        if parent and not base.id.startswith(parent):
            raise Refusal(HTTPStatus.PRECONDITION_FAILED, "A commit has happened since. Please refresh and try again.")
        files, contents = _apply(operations, base.files, repository.lfs)
        errors, _ = validate(contents["README.md"].decode()) if "README.md" in contents else ([], [])
        if errors:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Invalid metadata in README.md: {errors[0].splitlines()[0]}")
        for content in contents.values():
            self._repositories.store(content)
        commit = Commit.new(base.id, header["value"]["summary"], header["value"]["description"], files)
        self._repositories.write(repository.with_commit(ref, commit))
        url = f"{self.endpoint}/{repo_id}"
        said = {"success": True, "commitOid": commit.id, "commitUrl": f"{url}/commit/{commit.id}", "hookOutput": ""}
        return _in_json({**said, "pullRequestUrl": f"{url}/discussions/{number}"} if create_pr else said)

    def _info(self, request: ReceivedRequest, repo_id: str, revision: str = "main") -> Answer:
        repository = self._readable(request, repo_id)
        commit = self._commit_at(repository, revision)
        card = commit.files.get("README.md")
        try:
            data = front_matter(self._repositories.content(repository, card).decode()) if card else None
        except yaml.YAMLError:
            data = None
        data = data if isinstance(data, dict) else {}
        blobs = "blobs" in request.query
        info = {
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.split("/")[0],
            "sha": commit.id,
            "lastModified": commit.date,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "tags": data.get("tags") or [],
            "cardData": data,
            "siblings": [_sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
        }
        expanded = request.query.get("expand")
        return _in_json({key: value for key, value in info.items() if not expanded or key in ("id", *expanded)})

    def _tree(self, request: ReceivedRequest, repo_id: str, revision: str, path: str) -> Answer:
        repository = self._readable(request, repo_id)
        commit = self._commit_at(repository, revision)
        entries = _entries(repository, commit, request.query.get("expand") == ["true"])
        below = f"{path}/" if path else ""
        if path and not any(name.startswith(below) for name in entries):
            raise Refusal(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound")
        recursive = request.query.get("recursive") == ["true"]
        chosen = (name for name in entries if name.startswith(below) and (recursive or "/" not in name[len(below) :]))
        return self._page(request, [entries[name] for name in chosen])

    def _paths_info(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._readable(request, repo_id)
        wanted = parse_qs(request.body.decode())
        entries = _entries(repository, self._commit_at(repository, revision), wanted.get("expand") == ["true"])
        return _in_json([entries[path] for path in wanted["paths"] if path in entries])

    def _refs(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository = self._readable(request, repo_id)
        kinds = {"branches": "refs/heads/", "converts": "refs/convert/", "tags": "refs/tags/"}
        if "include_prs" in request.query:
            kinds["pullRequests"] = "refs/pr/"
        return _in_json(
            {
                kind: [
                    {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit}
                    for ref, commit in repository.refs.items()
                    if ref.startswith(prefix)
                ]
                for kind, prefix in kinds.items()
            }
        )

    def _commits(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._readable(request, repo_id)
        entries = []
        for commit in repository.history(self._commit_at(repository, revision)):
            texts = {"title": commit.title, "message": commit.message}
            entries.append({"id": commit.id, **texts, "authors": [{"user": self.user}], "date": commit.date})
            if "expand[]" in request.query:
                entries[-1]["formatted"] = texts
        return self._page(request, entries)

    def _super_squash(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._writable(request, repo_id)
        head, ref = self._commit_at(repository, revision), repository.ref(revision)
        if ref is None or not ref.startswith("refs/heads/"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "Only the history of a branch can be squashed")
        squashed = Commit.new(None, request.json()["message"], "", head.files)
        self._repositories.write(repository.with_commit(ref, squashed))
        return _in_json({})

    def _create_branch(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        repository = self._writable(request, repo_id)
        start = self._commit_at(repository, request.json().get("startingPoint", "main"))
        return self._create_ref(repository, f"refs/heads/{name}", start)

    def _create_tag(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        # The address of a tag to be made ends in what it is to name.
        repository = self._writable(request, repo_id)
        return self._create_ref(repository, f"refs/tags/{request.json()['tag']}", self._commit_at(repository, name))

    def _create_ref(self, repository: Repository, ref: str, commit: Commit) -> Answer:
        if ref in repository.refs:
            raise Refusal(HTTPStatus.CONFLICT, "Reference already exists")
        self._repositories.write(repository.with_refs({**repository.refs, ref: commit.id}))
        return _in_json({})

    def _delete_branch(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        if name == "main":
            raise Refusal(HTTPStatus.FORBIDDEN, "The branch main cannot be deleted")
        return self._delete_ref(self._writable(request, repo_id), f"refs/heads/{name}")

    def _delete_tag(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        return self._delete_ref(self._writable(request, repo_id), f"refs/tags/{name}")

    def _delete_ref(self, repository: Repository, ref: str) -> Answer:
        if ref not in repository.refs:
            raise Refusal(HTTPStatus.NOT_FOUND, "Invalid rev id", "RevisionNotFound")
        refs = {name: commit for name, commit in repository.refs.items() if name != ref}
        self._repositories.write(repository.with_refs(refs))
        return _in_json({})

    def _lfs_files(self, request: ReceivedRequest, repo_id: str) -> Answer:
        return self._page(
            request,
            [
                {
                    "fileOid": key,
                    "oid": key,
                    "filename": value.filename,
                    "size": value.size,
                    "pushedAt": value.pushed_at,
                }
                for key, value in self._writable(request, repo_id).lfs.items()
                if value.filename
            ],
        )

    def _delete_lfs_files(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository, wanted = self._writable(request, repo_id), request.json()["deletions"]
        self._repositories.write(repository.without_lfs(wanted["sha"], wanted["rewriteHistory"]))
        return _in_json({})

    def _resolve(self, request: ReceivedRequest, repo_id: str, revision: str, path: str) -> Answer:
        repository = self._readable(request, repo_id)
        if repository.gated and not self._is_owner(request):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Access to this model is restricted", "GatedRepo")
        commit = self._commit_at(repository, revision)
        headers = {"X-Repo-Commit": commit.id}
        file = commit.files.get(path)
        content = self._repositories.content(repository, file) if file else None
        if content is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound", headers)
        etag = f'"{file.sha256 if file.lfs else file.oid}"'
        headers |= {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if file.lfs:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not ranged:
            return Answer(content, headers=headers)
        start, end = int(ranged[1]), min(int(ranged[2] or file.size), file.size - 1)
        if start > end:
            raise Refusal(416, "The range is not satisfiable", headers={"Content-Range": f"bytes */{file.size}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
        return Answer(content[start : end + 1], HTTPStatus.PARTIAL_CONTENT, headers)


def _apply(
    operations: list[dict[str, Any]], files: dict[str, File], lfs: dict[str, LfsObject]
) -> tuple[dict[str, File], dict[str, bytes]]:
    """
    The files after the operations of a commit, and the contents of those that are new and regular.

    Args:
        operations (`list[dict[str, Any]]`):
            Without the header.
        files (`dict[str, File]`):
            Of the commit before.
        lfs (`dict[str, LfsObject]`):
            The objects that were uploaded.

    Raises:
        `Refusal`: If an operation cannot be.
    """
    files, contents = dict(files), {}
    for operation in operations:
        kind, value = operation["key"], operation["value"]
        path = value["path"]
        if kind == "file":
            contents[path] = base64.b64decode(value["content"])
            files[path] = File.regular(contents[path])
        elif kind == "lfsFile":
            uploaded = lfs.get(value["oid"])
            if uploaded is None or uploaded.size != value.get("size", uploaded.size):
                raise Refusal(HTTPStatus.BAD_REQUEST, "An LFS pointer pointed to a file that does not exist")
            files[path] = File.in_lfs(value["oid"], uploaded.size)
        elif kind in ("deletedFile", "deletedFolder"):
            below = f"{path.rstrip('/')}/"
            doomed = [name for name in files if (name == path if kind == "deletedFile" else name.startswith(below))]
            if not doomed:
                raise Refusal(HTTPStatus.NOT_FOUND, "A file with this name doesn't exist", "EntryNotFound")
            for name in doomed:
                del files[name]
        else:
            raise Refusal(HTTPStatus.BAD_REQUEST, "This Hub has no such operation")
    return files, contents


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    pointer = {"sha256": file.sha256, "size": file.size, "pointerSize": len(lfs_pointer(file.sha256, file.size))}
    sibling = {"rfilename": path, "size": file.size, "blobId": file.oid}
    return {**sibling, "lfs": pointer} if file.lfs else sibling


def _entries(repository: Repository, commit: Commit, expand: bool) -> dict[str, dict[str, Any]]:
    """The files and the folders of a commit by their paths; expanded, with the last commit that changed them."""
    entries = {}
    for path, file in commit.files.items():
        entries[path] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
        if file.lfs:
            pointer_size = len(lfs_pointer(file.sha256, file.size))
            entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer_size}
        for parent in map(str, PurePosixPath(path).parents[:-1]):
            oids = sorted(_below(commit, parent).items())
            oid = hashlib.sha1(repr(oids).encode()).hexdigest()
            entries[parent] = {"type": "directory", "path": parent, "oid": oid, "size": 0}
    for path, entry in entries.items() if expand else ():
        changed = commit
        for older in repository.history(commit)[1:]:
            if _below(older, path) != _below(commit, path):
                break
            changed = older
        entry["lastCommit"] = {"id": changed.id, "title": changed.title, "date": changed.date}
    return dict(sorted(entries.items()))


def _below(commit: Commit, path: str) -> dict[str, str]:
    """The oids of a file, or of the files of a folder."""
    return {name: file.oid for name, file in commit.files.items() if name == path or name.startswith(f"{path}/")}


# One segment of a path; the client percent-encodes what is in it.
_REPO = "(?P<repo_id>[^/]+/[^/]+)"
_REVISION = "(?P<revision>[^/]+)"
_MODEL = f"/api/models/{_REPO}"
_LFS = f"/{_REPO}[.]git/info/lfs/objects"
_ANY_REPO = "(?P<repo_id>[^/]+(?:/[^/]+)?)"
ROUTES = [
    ("GET", "/api/whoami-v2", LocalHub._whoami),
    ("POST", "/api/validate-yaml", LocalHub._validate_yaml),
    ("POST", "/api/repos/create", LocalHub._create_repository),
    ("DELETE", "/api/repos/delete", LocalHub._delete_repository),
    ("PUT", f"{_MODEL}/settings", LocalHub._settings),
    ("POST", f"{_MODEL}/preupload/{_REVISION}", LocalHub._preupload),
    ("POST", f"{_LFS}/batch", LocalHub._lfs_batch),
    ("PUT", f"/lfs/{_REPO}/(?P<sha256>[^/]+)", LocalHub._lfs_upload),
    ("POST", f"{_LFS}/verify", LocalHub._lfs_verify),
    ("POST", f"{_MODEL}/commit/{_REVISION}", LocalHub._create_commit),
    ("GET", f"/api/models/{_ANY_REPO}", LocalHub._info),
    ("GET", f"{_MODEL}/revision/{_REVISION}", LocalHub._info),
    ("GET", f"{_MODEL}/tree/{_REVISION}(?:/(?P<path>.+))?", LocalHub._tree),
    ("POST", f"{_MODEL}/paths-info/{_REVISION}", LocalHub._paths_info),
    ("GET", f"{_MODEL}/refs", LocalHub._refs),
    ("GET", f"{_MODEL}/commits/{_REVISION}", LocalHub._commits),
    ("POST", f"{_MODEL}/super-squash/{_REVISION}", LocalHub._super_squash),
    ("POST", f"{_MODEL}/branch/(?P<name>[^/]+)", LocalHub._create_branch),
    ("DELETE", f"{_MODEL}/branch/(?P<name>[^/]+)", LocalHub._delete_branch),
    ("POST", f"{_MODEL}/tag/(?P<name>[^/]+)", LocalHub._create_tag),
    ("DELETE", f"{_MODEL}/tag/(?P<name>[^/]+)", LocalHub._delete_tag),
    ("GET", f"{_MODEL}/lfs-files", LocalHub._lfs_files),
    ("POST", f"{_MODEL}/lfs-files/batch", LocalHub._delete_lfs_files),
    ("GET", f"/{_ANY_REPO}/resolve/{_REVISION}/(?P<path>.+)", LocalHub._resolve),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer leave together, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _receive(self) -> None:
        headers = {name.lower(): ", ".join(self.headers.get_all(name)) for name in self.headers.keys()}
        answer = self.server.hub.receive(ReceivedRequest(self.command, self.path, headers, self._body()))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _receive
