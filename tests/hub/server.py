# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A Hub on this machine, for the real client: models only, without Xet."""

import re
import secrets
import threading
import time
import traceback
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.hub.endpoints import Endpoints
from tests.hub.messages import Answer, Fault, ReceivedRequest, Refusal, json_answer
from tests.hub.repositories import MAIN, Commit, File, LfsObject, Repositories, Repository, is_lfs, now


class LocalHub:
    """
    A Hub that runs during a `with` block.

    It processes one request at a time, and writes a state as a whole or not at all.

    Args:
        folder (`Path`):
            The folder of the repositories. Repositories that another `LocalHub` has left there are kept.

    Attributes:
        folder (`Path`):
            The folder. Stored contents are in its `blobs`.
        endpoint (`str`):
            The address, which only this machine can reach.
        user (`str`):
            The owner of repositories without a namespace.
        token (`str`):
            The token that is needed to write, and to read private repositories.
        requests (`list[ReceivedRequest]`):
            All received requests, including failed ones.
    """

    user = "tester"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._repositories = Repositories(folder)
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.token = f"hf_{secrets.token_hex(17)}"
        self._endpoints = Endpoints(self._repositories, self.endpoint, self.user, self.token)
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
        """The environment variables with which another process uses this Hub, token included."""
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
            # Otherwise a thread asks a remote service for a conversion.
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
        Lets the next matching requests fail or be late.

        Args:
            method (`str`):
                Method of the requests.
            path (`str`):
                A regular expression to search for in path and query.
            status (`int`, *optional*):
                Status of the answer. 429 comes with `Retry-After: 0`.
            drop (`bool`, *optional*, defaults to `False`):
                Whether to end the connection without an answer.
            delay (`float`, *optional*, defaults to 0.0):
                Seconds before the request is processed.
            after (`bool`, *optional*, defaults to `False`):
                Whether to process the request first, and then fail.
            times (`int`, *optional*, defaults to 1):
                Number of requests.

        Raises:
            `ValueError`: If nothing would happen, or two things at once.
        """
        if (status is not None and drop) or not (status is not None or drop or delay):
            raise ValueError(f"A request fails by one of `status` ({status}) and `drop` ({drop}), or has a `delay`.")
        if after and status is None and not drop:
            raise ValueError("`after` without `status` or `drop` fails nothing. Pass one of them.")
        with self._lock:
            self._faults.append(Fault(method, re.compile(path), status, drop, delay, after, times))

    def received_bytes(self) -> bytes:
        """Everything that was received except the token, see `ReceivedRequest.plain`."""
        return b"\n".join(request.plain() for request in list(self.requests))

    def repo(self, repo_id: str) -> Repository | None:
        with self._lock:
            return self._repositories.read(repo_id)

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """The commits of a revision, newest first."""
        with self._lock:
            repository, commit = self._found(repo_id, revision)
            return repository.history(commit)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The contents by path, including `.gitattributes`."""
        with self._lock:
            repository, commit = self._found(repo_id, revision)
            contents = {path: self._repositories.content(repository, file) for path, file in commit.files.items()}
            return {path: content for path, content in contents.items() if content is not None}

    def seed(self, repo_id: str, files: dict[str, bytes], private: bool = True, title: str = "Upload files") -> str:
        """
        Commits files to `main` without a request. Makes the repository if it does not exist.

        Args:
            repo_id (`str`):
                Namespace and name.
            files (`dict[str, bytes]`):
                Contents by path. Other files stay as they are.
            private (`bool`, *optional*, defaults to `True`):
                Whether a new repository is private.
            title (`str`, *optional*, defaults to `"Upload files"`):
                Title of the commit.

        Returns:
            `str`: The id of the commit.
        """
        with self._lock:
            repository = self._repositories.read(repo_id) or self._repositories.create(repo_id, private)
            head = repository.commit("main")
            attributes = self._repositories.git_attributes(repository, head)
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

    def receive(self, request: ReceivedRequest) -> Answer | None:
        """Answers a request. None ends the connection without an answer."""
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
            return json_answer({"error": "A failure that a test has asked for"}, fault.status, headers)
        return None if fault.drop else answer

    def _answer(self, request: ReceivedRequest) -> Answer:
        try:
            with self._lock:
                return self._endpoints.answer(request)
        except Refusal as refusal:
            return refusal.answer
        except Exception as error:
            # The client does not retry after this status. The error is raised at the end, even if the client goes on.
            self._errors.append(error)
            return json_answer({"error": traceback.format_exc()}, HTTPStatus.NOT_IMPLEMENTED)

    def _found(self, repo_id: str, revision: str) -> tuple[Repository, Commit]:
        repository = self._repositories.read(repo_id)
        commit = repository and repository.commit(revision)
        if not commit:
            raise KeyError(f"There is no {revision} of {repo_id}.")
        return repository, commit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Send head and body of an answer together and at once.
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
