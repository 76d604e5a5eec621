# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from huggingface_hub import HfApi

from hf_deepclean.publishing import folder as staging
from tests.publishing.pushing import Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp)


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch, request):
    """Leaves out the plots, which take most of the time of a push, unless a test asks for `with_pictures`."""
    if "with_pictures" not in request.fixturenames:
        monkeypatch.setattr(staging, "find_spec", lambda name: None)


@pytest.fixture
def with_pictures():
    pass
