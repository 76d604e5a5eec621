# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean.state.directory import check_output_directory


@pytest.mark.parametrize("name", ["file/output", "file/a/b", "a" * 300, "a\0b", "/proc/none/output"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The output directory .* cannot be written .*Choose another `output_dir`"):
        check_output_directory(tmp_path / name, resuming=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_trial_of_a_folder_leaves_nothing_behind(tmp_path):
    check_output_directory(tmp_path / "a" / "b", resuming=False)
    check_output_directory(tmp_path, resuming=False)
    assert list(tmp_path.iterdir()) == []
