# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import stat

import pytest
from datasets import Dataset

from hf_deepclean import ForgetCommitment


ROWS = [{"text": f"row {number}", "label": number % 3} for number in range(20)]


def test_key_and_rows_verify_in_any_order():
    dataset = Dataset.from_list(ROWS)
    made = ForgetCommitment.of(dataset)
    assert made.verify(dataset)
    assert made.verify(dataset.shuffle(seed=1))
    assert ForgetCommitment.of(dataset, made.key) == made
    # More rows than are read from a stream at a time.
    stream = Dataset.from_list(ROWS * 60).to_iterable_dataset()
    assert ForgetCommitment.of(stream).verify(stream.shuffle(seed=1))


def test_other_rows_another_count_or_another_key_do_not_verify():
    dataset = Dataset.from_list(ROWS)
    made = ForgetCommitment.of(dataset)
    changed = [*ROWS[:-1], ROWS[-1] | {"label": 9}]
    for other in (ROWS[:-1], [*ROWS, ROWS[0]], changed):
        assert not made.verify(Dataset.from_list(other))
    assert not ForgetCommitment(made.commitment, "00" * 32).verify(dataset)


def test_two_commitments_to_the_same_rows_share_nothing():
    dataset = Dataset.from_list(ROWS)
    first, second = ForgetCommitment.of(dataset), ForgetCommitment.of(dataset)
    assert first.key != second.key and first.commitment != second.commitment


def test_the_key_is_for_its_owner_alone(tmp_path):
    made = ForgetCommitment.of(Dataset.from_list(ROWS))
    path = tmp_path / "forget_commitment.json"
    made.save(path)
    assert ForgetCommitment.load(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.key not in repr(made)
    path.write_text(json.dumps({"commitment": "ab"}))
    with pytest.raises(ValueError, match="is no commitment"):
        ForgetCommitment.load(path)
