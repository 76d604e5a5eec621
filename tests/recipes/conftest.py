# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import gc
import importlib
import os
import sys

import pytest
import torch

from .running import FOLDER, small_language_model


BENCHMARK = FOLDER / "benchmark"
MODULES = ["task_data", "tasks", "train_models", "methods", "choose", "figures", "jobs", "records", "run", "tables"]
MODULES += ["small_requests"]


@pytest.fixture(scope="module")
def benchmark():
    """The modules of the benchmark by name, imported as if one of them was run as a script."""
    num_threads, path, environment = torch.get_num_threads(), list(sys.path), dict(os.environ)
    torch.set_num_threads(1)
    before = set(sys.modules)
    sys.path[:0] = [str(BENCHMARK), str(FOLDER)]
    yield {name: importlib.import_module(name) for name in MODULES}
    torch.set_num_threads(num_threads)
    sys.path[:] = path
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def recipes():
    """The modules of the recipes by name, imported as if one of them was run as a script."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sys.path.insert(0, str(FOLDER))
    names = [path.stem for path in FOLDER.glob("*.py")]
    modules = {name: importlib.import_module(name) for name in names}
    # Keeps imported modules out of the garbage collection with which every training starts.
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules["causal_lm"], "new_model", small_language_model)
        yield modules
    torch.set_num_threads(num_threads)
    sys.path.remove(str(FOLDER))
    for name in names:
        del sys.modules[name]


@pytest.fixture
def demo(recipes):
    return recipes["demo_digits"]
