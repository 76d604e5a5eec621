# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The Hub's client in this process, pointed at a Hub on this machine."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import transformers.utils.hub
from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _cache_manager, _http

from tests.hub.server import LocalHub


@contextmanager
def client_of(hub: LocalHub) -> Iterator[None]:
    """
    Lets `huggingface_hub`, and what is built on it, use a Hub on this machine, not offline and not this machine's
    cache and token. Nothing else can be connected to, and the client tries again at once rather than after 1, 2, 4,
    8 and 8 seconds. Before and afterwards there is no open connection.

    Args:
        hub (`LocalHub`):
            One that runs.
    """
    environment = hub.environment()
    # A test passes the token itself, or does without.
    del environment["HF_TOKEN"]
    home, cache = environment["HF_HOME"], environment["HF_HUB_CACHE"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HOME": home,
            "HF_HUB_CACHE": cache,
            "HUGGINGFACE_HUB_CACHE": cache,
            "HF_ASSETS_CACHE": os.path.join(home, "assets"),
            "HF_XET_CACHE": os.path.join(home, "xet"),
            "HF_TOKEN_PATH": environment["HF_TOKEN_PATH"],
            "HF_STORED_TOKENS_PATH": os.path.join(home, "stored_tokens"),
        }.items():
            patch.setattr(constants, name, value)
        patch.setattr(_cache_manager, "HF_HUB_CACHE", cache)
        # These two keep the address that they were made with.
        patch.setattr(hf_api.api, "endpoint", hub.endpoint)
        patch.setattr(transformers.utils.hub, "_hf_api", None)
        # All that either module uses of `time` is to sleep before it tries again.
        for module in (_http, file_download):
            patch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
        _refuse_other_machines(patch)
        _http.close_session()
        try:
            yield
        finally:
            _http.close_session()


def _refuse_other_machines(patch: pytest.MonkeyPatch) -> None:
    resolve, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def checked(host):
        if host not in (None, "127.0.0.1"):
            raise RuntimeError(f"A test tried to reach {host}. Only the Hub on this machine may be used.")

    def checked_resolve(host, *args, **kwargs):
        checked(host)
        return resolve(host, *args, **kwargs)

    def checking(function):
        def checked_function(opened, address):
            # That of a socket within this machine is no tuple.
            if isinstance(address, tuple):
                checked(address[0])
            return function(opened, address)

        return checked_function

    patch.setattr(socket, "getaddrinfo", checked_resolve)
    patch.setattr(socket.socket, "connect", checking(connect))
    patch.setattr(socket.socket, "connect_ex", checking(connect_ex))
