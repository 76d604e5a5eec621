# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A keyed commitment to the forget data: it tells nothing without the key and proves the rows with it."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.contents.earlier import earlier_row_digests
from ..data.digests import DIGESTS_FORMAT, row_digests
from ..runtime.files import replaced
from ..runtime.random_state import all_seeded
from ..runtime.sealed_files import sealed, unsealed


COMMITMENT_NAME = "forget_commitment.json"

_PURPOSE = b"hf_deepclean: rows to forget\n"


@dataclass(frozen=True)
class ForgetCommitment:
    """
    HMAC-SHA256 over the content of the forget rows, in any order.

    Only these rows verify, each as often as it was there: with the same columns, and the same values to the last
    letter, digit and pixel. What holds them does not count: other types of numbers with the same values, a list, a
    [`~datasets.Dataset`] or a stream, names and folders of files, and for pictures and 16-bit WAV files the format of
    the file and its metadata. Of other files every byte counts.

    The commitment goes on the card of the cleaned model. Without the key it says nothing, not even whether a guess of
    the rows is right. The owner can later show key and rows, and everyone can verify that these rows were meant.

    Args:
        commitment (`str`):
            64 hexadecimal digits, to publish.
        key (`str`):
            64 hexadecimal digits, to keep secret.
        format (`int`, *optional*, defaults to 2):
            How digests of rows are taken. Version 0.1 wrote 1, or no format: types of numbers, kinds of data sets,
            paths and every byte of a file counted too.

    Example:

    ```python
    >>> from hf_deepclean import ForgetCommitment

    >>> ForgetCommitment.load("clean-model/forget_commitment.json").verify(forget_dataset)
    True
    ```
    """

    commitment: str
    key: str = field(repr=False)
    format: int = DIGESTS_FORMAT

    @classmethod
    def of(cls, dataset: Any, key: str | None = None) -> "ForgetCommitment":
        """
        Commits to the rows of a data set.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The rows. Of a [`~datasets.Dataset`] the stored columns count, without its transform. Other data
                sets are read as they return their rows, and random transforms draw the same in every call.
            key (`str`, *optional*):
                The key. By default a new one is drawn from the operating system's source of randomness.
        """
        key = secrets.token_hex(32) if key is None else key
        return cls(_keyed_digest(row_digests(dataset), key), key)

    def verify(self, dataset: Any) -> bool:
        """Whether these are exactly the rows of the commitment, duplicates included."""
        if self.format == 1:
            with all_seeded(0):
                found = _keyed_digest(earlier_row_digests(dataset), self.key)
        else:
            found = _keyed_digest(row_digests(dataset), self.key)
        return hmac.compare_digest(found, self.commitment)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes commitment and key to a file that only its owner can read."""
        with replaced(Path(path)) as written:
            written.touch(mode=0o600)
            written.write_text(json.dumps(sealed(asdict(self)), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ForgetCommitment":
        """
        Loads a file that [`~ForgetCommitment.save`] has written.

        Raises:
            `ValueError`: If the file holds no commitment, or is damaged.
        """
        try:
            made = cls(**{"format": 1, **unsealed(json.loads(Path(path).read_text()))})
        except (TypeError, ValueError, AttributeError) as error:
            # A message of `json` or of a constructor would show a part of the key.
            reason = str(error) if "digest" in str(error) else type(error).__name__
            raise ValueError(
                f"{path} is no commitment to forgotten data ({reason}). Pass the file {COMMITMENT_NAME} of a run's "
                "output directory, unchanged."
            ) from None
        if made.format not in (1, DIGESTS_FORMAT):
            raise ValueError(
                f"{path} was written by a later version of hf_deepclean, which takes digests of rows in another way. "
                "Verify it with that version."
            )
        return made


def _keyed_digest(rows: Iterable[bytes], key: str) -> str:
    digest = hmac.new(bytes.fromhex(key), _PURPOSE, hashlib.sha256)
    for row in sorted(rows):
        digest.update(row)
    return digest.hexdigest()
