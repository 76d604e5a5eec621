# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A keyed commitment to the forget data: it tells nothing without the key and proves the rows with it."""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.digests import row_digests
from ..runtime.files import replaced
from ..runtime.random_state import all_seeded
from ..runtime.sealed_files import sealed, unsealed


COMMITMENT_NAME = "forget_commitment.json"

_PURPOSE = b"hf_deepclean: rows to forget\n"


@dataclass(frozen=True)
class ForgetCommitment:
    """
    HMAC-SHA256 over the forget rows, in any order.

    The commitment goes on the card of the cleaned model. Without the key it says nothing, not even whether a guess of
    the rows is right. The owner can later show key and rows, and everyone can verify that these rows were meant.

    Args:
        commitment (`str`):
            64 hexadecimal digits, to publish.
        key (`str`):
            64 hexadecimal digits, to keep secret.

    Example:

    ```python
    >>> from hf_deepclean import ForgetCommitment

    >>> ForgetCommitment.load("clean-model/forget_commitment.json").verify(forget_dataset)
    True
    ```
    """

    commitment: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, dataset: Any, key: str | None = None) -> "ForgetCommitment":
        """
        Commits to the rows of a data set.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The rows, in the same kind of data set and with the same columns as for [`FisherUnlearner`]. Random
                transforms draw the same values in every call.
            key (`str`, *optional*):
                The key. By default a new one is drawn from the operating system's source of randomness.
        """
        key = secrets.token_hex(32) if key is None else key
        with all_seeded(0):
            rows = sorted(row_digests(dataset, getattr(dataset, "column_names", None)))
        digest = hmac.new(bytes.fromhex(key), _PURPOSE, hashlib.sha256)
        for row in rows:
            digest.update(row)
        return cls(digest.hexdigest(), key)

    def verify(self, dataset: Any) -> bool:
        """Whether these are exactly the rows of the commitment, duplicates included."""
        return hmac.compare_digest(self.of(dataset, self.key).commitment, self.commitment)

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
            return cls(**unsealed(json.loads(Path(path).read_text())))
        except (TypeError, ValueError, AttributeError) as error:
            # A message of `json` or of a constructor would show a part of the key.
            reason = str(error) if "digest" in str(error) else type(error).__name__
            raise ValueError(
                f"{path} is no commitment to forgotten data ({reason}). Pass the file {COMMITMENT_NAME} of a run's "
                "output directory, unchanged."
            ) from None
