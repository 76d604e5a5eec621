# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Answers several deletion requests, in one run or one after the other, each with its own report."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from .config import FisherUnlearningConfig
from .data.checks import check_rows_of_request
from .fisher.diagonal import FisherDiagonal
from .report.report import REPORT_NAME, UnlearningReport
from .runtime.attributes import overridden
from .runtime.choices import check_choice
from .runtime.files import INCOMPLETE, STATE_FOLDER, remove_incomplete
from .runtime.processes import on_main_process
from .state.identity import identity_of_run
from .state.requests_record import (
    RequestsRecord,
    by_content,
    check_answers,
    find_answers,
    folder_of_request,
    identity_of_call,
    name_of_report,
)
from .unlearner import FisherUnlearner


REQUEST_MODES = ("batched", "sequential")

Requests = Mapping[str, Sequence[int]]

# The output directory of an unlearner that is only compared. Nothing is written to it.
_UNUSED = f"{INCOMPLETE}requests"


def answer_requests(
    model: str | os.PathLike[str] | PreTrainedModel,
    args: FisherUnlearningConfig,
    *,
    train_dataset: Dataset,
    requests: Mapping[str, Sequence[int]],
    mode: str = "batched",
    kept_fisher: str | os.PathLike[str] | FisherDiagonal | None = None,
    resume_from_checkpoint: bool = False,
    **kwargs: Any,
) -> dict[str, UnlearningReport]:
    """
    Makes a model forget the rows of several requests.

    `"batched"` makes one run for all requests, at the cost of one. The model in `args.output_dir` has forgotten all
    rows, and the report of a request shows the rows of that request.

    `"sequential"` makes one run per request, each on the result of the run before, in `args.output_dir/00000`, `00001`
    and so on. The last model has forgotten all rows. Use it if a request must be answered before the next is known. A
    kept Fisher is used in the first run only, because the weights change. Each later run computes its retain Fisher by
    a pass.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The trained model, as for [`FisherUnlearner`].
        args ([`FisherUnlearningConfig`]):
            The configuration of every run.
        train_dataset ([`~datasets.Dataset`]):
            The data that the model was trained on.
        requests (`dict[str, Sequence[int]]`):
            The rows of `train_dataset` to forget, by the name of the request. No row may be in two requests. The
            report of a batched run holds the names, so do not publish that report.
        mode (`str`, *optional*, defaults to `"batched"`):
            `"batched"` or `"sequential"`.
        kept_fisher (`str` or [`FisherDiagonal`], *optional*):
            The Fisher diagonal of `train_dataset`, as for [`FisherUnlearner`].
        resume_from_checkpoint (`bool`, *optional*, defaults to `False`):
            Whether to continue an earlier call. It must be passed what that call was passed, and nothing is done
            twice. In turns, new requests may follow those of that call.
        kwargs:
            Further arguments of [`FisherUnlearner`], such as `data_collator`, `eval_dataset` or `unseen_dataset`.

    Returns:
        `dict[str, UnlearningReport]`: The reports by the name of the request. They are also in the output directories,
            for a batched run as `request-00000.json` and so on, in the order of `requests`.

    Raises:
        `ValueError`: If the mode is unknown, there is no request, or a request has no rows, rows that do not exist, or
            rows of another request. Also if a call is continued with other requests, data, settings or models, or
            what it has left is damaged. Messages number the requests from 0, and name none.
        `FileExistsError`: If the output directory holds anything and nothing is continued.

    Example:

    ```python
    >>> reports = answer_requests(
    ...     "my-model", args, train_dataset=train, requests={"a": [3, 4], "b": [17]}, kept_fisher="my-model/_fisher"
    ... )
    >>> print(reports["a"])
    ```
    """
    check_choice("mode", mode, REQUEST_MODES)
    _check_rows(train_dataset, requests)
    answer = _answer_together if mode == "batched" else _answer_in_turn
    make = partial(FisherUnlearner, **{"model": model, "args": args} | kwargs)
    return answer(make, Path(args.output_dir), train_dataset, requests, kept_fisher, resume_from_checkpoint)


