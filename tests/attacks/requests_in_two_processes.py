# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Two processes that answer requests in turns, are refused with other rows, and continue: `... FOLDER`."""

import sys
from pathlib import Path

from hf_deepclean.runtime.processes import process_index
from tests import tiny
from tests.attacks.requests_calls import REQUESTS, call
from tests.launched.launch import fork


def answer(folder):
    for mode in ("sequential", "batched"):
        call(folder / mode, mode=mode, resume=False)
    said = []
    for mode in ("sequential", "batched"):
        try:
            call(folder / mode, mode=mode, requests=REQUESTS | {"Bob Jones": [17, 8, 10]})
        except ValueError as refusal:
            said.append(str(refusal))
    try:
        call(folder / "sequential", mode="sequential", resume=False)
    except FileExistsError as refusal:
        said.append(str(refusal))
    (folder / "batched" / "request-00001.json").unlink(missing_ok=True)
    for mode in ("sequential", "batched"):
        said.append(str(list(call(folder / mode, mode=mode))))
    call(folder / "sequential", mode="sequential", requests=REQUESTS | {"Eve Adams": [20]})
    (folder / f"{process_index()}.txt").write_text("\n".join(said))


if __name__ == "__main__":
    tiny.digits()
    fork(2, answer, Path(sys.argv[1]))
