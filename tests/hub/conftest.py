# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.hub.use import CARD, REPO, WEIGHTS


@pytest.fixture
def old(hub):
    """A Hub with a private repository of one commit on top of the first."""
    hub.seed(REPO, {"README.md": CARD, "model.safetensors": WEIGHTS, "logs/old.txt": b"old"})
    return hub
