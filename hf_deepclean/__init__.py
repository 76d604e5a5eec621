# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Make a trained model forget chosen training data, and measure what that did."""

import lazy_loader

from .version import __version__ as __version__


# torch and transformers are loaded with the first name that needs them. `__init__.pyi` lists the names.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
