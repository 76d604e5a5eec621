# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Saves the share of one process in a Fisher pass, so that an interrupted pass can continue."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..runtime.files import replaced
from ..runtime.interruption import Interruption
from ..runtime.sealed_files import read_tensors, write_tensors


# Saving takes at most one part in 20 of a pass.
_SHARE_OF_TIME = 20


@dataclass
class PassRecord:
    """
    How far a process is in its pass, and what the pass has learnt about the model so far.

    Args:
        position (`int`): Place of the next batch in the whole data set.
        num_examples (`int`): Examples in the sums.
        is_complete (`bool`): Whether this process has no further batch.
        first (`int`, *optional*): Place of this process's first batch.
        probed (`list[tuple[int, int, int]]`): Places of batches that took ops which no earlier batch took, each with
            the range of examples that did.
        output_bytes (`int`): Size of an example's largest output.
        fallback (`dict[str, str]`): Parameters that took the one-example path, with the reason.
        apart (`str`, *optional*): Why every example runs alone.
        longest (`int`): The longest batch whose examples were run alone and together.
    """

    position: int = 0
    num_examples: int = 0
    is_complete: bool = False
    first: int | None = None
    probed: list[tuple[int, int, int]] = field(default_factory=list)
    output_bytes: int = 0
    fallback: dict[str, str] = field(default_factory=dict)
    apart: str | None = None
    longest: int = 0


class FisherCheckpoint:
    """
    The file that one process saves its share of one pass to.

    Args:
        path (`Path`):
            The file. It is replaced as a whole.
        seconds (`float`):
            Shortest time between two saves; longer if a save takes over 5 % of it.
        interruption ([`Interruption`]):
            Ends the process after a save if it was asked to stop.
        owner (`str`, *optional*):
            What the file belongs to: the run, and its share of the pass. No other file is loaded.
        remedy (`str`, *optional*):
            What to do if the file is damaged.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        interruption: Interruption,
        *,
        owner: str = "",
        remedy: str = "Remove it: the pass then starts again.",
    ) -> None:
        self.path = path
        self.owner = owner
        self.remedy = remedy
        self.seconds = seconds
        self.interruption = interruption
        self._cost = 0.0
        self._last = time.monotonic()

    def load(self) -> tuple[PassRecord, dict[str, torch.Tensor]] | None:
        """Loads the record and the sums that were saved last, to the CPU; `None` before the first save."""
        if not self.path.exists():
            return None
        sums, metadata = read_tensors(self.path, owner=self.owner, remedy=self.remedy)
        record = json.loads(metadata["record"])
        record["probed"] = [tuple(probed) for probed in record["probed"]]
        return PassRecord(**record), sums

    def is_due(self) -> bool:
        """Whether it is time to save."""
        waited = time.monotonic() - self._last
        return self.interruption.signal is not None or waited >= max(self.seconds, _SHARE_OF_TIME * self._cost)

    def save(self, record: PassRecord, sums: dict[str, torch.Tensor]) -> None:
        """Saves the record and the sums, then ends the process if it was asked to stop."""
        start = time.monotonic()
        with replaced(self.path) as path:
            write_tensors(path, sums, {"record": json.dumps(asdict(record))}, owner=self.owner)
        self._last = time.monotonic()
        self._cost = self._last - start
        self.interruption.check()
