# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The record of a call that answers several requests: what it was started with, and what its runs have left."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.digests import DIGESTS_FORMAT, row_digests
from ..publishing.commitment import COMMITMENT_NAME, ForgetCommitment
from ..report.report import REPORT_NAME, UnlearningReport
from ..request import UnlearningRequest
from ..runtime.files import STATE_FOLDER, remove_incomplete, replaced
from ..runtime.sealed_files import digest_of_file, digest_of_json, has_digest, sealed, unsealed
from .identity import FORMAT_OF_DIGESTS, NOT_COMPARED, differences


logger = logging.getLogger(__name__)

REQUESTS_NAME = "_requests.json"

# What only one run has. A later call may run on other processes and other threads.
_OF_ONE_RUN = {"forget_dataset", "retain_dataset", "requests", "num_processes", "settings of torch"}
_OF_ONE_RUN |= {"planned repair steps", NOT_COMPARED}
# What stays comparable if the libraries have changed.
_OF_ANY_VERSION = {"model", "reference_model", "kept_fisher", "kept_fisher_sums", "settings", "train_dataset"}
# What a report has as the run has chosen it.
_RESOLVED = {"forget_penalty", "hard_example_share"}
_REMEDY = (
    "Pass what that call was started with (the model as it was: a run changes a model object in place), all of its "
    "requests in their order, and new ones after them. Or choose another `output_dir`."
)


@dataclass
class RequestsRecord:
    """
    The record of a call.

    Args:
        call (`dict[str, Any]`): What all requests share; see [`identity_of_call`].
        requests (`list[dict[str, str]]`): Digests of the name and of the rows of every request, in their order.
        results (`dict[str, dict[str, str]]`): Digests of the files that the run of a request has left, by its number.
    """

    call: dict[str, Any]
    requests: list[dict[str, str]]
    results: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "RequestsRecord | None":
        """
        Loads the record in an output directory, if there is one.

        Raises:
            `ValueError`: If it is damaged.
        """
        path = folder / REQUESTS_NAME
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_bytes())
            if not has_digest(record):
                raise ValueError("it has no digest")
            found = cls(**unsealed(record))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): nothing says which requests the runs beside it have answered. Restore "
                "the file, or choose another `output_dir`."
            ) from None
        if found.call.get(FORMAT_OF_DIGESTS) != DIGESTS_FORMAT:
            raise ValueError(
                f"{path} was written by another version of hf_deepclean, which took the digests of rows in another "
                "way: whether the rows are the same cannot be seen. Continue with that version, or choose another "
                "`output_dir`."
            )
        return found

    def save(self, folder: Path) -> None:
        """Writes the record, as a whole."""
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / REQUESTS_NAME) as path:
            # For its owner alone: names of requests, often those of persons, can be guessed from their digests.
            path.touch(mode=0o600)
            path.write_text(json.dumps(sealed(asdict(self)), indent=2) + "\n")

    def check_requests(self, folder: Path, requests: Sequence[Mapping[str, str]], *, may_grow: bool = True) -> None:
        """
        Refuses other requests than those of the record.

        Args:
            folder (`Path`):
                The output directory of the call.
            requests (`list[dict[str, str]]`):
                The requests, by [`by_position`] or [`by_content`] as in the record.
            may_grow (`bool`, *optional*, defaults to `True`):
                Whether new ones may follow.

        Raises:
            `ValueError`: If one was changed, renamed, moved or removed. Numbers the requests and names none.
        """
        found = []
        for number, (before, now) in enumerate(zip(self.requests, requests, strict=False)):
            words = {"rows": "other rows", "name": "another name"}
            different = " and ".join(text for key, text in words.items() if before[key] != now[key])
            if different:
                found.append(f"request number {number}: {different} than the run that is there")
        if len(requests) < len(self.requests) or (len(requests) > len(self.requests) and not may_grow):
            found.append(f"{len(requests)} requests instead of {len(self.requests)}")
        _refuse(folder, found)

    def check_call(self, folder: Path, call: Mapping[str, Any]) -> None:
        """
        Refuses other data, settings, models or functions than those of the record.

        Raises:
            `ValueError`: If one differs. Names the differences.
        """
        before, now = dict(self.call), dict(call)
        if before.pop("versions", None) != now.pop("versions", None):
            before, now = ({key: one[key] for key in one.keys() & _OF_ANY_VERSION} for one in (before, now))
            names = before["settings"].keys() & now["settings"].keys()
            for one in (before, now):
                one["settings"] = {name: one["settings"][name] for name in names}
        _refuse(folder, differences(before, now))

    def add_result(self, folder: Path, number: int) -> None:
        """Notes what the run of a request has left in its folder."""
        run = folder_of_request(folder, number)
        files = sorted(path.name for path in run.iterdir() if path.is_file())
        self.results[str(number)] = {name: digest_of_file(run / name) for name in files}
        self.save(folder)

    def check_result(self, folder: Path, number: int, rows: Any, *, is_last: bool) -> None:
        """
        Refuses a finished run that is not the one that answered a request.

        Args:
            folder (`Path`):
                The output directory of the call.
            number (`int`):
                Number of the request.
            rows ([`~datasets.Dataset`]):
                The rows of the request.
            is_last (`bool`):
                Whether the next run starts from this one. Otherwise its model may be gone.

        Raises:
            `ValueError`: If the run has forgotten other rows or has other settings, or if a file of it is damaged.
        """
        run = folder_of_request(folder, number)
        remedy = f"Restore {run}, or choose another `output_dir`."
        noted = self.results.get(str(number))
        for name, digest in (noted or {}).items():
            if not is_last and name not in (REPORT_NAME, COMMITMENT_NAME):
                continue
            if not (run / name).is_file() or digest_of_file(run / name) != digest:
                raise ValueError(
                    f"Request number {number}: {run / name} is not what its run has written: it is missing, damaged "
                    f"or of another run. {remedy}"
                )
        if not (run / COMMITMENT_NAME).is_file():
            raise ValueError(
                f"Request number {number}: {run / COMMITMENT_NAME} is missing, which says which rows the run there "
                f"has forgotten. {remedy}"
            )
        if not ForgetCommitment.load(run / COMMITMENT_NAME).verify(rows):
            _refuse(folder, [f"request number {number}: other rows than the run that is there"])
        if noted is None:
            reported = UnlearningReport.load(run / REPORT_NAME).settings
            names = (self.call["settings"].keys() & reported.keys()) - _RESOLVED
            pair = ({"settings": {name: one[name] for name in names}} for one in (reported, self.call["settings"]))
            _refuse(folder, [f"request number {number}: {text}" for text in differences(*pair)])


