# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import os
import time

import pytest
import torch
from safetensors.torch import save_file

from hf_deepclean import ForgetCommitment
from hf_deepclean.runtime.sealed_files import (
    check_manifest,
    read_tensors,
    sealed,
    unsealed,
    write_manifest,
    write_tensors,
)


def bits(tensors):
    return {name: (str(t.dtype), tuple(t.shape), t.view(torch.uint8).tolist()) for name, t in tensors.items()}


def flipped(content):
    """The content with one bit flipped, for every bit."""
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_whatever_bit_flips_the_tensors_and_their_metadata_are_refused_or_the_same(tmp_path):
    path, tensors = tmp_path / "a.safetensors", {"w": torch.randn(3), "b": torch.randn(1, 2).bfloat16()}
    write_tensors(path, tensors, {"n": "5"}, owner="run")
    read, metadata = read_tensors(path, owner="run")
    assert bits(read) == bits(tensors) and metadata["n"] == "5"
    refused = 0
    for content in flipped(path.read_bytes()):
        path.write_bytes(content)
        try:
            found = read_tensors(path, owner="run")
            assert bits(found[0]) == bits(tensors) and found[1] == metadata
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 0.9 * 8 * path.stat().st_size


def test_whatever_bit_flips_a_record_is_refused_or_the_same(tmp_path):
    path = tmp_path / "forget_commitment.json"
    commitment = ForgetCommitment("a1" * 32, "b2" * 32)
    commitment.save(path)
    before = path.read_bytes()
    for content in flipped(before):
        path.write_bytes(content)
        try:
            assert ForgetCommitment.load(path) == commitment
        except ValueError as error:
            assert str(path) in str(error) and "b2b2" not in str(error)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"w": torch.randn(300)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="is damaged, or is not a safetensors file"):
        read_tensors(path)


def test_a_file_of_another_owner_is_refused_and_one_without_a_digest_is_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"w": torch.ones(2)}, owner="one")
    with pytest.raises(ValueError, match="belongs to another run, or to another place in this one. Do this"):
        read_tensors(path, owner="other", remedy="Do this.")
    save_file({"w": torch.ones(2)}, path, {"n": "5"})
    assert read_tensors(path, owner="other")[1] == {"n": "5"}
    assert "without a digest" in caplog.text


def test_a_record_keeps_its_digest_through_json_and_loses_it_with_any_change():
    record = {"a": [1, 0.1, None, "ä"], "b": {"c": 1e300}}
    kept = json.loads(json.dumps(sealed(record), indent=2))
    assert unsealed(kept) == record and unsealed(record) == record
    with pytest.raises(ValueError, match="does not have the digest"):
        unsealed(kept | {"a": [1, 0.1, None, "a"]})


def test_a_folder_is_whole_or_its_missing_or_damaged_file_is_named(tmp_path):
    for name in ("a", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, "run")
    check_manifest(tmp_path, "run", "")
    (tmp_path / "notes").write_text("of the user")
    check_manifest(tmp_path, "run", "")
    with pytest.raises(ValueError, match="belongs to another run"):
        check_manifest(tmp_path, "other", "")
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError, match=r"/a is damaged, or is a file of another folder"):
        check_manifest(tmp_path, "run", "")
    (tmp_path / "a").write_text("a")
    (tmp_path / "b" / "c").unlink()
    with pytest.raises(ValueError, match="b/c is missing"):
        check_manifest(tmp_path, "run", "")


@pytest.mark.slow
def test_digests_take_a_small_part_of_writing_and_reading_to_the_disk(tmp_path):
    """A gigabyte; the digest is compared with a write that has reached the disk."""
    tensors, path = {str(number): torch.randn(2**22) for number in range(64)}, tmp_path / "a.safetensors"

    def seconds(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def on_disk(write):
        write()
        with path.open("rb") as file:
            os.fsync(file.fileno())

    plain = min(seconds(lambda: on_disk(lambda: save_file(tensors, path))) for _ in range(3))
    with_digest = min(seconds(lambda: on_disk(lambda: write_tensors(path, tensors))) for _ in range(3))
    reading = min(seconds(lambda: read_tensors(path)) for _ in range(3))
    print(f"1 GiB: written in {plain:.2f} s, with digest {with_digest:.2f} s; read and verified {reading:.2f} s")  # noqa: T201
    assert with_digest < 1.5 * plain
