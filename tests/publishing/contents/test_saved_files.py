# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has saved is told from anything else; `tests/attacks` has the attempts to deceive it."""

import json

import torch
from safetensors.torch import save_file

from hf_deepclean.publishing.contents.saved_files import (
    check_saved_weights,
    digest_of_weights,
    digests_of_result,
    warn_of_changed_files,
)


def test_the_digest_of_weights_is_that_of_the_tensors_however_they_are_divided(tmp_path):
    tensors = {
        "b": torch.randn(3, 2),
        "a": torch.arange(5),
        "empty": torch.zeros(0, 4),
        "c": torch.ones((), dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "whole.safetensors", {"format": "pt"})
    save_file({"a": tensors["a"]}, tmp_path / "1.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "a"}, tmp_path / "2.safetensors")
    whole = digest_of_weights(tmp_path, ["whole.safetensors"])
    assert digest_of_weights(tmp_path, ["1.safetensors", "2.safetensors"]) == whole
    assert digest_of_weights(tmp_path, ["2.safetensors"]) != whole


def test_edited_and_added_files_are_told_and_a_report_without_digests_too(tmp_path, caplog):
    save_file({"a": torch.arange(5)}, tmp_path / "model.safetensors")
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text("{}")
    saved = json.loads(json.dumps(digests_of_result(tmp_path)))
    names = ["config.json", "generation_config.json", "model.safetensors"]
    check_saved_weights(tmp_path, names, saved, tmp_path)
    warn_of_changed_files(tmp_path, names, saved)
    assert not caplog.records
    (tmp_path / "generation_config.json").write_text('{"top_k": 3}')
    warn_of_changed_files(tmp_path, ["LICENSE", "model.safetensors", "generation_config.json", "chat.jinja"], saved)
    (record,) = caplog.records
    assert "edited: generation_config.json; added: chat.jinja; taken away: config.json" in record.message
    caplog.clear()
    check_saved_weights(tmp_path, names, {}, tmp_path)
    warn_of_changed_files(tmp_path, names, {})
    (record,) = caplog.records
    assert "comes from an earlier version" in record.message