def identity_of_call(identity: Mapping[str, Any]) -> dict[str, Any]:
    """
    Returns what the runs of a call share.

    Args:
        identity (`dict[str, Any]`):
            The identity of its first run; see [`identity_of_run`].
    """
    shared = {name: value for name, value in identity.items() if name not in _OF_ONE_RUN}
    shared["train_dataset"] = digest_of_json([identity.get(f"{split}_dataset") for split in ("forget", "retain")])
    return json.loads(json.dumps(shared, default=str))


def save_requests(
    report: UnlearningReport, request: UnlearningRequest, identity: Mapping[str, Any], folder: Path
) -> None:
    """
    Writes the report on every request, if there are several, and the record of the call.

    Args:
        report ([`UnlearningReport`]):
            The report on all of them.
        request ([`UnlearningRequest`]):
            The request of the run.
        identity (`dict[str, Any]`):
            The identity of the run; see [`identity_of_run`].
        folder (`Path`):
            Where they are written.
    """
    for number, name in enumerate(request.requests):
        report.of_request(name).save(folder / name_of_report(number))
    if request.requests:
        RequestsRecord(identity_of_call(identity), by_content(request.requests, request.forget_dataset)).save(folder)


def by_position(requests: Mapping[str, Sequence[int]]) -> list[dict[str, str]]:
    """The digests of requests, by the positions of their rows."""
    return [_digests(name, [int(row) for row in rows]) for name, rows in requests.items()]


def by_content(requests: Mapping[str, Sequence[int]], dataset: Any) -> list[dict[str, str]]:
    """The digests of requests, by the content of their rows in a data set."""
    found = [digest.hex() for digest in row_digests(dataset)]
    return [_digests(name, [found[row] for row in rows]) for name, rows in requests.items()]


def folder_of_request(folder: Path, number: int) -> Path:
    """The output directory of the run of a request."""
    return folder / f"{number:05d}"