def _answer_together(
    make: Callable[..., FisherUnlearner], output: Path, dataset: Dataset, requests: Requests, kept: Any, resume: bool
) -> dict[str, UnlearningReport]:
    forgotten = list(chain.from_iterable(requests.values()))
    ends = accumulate(map(len, requests.values()))
    groups = {name: range(end - len(rows), end) for (name, rows), end in zip(requests.items(), ends, strict=True)}

    def finished() -> RequestsRecord | None:
        is_finished = resume and (output / REPORT_NAME).exists() and not (output / STATE_FOLDER).exists()
        record = RequestsRecord.load(output) if is_finished else None
        if record is not None:
            record.check_requests(output, by_content(groups, dataset.select(forgotten)), may_grow=False)
        return record

    record = on_main_process(finished)
    folder = output if record is None else output / _UNUSED
    with _unlearner(make, folder, forgotten, dataset, forgotten, kept_fisher=kept, requests=groups) as unlearner:
        if record is None:
            report = unlearner.unlearn(resume_from_checkpoint=resume)
            return {name: report.of_request(name) for name in requests}
        call = _identity(unlearner)

    def finish() -> dict[str, UnlearningReport]:
        record.check_call(output, call)
        report = UnlearningReport.load(output / REPORT_NAME)
        reports = {name: report.of_request(name) for name in requests}
        for number, of_request in enumerate(reports.values()):
            path = output / name_of_report(number)
            if not path.exists():
                of_request.save(path)
        remove_incomplete(output)
        return reports

    return on_main_process(finish)


def _answer_in_turn(
    make: Callable[..., FisherUnlearner], output: Path, dataset: Dataset, requests: Requests, kept: Any, resume: bool
) -> dict[str, UnlearningReport]:
    num_finished, record = on_main_process(lambda: find_answers(output, requests, resuming=resume))
    reports: dict[str, UnlearningReport] = {}
    forgotten: list[int] = []
    start: dict[str, Any] = {}
    for number, (name, rows) in enumerate(requests.items()):
        forgotten += rows
        run, is_finished = folder_of_request(output, number), number < num_finished
        # The first one is made even if its run is finished, to compare the call with the one that began it.
        if number == 0 or not is_finished:
            own = start | ({"kept_fisher": kept} if number == 0 else {})
            with _unlearner(
                make, output / _UNUSED if is_finished else run, rows, dataset, forgotten, **own
            ) as unlearner:
                if number == 0:
                    parts = [dataset.select(rows) for rows in islice(requests.values(), num_finished)]
                    call = _identity(unlearner)
                    record = on_main_process(partial(check_answers, record, output, call, requests, parts))
                if not is_finished:
                    reports[name] = unlearner.unlearn(resume_from_checkpoint=resume)
                    on_main_process(partial(record.add_result, output, number))
                    start = {"model": unlearner.model}
        if is_finished:
            reports[name] = on_main_process(partial(UnlearningReport.load, run / REPORT_NAME))
            start = {"model": str(run)}
    return reports


@contextmanager
def _unlearner(
    make: Callable[..., FisherUnlearner],
    folder: Path,
    rows: Sequence[int],
    dataset: Dataset,
    forgotten: Sequence[int],
    **own: Any,
) -> Iterator[FisherUnlearner]:
    """The unlearner of some rows, whose output directory is `folder` inside the block."""
    args = make.keywords["args"]
    with overridden(args, output_dir=str(folder)):
        yield make(forget_dataset=dataset.select(rows), retain_dataset=_without(dataset, forgotten), **own)


def _identity(unlearner: FisherUnlearner) -> dict[str, Any]:
    return identity_of_call(identity_of_run(unlearner.request, unlearner.args, unlearner))


def _without(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    left_out = set(rows)
    return dataset.select([row for row in range(len(dataset)) if row not in left_out])


def _check_rows(dataset: Dataset, requests: Mapping[str, Sequence[int]]) -> None:
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"`train_dataset` is a {type(dataset).__name__}, but rows can be selected only from a `datasets.Dataset`. "
            "Pass one."
        )
    if not requests:
        raise ValueError("`requests` is empty. Name at least one request, with the rows of `train_dataset` to forget.")
    owners: dict[int, int] = {}
    for number, rows in enumerate(requests.values()):
        check_rows_of_request(number, rows, len(dataset), "train_dataset")
        for row in rows:
            if row in owners:
                raise ValueError(
                    f"Row {row} is in the requests {owners[row]} and {number}, but it can be forgotten only once. "
                    "Leave it in one of them."
                )
            owners[row] = number
