# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import errno

import pytest
import torch
from safetensors import SafetensorError

from hf_deepclean.runtime import sealed_files
from hf_deepclean.runtime.files import remove_folder, remove_incomplete, replaced, staged


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with replaced(path) as written:
        written.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(KeyError), replaced(path) as written:
        written.write_text("half of the sec")
        raise KeyError
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_an_error_that_says_where_and_what_to_do(tmp_path):
    def fill(staging):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="Writing to .*failed .*No space left.*Free space there, and continue") as caught:
        with staged(tmp_path) as staging:
            fill(staging)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "full"), OSError, r"Writing to .*; [\d.]+ MiB are free\).*Free space there"),
        (RuntimeError("PytorchStreamWriter failed writing file"), OSError, "Writing to .*Make room"),
        (MemoryError(), MemoryError, "not enough memory to write to .*resume_from_checkpoint=True"),
        (RuntimeError("sizes differ"), RuntimeError, "^sizes differ$"),
    ],
)
def test_a_lack_of_room_or_memory_says_where_and_how_to_continue(tmp_path, error, kind, message):
    with pytest.raises(kind, match=message) as caught, staged(tmp_path):
        raise error
    assert error in (caught.value, caught.value.__cause__)


def test_tensors_that_do_not_fit_say_how_much_they_need(tmp_path, monkeypatch):
    def save(*args):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(sealed_files, "save_file", save)
    with pytest.raises(OSError, match=r"No space left on device, and a needs 4.0 MiB; [\d.]+ MiB are free"):
        with replaced(tmp_path / "a") as path:
            sealed_files.write_tensors(path, {"x": torch.zeros(2**20)})


def test_a_folder_goes_as_a_whole_and_what_an_interruption_left_can_be_cleared(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    (tmp_path / ".incomplete-abc").mkdir()
    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "never there")
    remove_incomplete(tmp_path)
    assert list(tmp_path.iterdir()) == []
