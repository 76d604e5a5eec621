# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Points the Hub's client in this process at a Hub on this machine."""

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
    Lets `huggingface_hub`, and the libraries built on it, use a Hub on this machine: online, with a cache of its own
    and without this machine's token. No other address can be reached. The client retries at once, not after 1, 2, 4, 8
    and 8 seconds. There is no open connection before and after.

    Args:
        hub (`LocalHub`):
            A running Hub.
    """
    environment = hub.environment()
    # A test passes the token itself if it needs it.
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
        # These two keep the address with which they were made.
        patch.setattr(hf_api.api, "endpoint", hub.endpoint)
        patch.setattr(transformers.utils.hub, "_hf_api", None)
        # Both modules use `time` only to sleep before a retry.
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
            # The address of a Unix socket is no tuple.
            if isinstance(address, tuple):
                checked(address[0])
            return function(opened, address)

        return checked_function

    patch.setattr(socket, "getaddrinfo", checked_resolve)
    patch.setattr(socket.socket, "connect", checking(connect))
    patch.setattr(socket.socket, "connect_ex", checking(connect_ex))