def name_of_report(number: int) -> str:
    """The name of the report on a request of a batched call."""
    return f"request-{number:05d}.json"


def find_answers(
    folder: Path, requests: Mapping[str, Sequence[int]], *, resuming: bool
) -> tuple[int, RequestsRecord | None]:
    """
    Looks at the output directory of requests that are answered in turns, before any work.

    Args:
        folder (`Path`):
            The directory.
        requests (`dict[str, Sequence[int]]`):
            The requests.
        resuming (`bool`):
            Whether there may be runs.

    Returns:
        `tuple[int, RequestsRecord]`: How many requests are answered, and the record of the call. `None` if there is no
            run, or an earlier version has made the runs.

    Raises:
        `FileExistsError`: If there is a run and nothing is continued, or the run of a batched call.
        `ValueError`: If these are runs of other requests, or a run did not start from the result before it.
    """
    runs = _runs_in(folder)
    others = [folder / name for name in (REPORT_NAME, STATE_FOLDER) if (folder / name).exists()]
    if others or (runs and not resuming):
        raise FileExistsError(
            f"{folder} already holds {(others or runs)[0].name}. Nothing is ever overwritten: choose another "
            "`output_dir`, or continue the call that wrote it, in its `mode` and with `resume_from_checkpoint=True`."
        )
    record = RequestsRecord.load(folder) if runs else None
    if record is not None:
        record.check_requests(folder, by_position(requests))
    elif len(runs) > len(requests):
        _refuse(folder, [f"{len(requests)} requests instead of {len(runs)}"])
    finished = [(run / REPORT_NAME).exists() and not (run / STATE_FOLDER).exists() for run in runs]
    num_finished = (finished + [False]).index(False)
    for place, run in enumerate(runs):
        if run != folder_of_request(folder, place) or place > num_finished:
            raise ValueError(
                f"{run} is there, but request number {min(place, num_finished)} before it is not finished, so it did "
                f"not start from its result. Restore {folder_of_request(folder, min(place, num_finished))}, or choose "
                "another `output_dir`."
            )
    return num_finished, record


def check_answers(
    record: RequestsRecord | None,
    folder: Path,
    call: Mapping[str, Any],
    requests: Mapping[str, Sequence[int]],
    parts: Sequence[Any],
) -> RequestsRecord:
    """
    Verifies the runs of the requests that are answered, and brings the record up to date.

    Args:
        record ([`RequestsRecord`], *optional*):
            The record of the call that is continued.
        folder (`Path`):
            The output directory.
        call (`dict[str, Any]`):
            What the call is started with; see [`identity_of_call`].
        requests (`dict[str, Sequence[int]]`):
            The requests.
        parts (`Sequence[Dataset]`):
            The rows of every request that is answered.

    Raises:
        `ValueError`: If something differs from that call, or a run is damaged or another one.
    """
    if record is not None:
        record.check_call(folder, call)
    elif parts:
        logger.warning(
            f"The runs in {folder} were made by an earlier version of hf_deepclean, which did not note what they were "
            "started with. Their rows and settings are compared; the models, the training data and the kept Fisher "
            "cannot be, and must be the same."
        )
    record = RequestsRecord(
        dict(call if record is None else record.call), by_position(requests), record and record.results or {}
    )
    for number, rows in enumerate(parts):
        record.check_result(folder, number, rows, is_last=number == len(parts) - 1)
    for number in range(len(parts)):
        if str(number) not in record.results:
            record.add_result(folder, number)
    for path in (folder, *(folder_of_request(folder, number) for number in range(len(parts)))):
        remove_incomplete(path)
    record.save(folder)
    return record


def _runs_in(folder: Path) -> list[Path]:
    """The folders of runs, without those that hold nothing."""
    found = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [path for path in found if re.fullmatch(r"\d{5}", path.name) and (path.is_file() or any(path.iterdir()))]


def _digests(name: str, rows: list[Any]) -> dict[str, str]:
    return {"name": digest_of_json([str(name)]), "rows": digest_of_json(rows)}


def _refuse(folder: Path, found: Sequence[str]) -> None:
    if found:
        raise ValueError(f"{folder} is the output of another call: {'; '.join(found)}. {_REMEDY}")
