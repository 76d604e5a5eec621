# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The requests that the local Hub receives, its answers, and faults that a test asks for."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit


@dataclass(frozen=True)
class ReceivedRequest:
    """
    A request as it arrived.

    Args:
        method (`str`):
            The method, such as `"POST"`.
        path (`str`):
            Path and query, percent-encoded.
        headers (`dict[str, str]`):
            Headers by their names in lower case.
        body (`bytes`):
            The body; its chunks are joined.
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
        """Everything that was sent except the token. Encoded texts are in it twice, encoded and decoded."""
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
    """Every string within a JSON value, and its decoded form if it can be base64."""
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


def json_answer(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Answer:
    return Answer(
        json.dumps(value, default=str).encode(), status, {"Content-Type": "application/json", **(headers or {})}
    )


class Refusal(Exception):
    """
    Ends a request with an error.

    Args:
        status (`int`):
            Status of the answer.
        message (`str`):
            The message that the client shows.
        code (`str`, *optional*):
            The code by which the client chooses its exception.
        headers (`dict[str, str]`, *optional*):
            Further headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        codes = {"X-Error-Code": code} if code else {}
        headers = {"X-Error-Message": message, **codes, **(headers or {})}
        self.answer = json_answer({"error": message}, status, headers)


@dataclass
class Fault:
    method: str
    path: re.Pattern[str]
    status: int | None
    drop: bool
    delay: float
    after: bool
    times: int

    def applies_to(self, request: ReceivedRequest) -> bool:
        return self.times > 0 and self.method == request.method and self.path.search(request.path) is not None
