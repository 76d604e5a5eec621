# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the local Hub share: a repository, and short names for what the client does with it."""

import re

from huggingface_hub import CommitOperationAdd, HfApi


REPO = "tester/model"
CARD = b"---\nlicense: mit\ntags:\n- test\n---\n# A card\n"
WEIGHTS = bytes(range(256)) * 8


def add(files):
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def commit(hub, operations, **kwargs):
    return HfApi(token=hub.token).create_commit(REPO, operations, commit_message="A change", **kwargs)


def received(hub, method, path):
    return sum(request.method == method and bool(re.search(path, request.path)) for request in hub.requests)
