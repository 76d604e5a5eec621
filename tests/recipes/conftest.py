# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import gc
import importlib
import sys

import pytest
import torch

from .running import FOLDER, small_language_model


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
