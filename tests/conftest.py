# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os


# Before any Hugging Face library is imported: no test may reach the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets
import pytest
import torch
from transformers.utils import logging

from tests.hub.client import client_of
from tests.hub.server import LocalHub


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def hub(tmp_path_factory):
    """A Hub on this machine, which the client in this process uses, and no other, for the length of the test."""
    with LocalHub(tmp_path_factory.mktemp("hub")) as running, client_of(running):
        yield running
