# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a kept Fisher says of the rows that it was computed on, and the comparison with the rows at hand."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from ..data.checks import LABEL_COLUMNS
from ..data.contents.values import digests_of_rows
from ..data.digests import DIGESTS_FORMAT
from ..data.overlaps.contents import WITHOUT_CONTENT, content_columns, content_name, content_of, iterate_rows
from ..data.streams import is_stream
from ..models.heads import forward_arguments
from ..models.likelihood import LogLikelihoodFunction, built_in_kind
from ..runtime.processes import on_main_process


_MODULUS = 2**128


@dataclass(frozen=True)
class FisherData:
    """
    The rows of a Fisher diagonal, as a digest that does not depend on their order.

    The digests of rows are added up, so that the digest of disjoint sets together is the sum of theirs.

    Args:
        rows (`str`): The sum of the digests of all rows modulo 2^128, 32 hexadecimal digits.
        columns (`tuple[str, ...]`): Names of the columns in the digest. Empty if the rows are no dictionaries.
        is_stored (`bool`): Whether stored values are in the digest, without transforms.
            Otherwise the rows as the data set returns them.
        likelihood (`str`): Name of the caller's likelihood. Empty for that of the model's head.
        version (`int`): Version of the digests of rows.
    """

    rows: str
    columns: tuple[str, ...]
    is_stored: bool
    likelihood: str = ""
    version: int = DIGESTS_FORMAT

    @classmethod
    def of(
        cls,
        dataset: Any,
        model: nn.Module,
        log_likelihood_func: LogLikelihoodFunction | None = None,
        *,
        remove_unused_columns: bool = True,
    ) -> "FisherData | None":
        """
        Reads a data set. All processes must call this; the main process reads.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
                The model.
            log_likelihood_func (`Callable`, *optional*):
                The caller's likelihood.
            remove_unused_columns (`bool`, *optional*, defaults to `True`):
                Whether columns that the model does not take are left out of the batches.

        Returns:
            [`FisherData`], *optional*: `None` for a stream, which would have to be read as a whole once more.
        """
        if is_stream(dataset):
            return None
        taken = [*forward_arguments(model), *LABEL_COLUMNS] if remove_unused_columns else None

        def read() -> FisherData:
            found = content_columns(dataset, taken, "the data set") or []
            columns = tuple(sorted(content_name(name) for name in found if name not in WITHOUT_CONTENT))
            is_stored = hasattr(dataset, "with_format")
            rows = _sum_of_digests("the data set", dataset, columns, is_stored=is_stored)
            return cls(_hexadecimal(rows), columns, is_stored, name_of_likelihood(log_likelihood_func))

        return on_main_process(read)

    def combined(self, other: "FisherData | None", sign: int) -> "FisherData | None":
        """
        The rows of both, or with `sign=-1` those without the others. `None` if that is not known.

        Args:
            other ([`FisherData`], *optional*):
                The other rows.
            sign (`int`):
                1 or -1.
        """
        if other is None or asdict(self) | {"rows": ""} != asdict(other) | {"rows": ""}:
            return None
        rows = int(self.rows, 16) + sign * int(other.rows, 16)
        return FisherData(_hexadecimal(rows), self.columns, self.is_stored, self.likelihood, self.version)

    def check_rows(self, parts: Mapping[str, Any]) -> None:
        """
        Refuses other rows than those of the Fisher. All processes must call this; the main process reads.

        Args:
            parts (`dict[str, Any]`):
                The data sets by argument. Together they must have the rows of the Fisher, in any order.

        Raises:
            `ValueError`: If they have not. Names no row.
        """
        arguments = " and ".join(f"`{argument}`" for argument in parts)

        def read() -> str:
            columns, is_stored = self.columns, self.is_stored
            return _hexadecimal(sum(_sum_of_digests(*part, columns, is_stored=is_stored) for part in parts.items()))

        if on_main_process(read) != self.rows:
            raise ValueError(
                f"`kept_fisher` is that of other rows: {arguments} are as many, but not the rows that it was computed "
                f"on{f' (compared by {_listed(self.columns)})' if self.columns else ''}. Pass these rows, prepared in "
                "the same way and each as often as there, compute the Fisher again, or leave it out."
            )

    @classmethod
    def of_json(cls, text: str) -> "FisherData":
        """Reads what [`~FisherData.to_json`] wrote."""
        record = json.loads(text)
        return cls(**record | {"columns": tuple(record["columns"])})

    def to_json(self) -> str:
        """The record as JSON."""
        return json.dumps(asdict(self))

    @property
    def is_comparable(self) -> bool:
        """Whether this version of hf_deepclean makes the same digests of rows."""
        return self.version == DIGESTS_FORMAT


def name_of_likelihood(log_likelihood_func: LogLikelihoodFunction | None) -> str:
    """The name of a caller's likelihood, the same in every process. Empty for one of the built-in ones."""
    if log_likelihood_func is None or built_in_kind(log_likelihood_func) is not None:
        return ""
    return getattr(log_likelihood_func, "__qualname__", type(log_likelihood_func).__qualname__)


def _sum_of_digests(argument: str, dataset: Any, wanted: Collection[str], *, is_stored: bool) -> int:
    if len(dataset) == 0:
        return 0
    if wanted:
        there = {content_name(name) for name in content_columns(dataset, None, argument) or []}
        missing = sorted(set(wanted) - there)
        if missing:
            raise ValueError(
                f"`{argument}` lacks {_listed(missing)}, which the rows of `kept_fisher` had. Prepare the rows as for "
                "that Fisher, or leave it out."
            )
    columns = list(wanted) or None
    rows = iterate_rows(dataset, columns, argument, decoded=not is_stored, places=range(len(dataset)))
    contents = (content_of(row, columns) for row in rows)
    return sum(int.from_bytes(digest, "big") for digest in digests_of_rows(contents, argument, np.float32))


def _hexadecimal(rows: int) -> str:
    return f"{rows % _MODULUS:032x}"


def _listed(columns: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in columns)
    return f"the column{'s' * (len(columns) > 1)} {shown}"
