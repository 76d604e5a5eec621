# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The diagonal of a Fisher information: sums over examples, and how many examples."""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


@dataclass(frozen=True)
class FisherDiagonal:
    """
    Diagonal of the Fisher information on a set of examples, kept as a sum so that disjoint sets add up.

    Args:
        sums (`dict[str, torch.Tensor]`):
            For every parameter, the sum over examples of the squared gradient of the example's log-likelihood; in the
            parameter's shape, float32 or, for a float64 parameter, float64; sharded like the parameter.
        num_examples (`int`):
            Number of examples in the sums.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"`, `"sampled"` or `"expected"`.
        fallback_parameters (`dict[str, str]`, *optional*):
            Parameters that went through the exact one-example path for at least one batch, with the reason.
    """

    sums: dict[str, torch.Tensor]
    num_examples: int
    fisher_type: Literal["empirical", "sampled", "expected"] = "empirical"
    fallback_parameters: dict[str, str] = field(default_factory=dict)

    def mean(self) -> dict[str, torch.Tensor]:
        """
        The Fisher diagonal itself, `F(w) = 1/N sum_n (d log p(y_n | x_n, w) / dw)^2`, by parameter name.

        Section 3 of [DeepClean](https://huggingface.co/papers/2311.10448).
        """
        return {name: total / self.num_examples for name, total in self.sums.items()}

    def __add__(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """The diagonal on the union of two disjoint sets of examples, at the same weights."""
        if self.fisher_type != other.fisher_type or self.sums.keys() != other.sums.keys():
            raise ValueError(
                f"Two Fisher diagonals add up only over the same parameters and the same estimator; these have "
                f"{len(self.sums)} and {len(other.sums)} parameters, {self.fisher_type!r} and {other.fisher_type!r}."
            )
        return FisherDiagonal(
            {name: total + other.sums[name] for name, total in self.sums.items()},
            self.num_examples + other.num_examples,
            self.fisher_type,
            self.fallback_parameters | other.fallback_parameters,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Writes the sums as safetensors, with everything else as metadata; whole or not at all.

        Together with a model, a diagonal of few examples says something about them: keep it as carefully as the data.

        Args:
            path (`str`):
                The file to write.

        Raises:
            `FileExistsError`: If there is one already.
        """
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists. Nothing is ever overwritten: choose another name, or move it.")
        metadata = {
            "fisher_type": self.fisher_type,
            "num_examples": str(self.num_examples),
            "fallback_parameters": json.dumps(self.fallback_parameters),
        }
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=path.parent) as staging:
            written = Path(staging) / "fisher.safetensors"
            save_file({name: total.contiguous() for name, total in self.sums.items()}, written, metadata)
            os.replace(written, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FisherDiagonal":
        """
        Reads what [`~FisherDiagonal.save`] wrote, to the CPU.

        Args:
            path (`str`):
                The file.

        Raises:
            `ValueError`: If the file holds something else.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                sums = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}.") from None
        if not {"fisher_type", "num_examples", "fallback_parameters"} <= metadata.keys():
            raise ValueError(
                f"{path} holds tensors but not the metadata of a Fisher diagonal; was it written by "
                "`FisherDiagonal.save`?"
            )
        return cls(
            sums,
            int(metadata["num_examples"]),
            metadata["fisher_type"],
            json.loads(metadata["fallback_parameters"]),
        )
