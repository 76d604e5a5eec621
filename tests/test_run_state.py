# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean.run_state import check_output_directory


def test_an_output_directory_that_holds_anything_is_refused(tmp_path):
    check_output_directory(tmp_path / "new", resuming=False)
    check_output_directory(tmp_path, resuming=False)
    (tmp_path / "checkpoint-10").mkdir()
    check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="already holds checkpoint-10"):
        check_output_directory(tmp_path, resuming=False)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors\. Nothing is ever overwritten"):
        check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="is a file"):
        check_output_directory(tmp_path / "model.safetensors", resuming=True)
