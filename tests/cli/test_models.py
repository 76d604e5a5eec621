# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean.cli.models import ModelArguments, model_loader
from tests.custom_code import save_custom_model


def test_the_code_of_a_model_is_run_only_if_the_command_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("A question was asked at the terminal."))
    name = str(save_custom_model(tmp_path / "model"))
    with pytest.raises(ValueError, match="not run unasked"):
        model_loader(ModelArguments("text-classification", name))
    loaded = model_loader(ModelArguments("text-classification", name), trust_remote_code=True)(name)
    assert type(loaded).__name__ == "Mine"
    with pytest.raises(ValueError, match="not one of the task 'causal-lm'"):
        model_loader(ModelArguments("causal-lm", name), trust_remote_code=True)
