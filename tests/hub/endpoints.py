# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The endpoints of the local Hub."""

import base64
import hashlib
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import yaml

from tests.hub.commits import apply, entries_of, sibling
from tests.hub.front_matter import front_matter, validate
from tests.hub.messages import Answer, ReceivedRequest, Refusal, json_answer
from tests.hub.repositories import Commit, LfsObject, Repositories, Repository, is_lfs, now


# Entries of a list in one answer, far fewer than on the Hub, so that a short history has two pages.
PAGE_SIZE = 20


class Endpoints:
    """
    Answers requests.

    Args:
        repositories (`Repositories`):
            The repositories.
        address (`str`):
            The address of the Hub.
        user (`str`):
            The user whose repositories those without a namespace are.
        token (`str`):
            The user's token.
    """

    def __init__(self, repositories: Repositories, address: str, user: str, token: str) -> None:
        self._repositories = repositories
        self._address, self._user, self._token = address, user, token

    def answer(self, request: ReceivedRequest) -> Answer:
        """
        Answers a request.

        Raises:
            `Refusal`: If the answer is an error.
        """
        method = "GET" if request.method == "HEAD" else request.method
        path = urlsplit(request.path).path
        for routed, pattern, respond in ROUTES:
            match = re.fullmatch(pattern, path) if routed == method else None
            if match:
                return respond(self, request, **{name: unquote(value) for name, value in match.groupdict("").items()})
        if path.startswith("/api/models/"):
            raise Refusal(HTTPStatus.NOT_FOUND, "Repository not found", "RepoNotFound")
        raise Refusal(HTTPStatus.NOT_FOUND, "This Hub has no such endpoint")

    def _is_owner(self, request: ReceivedRequest) -> bool:
        given = request.headers.get("authorization")
        if given not in (None, f"Bearer {self._token}"):
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

    def _page(self, request: ReceivedRequest, entries: list[Any]) -> Answer:
        start = int(request.query.get("cursor", ["0"])[0])
        end, headers = start + PAGE_SIZE, {}
        if end < len(entries):
            query = urlencode({**request.query, "cursor": end}, doseq=True)
            headers["Link"] = f'<{self._address}{urlsplit(request.path).path}?{query}>; rel="next"'
        return json_answer(entries[start:end], headers=headers)

    def _whoami(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
        return json_answer({"type": "user", "name": self._user, "fullname": self._user, "orgs": [], "auth": auth})

    def _validate_yaml(self, request: ReceivedRequest) -> Answer:
        errors, warnings = validate(request.json()["content"])
        status = HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK
        if request.headers.get("accept") == "text/plain":
            return Answer("\n".join(errors).encode(), status, {"Content-Type": "text/plain"})
        said = {"errors": errors, "warnings": warnings}
        return json_answer(
            {key: [{"message": message} for message in messages] for key, messages in said.items()}, status
        )

    def _named(self, wanted: dict[str, Any]) -> str:
        if wanted.get("type") not in (None, "model"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "This Hub has models only")
        return f"{wanted.get('organization') or self._user}/{wanted['name']}"

    def _create_repository(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        wanted = request.json()
        repo_id = self._named(wanted)
        url = f"{self._address}/{repo_id}"
        if self._repositories.read(repo_id):
            return json_answer({"error": "You already created this model repo", "url": url}, HTTPStatus.CONFLICT)
        self._repositories.create(repo_id, wanted.get("visibility") == "private" or wanted.get("private") is True)
        return json_answer({"url": url, "name": repo_id})

    def _delete_repository(self, request: ReceivedRequest) -> Answer:
        self._check_owner(request)
        self._repositories.delete(self._readable(request, self._named(request.json())).id)
        return json_answer({})

    def _settings(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository, wanted = self._writable(request, repo_id), request.json()
        private = wanted["visibility"] == "private" if "visibility" in wanted else wanted.get("private")
        private = repository.private if private is None else private
        self._repositories.write(replace(repository, private=private, gated=wanted.get("gated", repository.gated)))
        return json_answer({})

    def _preupload(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._writable(request, repo_id)
        commit = self._commit_at(repository, revision)
        attributes = self._repositories.git_attributes(repository, commit)
        files = []
        for file in request.json()["files"]:
            lfs = is_lfs(file["path"], file["size"], base64.b64decode(file["sample"]), attributes)
            there = commit.files.get(file["path"])
            oid = there and (there.sha256 if there.lfs else there.oid)
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return json_answer({"files": files, "commitOid": commit.id})

    def _signature(self, repo_id: str, sha256: str) -> str:
        return hashlib.sha256(f"{self._token} {repo_id} {sha256}".encode()).hexdigest()

    def _lfs_batch(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository = self._writable(request, repo_id)
        verify = {"href": f"{self._address}/{repo_id}.git/info/lfs/objects/verify"}
        objects = []
        for wanted in request.json()["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in repository.lfs:
                signature = self._signature(repo_id, wanted["oid"])
                upload = {"href": f"{self._address}/lfs/{repo_id}/{wanted['oid']}?signature={signature}"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return json_answer({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request: ReceivedRequest, repo_id: str, sha256: str) -> Answer:
        # As in a storage service, the signature in the address takes the place of the token.
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
        return json_answer({})

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
        files, contents = apply(operations, base.files, repository.lfs)
        errors, _ = validate(contents["README.md"].decode()) if "README.md" in contents else ([], [])
        if errors:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Invalid metadata in README.md: {errors[0].splitlines()[0]}")
        for content in contents.values():
            self._repositories.store(content)
        commit = Commit.new(base.id, header["value"]["summary"], header["value"]["description"], files)
        self._repositories.write(repository.with_commit(ref, commit))
        url = f"{self._address}/{repo_id}"
        said = {"success": True, "commitOid": commit.id, "commitUrl": f"{url}/commit/{commit.id}", "hookOutput": ""}
        return json_answer({**said, "pullRequestUrl": f"{url}/discussions/{number}"} if create_pr else said)

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
            "siblings": [sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
        }
        expanded = request.query.get("expand")
        return json_answer({key: value for key, value in info.items() if not expanded or key in ("id", *expanded)})

    def _tree(self, request: ReceivedRequest, repo_id: str, revision: str, path: str) -> Answer:
        repository = self._readable(request, repo_id)
        commit = self._commit_at(repository, revision)
        entries = entries_of(repository, commit, request.query.get("expand") == ["true"])
        below = f"{path}/" if path else ""
        if path and not any(name.startswith(below) for name in entries):
            raise Refusal(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound")
        recursive = request.query.get("recursive") == ["true"]
        chosen = (name for name in entries if name.startswith(below) and (recursive or "/" not in name[len(below) :]))
        return self._page(request, [entries[name] for name in chosen])

    def _paths_info(self, request: ReceivedRequest, repo_id: str, revision: str) -> Answer:
        repository = self._readable(request, repo_id)
        wanted = parse_qs(request.body.decode())
        entries = entries_of(repository, self._commit_at(repository, revision), wanted.get("expand") == ["true"])
        return json_answer([entries[path] for path in wanted["paths"] if path in entries])

    def _refs(self, request: ReceivedRequest, repo_id: str) -> Answer:
        repository = self._readable(request, repo_id)
        kinds = {"branches": "refs/heads/", "converts": "refs/convert/", "tags": "refs/tags/"}
        if "include_prs" in request.query:
            kinds["pullRequests"] = "refs/pr/"
        return json_answer(
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
            entries.append({"id": commit.id, **texts, "authors": [{"user": self._user}], "date": commit.date})
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
        return json_answer({})

    def _create_branch(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        repository = self._writable(request, repo_id)
        start = self._commit_at(repository, request.json().get("startingPoint", "main"))
        return self._create_ref(repository, f"refs/heads/{name}", start)

    def _create_tag(self, request: ReceivedRequest, repo_id: str, name: str) -> Answer:
        # The address ends in the revision that the new tag names.
        repository = self._writable(request, repo_id)
        return self._create_ref(repository, f"refs/tags/{request.json()['tag']}", self._commit_at(repository, name))

    def _create_ref(self, repository: Repository, ref: str, commit: Commit) -> Answer:
        if ref in repository.refs:
            raise Refusal(HTTPStatus.CONFLICT, "Reference already exists")
        self._repositories.write(repository.with_refs({**repository.refs, ref: commit.id}))
        return json_answer({})

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
        return json_answer({})

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
        return json_answer({})

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


# One segment of a path. The client percent-encodes it.
_REPO = "(?P<repo_id>[^/]+/[^/]+)"
_REVISION = "(?P<revision>[^/]+)"
_MODEL = f"/api/models/{_REPO}"
_LFS = f"/{_REPO}[.]git/info/lfs/objects"
_ANY_REPO = "(?P<repo_id>[^/]+(?:/[^/]+)?)"
ROUTES = [
    ("GET", "/api/whoami-v2", Endpoints._whoami),
    ("POST", "/api/validate-yaml", Endpoints._validate_yaml),
    ("POST", "/api/repos/create", Endpoints._create_repository),
    ("DELETE", "/api/repos/delete", Endpoints._delete_repository),
    ("PUT", f"{_MODEL}/settings", Endpoints._settings),
    ("POST", f"{_MODEL}/preupload/{_REVISION}", Endpoints._preupload),
    ("POST", f"{_LFS}/batch", Endpoints._lfs_batch),
    ("PUT", f"/lfs/{_REPO}/(?P<sha256>[^/]+)", Endpoints._lfs_upload),
    ("POST", f"{_LFS}/verify", Endpoints._lfs_verify),
    ("POST", f"{_MODEL}/commit/{_REVISION}", Endpoints._create_commit),
    ("GET", f"/api/models/{_ANY_REPO}", Endpoints._info),
    ("GET", f"{_MODEL}/revision/{_REVISION}", Endpoints._info),
    ("GET", f"{_MODEL}/tree/{_REVISION}(?:/(?P<path>.+))?", Endpoints._tree),
    ("POST", f"{_MODEL}/paths-info/{_REVISION}", Endpoints._paths_info),
    ("GET", f"{_MODEL}/refs", Endpoints._refs),
    ("GET", f"{_MODEL}/commits/{_REVISION}", Endpoints._commits),
    ("POST", f"{_MODEL}/super-squash/{_REVISION}", Endpoints._super_squash),
    ("POST", f"{_MODEL}/branch/(?P<name>[^/]+)", Endpoints._create_branch),
    ("DELETE", f"{_MODEL}/branch/(?P<name>[^/]+)", Endpoints._delete_branch),
    ("POST", f"{_MODEL}/tag/(?P<name>[^/]+)", Endpoints._create_tag),
    ("DELETE", f"{_MODEL}/tag/(?P<name>[^/]+)", Endpoints._delete_tag),
    ("GET", f"{_MODEL}/lfs-files", Endpoints._lfs_files),
    ("POST", f"{_MODEL}/lfs-files/batch", Endpoints._delete_lfs_files),
    ("GET", f"/{_ANY_REPO}/resolve/{_REVISION}/(?P<path>.+)", Endpoints._resolve),
]
