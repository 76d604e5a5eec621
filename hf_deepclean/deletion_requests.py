# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Answers several deletion requests, in one run or one after the other, each with its own report."""

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
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
from .runtime.processes import on_main_process
from .unlearner import FisherUnlearner


REQUEST_MODES = ("batched", "sequential")


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
            Whether to continue an earlier call that was interrupted.
        kwargs:
            Further arguments of [`FisherUnlearner`], such as `data_collator`, `eval_dataset` or `unseen_dataset`.

    Returns:
        `dict[str, UnlearningReport]`: The reports by the name of the request. They are also in the output directories,
            for a batched run as `request-00000.json` and so on, in the order of `requests`.

    Raises:
        `ValueError`: If the mode is unknown, there is no request, or a request has no rows, rows that do not exist, or
            rows of another request.

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
    return answer(model, args, train_dataset, requests, kept_fisher, resume_from_checkpoint, kwargs)


def _answer_together(
    model: Any,
    args: FisherUnlearningConfig,
    dataset: Dataset,
    requests: Mapping[str, Sequence[int]],
    kept_fisher: Any,
    resume: bool,
    kwargs: dict[str, Any],
) -> dict[str, UnlearningReport]:
    forgotten = list(chain.from_iterable(requests.values()))
    ends = accumulate(map(len, requests.values()))
    groups = {name: range(end - len(rows), end) for (name, rows), end in zip(requests.items(), ends, strict=True)}
    unlearner = FisherUnlearner(
        model,
        args,
        forget_dataset=dataset.select(forgotten),
        retain_dataset=_without(dataset, forgotten),
        kept_fisher=kept_fisher,
        requests=groups,
        **kwargs,
    )
    report = unlearner.unlearn(resume_from_checkpoint=resume)
    reports = {name: report.of_request(name) for name in requests}

    def write() -> None:
        for number, of_request in enumerate(reports.values()):
            of_request.save(Path(args.output_dir) / f"request-{number:05d}.json")

    on_main_process(write)
    return reports


def _answer_in_turn(
    model: Any,
    args: FisherUnlearningConfig,
    dataset: Dataset,
    requests: Mapping[str, Sequence[int]],
    kept_fisher: Any,
    resume: bool,
    kwargs: dict[str, Any],
) -> dict[str, UnlearningReport]:
    reports: dict[str, UnlearningReport] = {}
    forgotten: list[int] = []
    output = args.output_dir
    for number, (name, rows) in enumerate(requests.items()):
        forgotten += rows
        folder = Path(output) / f"{number:05d}"
        if resume and on_main_process((folder / REPORT_NAME).exists):
            reports[name], model = UnlearningReport.load(folder / REPORT_NAME), str(folder)
            continue
        with overridden(args, output_dir=str(folder)):
            unlearner = FisherUnlearner(
                model,
                args,
                forget_dataset=dataset.select(rows),
                retain_dataset=_without(dataset, forgotten),
                kept_fisher=kept_fisher if number == 0 else None,
                **kwargs,
            )
            reports[name] = unlearner.unlearn(resume_from_checkpoint=resume)
        model = unlearner.model
    return reports


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
