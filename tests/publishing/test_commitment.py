# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import stat
from dataclasses import replace

import pytest
from datasets import Dataset

from hf_deepclean import ForgetCommitment
from tests.tiny import Rows


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


# Of `ROWS` as a `Dataset` and as dictionaries of Python, written by version 0.1 with the key 11...
EARLIER = {
    "d7652e2a629df63b99821e8bf83b55e071067c763887b7c9c79bd51819877502": Dataset.from_list(ROWS),
    "c7f5333b95557c3608c14b8245e0373865354f47a94de01552a4eef2f30204b6": Rows(ROWS),
}


@pytest.mark.parametrize("commitment", EARLIER)
def test_a_file_of_an_earlier_version_verifies_the_same_rows_as_before(commitment, tmp_path):
    path = tmp_path / "forget_commitment.json"
    path.write_text(json.dumps({"commitment": commitment, "key": "11" * 32}))
    made = ForgetCommitment.load(path)
    assert {key: made.verify(rows) for key, rows in EARLIER.items()} == {key: key == commitment for key in EARLIER}
    made.save(path)
    assert ForgetCommitment.load(path) == made


def test_a_commitment_of_this_version_is_the_same_in_later_ones():
    """If it changes, `DIGESTS_FORMAT` must change too, and the present digests be kept to verify what they wrote."""
    expected = "93828191353c5f3336fd362424f1118d218515a9ba2ddd3d1e31d9e1cb38d4e6"
    made = ForgetCommitment(expected, "11" * 32)
    assert made.format == 2 and made.verify(Dataset.from_list(ROWS)) and made.verify(Rows(ROWS))


def test_a_file_of_a_later_version_is_refused_as_that(tmp_path):
    path = tmp_path / "forget_commitment.json"
    replace(ForgetCommitment.of(Dataset.from_list(ROWS)), format=3).save(path)
    with pytest.raises(ValueError, match="a later version of hf_deepclean"):
        ForgetCommitment.load(path)


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
