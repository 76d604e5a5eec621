# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The diagonal of the Fisher information, as a value: sums over examples, and the number of examples."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ..models.fingerprint import weights_fingerprint
from ..runtime.files import check_new_file, replaced
from ..runtime.sealed_files import digest_of_tensors, write_tensors
from ..runtime.shards import local_part
from ..version import __version__
from .kept_data import FisherData
from .kept_files import check_no_fisher, read_files, read_sums, write_sums


# With this factor, 99.9 % of the sums of another pass over the same examples lie within the estimated error (measured
# by tests/benchmarks/kept_fisher.py).
_ROUNDING = 8
# If more than this share of a subset's sums exceed the whole's, it is not a subset.
_SHARE_ABOVE_WHOLE = 0.01


@dataclass(frozen=True)
class FisherDiagonal:
    """
    Diagonal of the Fisher information on a set of examples, stored as sums so that disjoint sets add up.

    Args:
        sums (`dict[str, torch.Tensor]`):
            For every parameter, the sum over examples of the squared gradient of the example's log-likelihood, in the
            parameter's shape and sharded like it. The dtype is float32, or float64 for a float64 parameter.
        num_examples (`int`):
            Number of examples in the sums.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"`, `"sampled"` or `"expected"`.
        fallback_parameters (`dict[str, str]`, *optional*):
            Parameters that took the exact one-example path for at least one batch, with the reason.
        weights_fingerprint (`str`, *optional*):
            The [`weights_fingerprint`] of the weights that the diagonal was computed at. It is of no use at others.
        seconds (`float`, *optional*):
            Duration of the pass in seconds.
        data ([`FisherData`], *optional*):
            What tells the examples from others.
    """

    sums: dict[str, torch.Tensor]
    num_examples: int
    fisher_type: Literal["empirical", "sampled", "expected"] = "empirical"
    fallback_parameters: dict[str, str] = field(default_factory=dict)
    weights_fingerprint: str | None = None
    seconds: float | None = None
    data: FisherData | None = None

    def mean(self) -> dict[str, torch.Tensor]:
        """
        The Fisher diagonal itself, `F(w) = 1/N sum_n (d log p(y_n | x_n, w) / dw)^2`, by parameter name.

        Section 3 of [DeepClean](https://huggingface.co/papers/2311.10448).
        """
        return {name: total / self.num_examples for name, total in self.sums.items()}

    def __add__(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """The diagonal on the union of two disjoint sets of examples, at the same weights."""
        fingerprint = self._common_fingerprint(other)
        known = self.seconds is not None and other.seconds is not None
        return FisherDiagonal(
            {name: total + other.sums[name] for name, total in self.sums.items()},
            self.num_examples + other.num_examples,
            self.fisher_type,
            self.fallback_parameters | other.fallback_parameters,
            fingerprint,
            self.seconds + other.seconds if known else None,
            self.data and self.data.combined(other.data, 1),
        )

    def __sub__(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """
        The diagonal on the examples of this one without those of `other`, a subset of them, at the same weights.

        Where nearly all of a sum comes from the subset, the difference is as small as the rounding errors. Differences
        below [`rounding_error`] are set to 0: ratios of mere noise could have any size.
        """
        if self.fisher_type == "sampled":
            raise ValueError(
                "The labels of `fisher_type='sampled'` are drawn anew in every pass, so the sums over a subset are "
                "not part of the sums over the whole. Keep an 'empirical' or 'expected' Fisher to subtract from."
            )
        fingerprint = self._common_fingerprint(other)
        if other.num_examples >= self.num_examples:
            raise ValueError(
                f"A Fisher diagonal on {other.num_examples} examples cannot be subtracted from one on "
                f"{self.num_examples}: at least one example has to remain."
            )
        sums, num_above = {}, 0
        for name, total in self.sums.items():
            part = other.sums[name].to(total.device, total.dtype)
            error = rounding_error(total)
            difference = total - part
            num_above += int((difference < -error).sum())
            sums[name] = difference.masked_fill_(difference <= error, 0)
        share = num_above / sum(map(torch.numel, sums.values()))
        if share > _SHARE_ABOVE_WHOLE:
            raise ValueError(
                f"In {share:.1%} of the weights the sum over {other.num_examples} examples exceeds the sum over the "
                f"{self.num_examples} examples that should include them. They are not among these, or they are "
                "prepared in another way. Pass rows of the data set that the kept Fisher was computed on, with the "
                "same columns and the same collator."
            )
        return FisherDiagonal(
            sums,
            self.num_examples - other.num_examples,
            self.fisher_type,
            self.fallback_parameters | other.fallback_parameters,
            fingerprint,
            data=self.data and self.data.combined(other.data, -1),
        )

    def _common_fingerprint(self, other: "FisherDiagonal") -> str | None:
        """The fingerprint of both, or `None` if one is unknown; refuses diagonals that cannot be combined."""
        if self.fisher_type != other.fisher_type or self.sums.keys() != other.sums.keys():
            raise ValueError(
                "Two Fisher diagonals are added or subtracted only over the same parameters and with the same "
                f"estimator. These have {len(self.sums)} and {len(other.sums)} parameters, and the estimators "
                f"{self.fisher_type!r} and {other.fisher_type!r}."
            )
        if self.weights_fingerprint is None or other.weights_fingerprint is None:
            return None
        if self.weights_fingerprint != other.weights_fingerprint:
            raise ValueError(
                "Two Fisher diagonals are added or subtracted only at the same weights. These belong to different "
                f"weights ({self.weights_fingerprint[:12]} and {other.weights_fingerprint[:12]}). Compute one of them "
                "again at the weights of the other."
            )
        return self.weights_fingerprint

    def digest(self) -> str:
        """A digest of the sums and of what they are sums of. Sums that are sharded are not gathered."""
        sums = {name: local_part(total)[0].detach().cpu().contiguous() for name, total in self.sums.items()}
        about = {"num_examples": str(self.num_examples), "fisher_type": self.fisher_type}
        return digest_of_tensors(sums, about)

    def is_fresh(self, model: nn.Module) -> bool:
        """Whether the diagonal belongs to a model's present weights, by their fingerprint."""
        return self.weights_fingerprint is not None and self.weights_fingerprint == weights_fingerprint(model)

    def refresh_cost(self) -> str:
        """Says what it costs to compute the diagonal on the same examples again, at other weights."""
        if self.seconds is None:
            return f"one pass over {self.num_examples:,} examples"
        duration = f"{self.seconds:.1f} seconds" if self.seconds < 120 else f"{self.seconds / 60:.0f} minutes"
        return f"one pass over {self.num_examples:,} examples, which took {duration} on the machine that made this one"

    def check_fits(self, model: nn.Module, parameters: Collection[str], fisher_type: str) -> None:
        """
        Refuses a request that this diagonal cannot serve, before any pass.

        Args:
            model (`torch.nn.Module`):
                The model to clean.
            parameters (`Collection[str]`):
                Names of the parameters in scope.
            fisher_type (`str`):
                The estimator of the request.

        Raises:
            `ValueError`: If the diagonal is stale, that is, belongs to other weights than the model's (the message
                says what a refresh costs), or if it has other parameters, another estimator or sampled labels.
        """
        if fisher_type != self.fisher_type or fisher_type == "sampled":
            raise ValueError(
                f"The kept Fisher is {self.fisher_type!r} and the request {fisher_type!r}. Both must be 'empirical', "
                "or both 'expected'; sampled labels are drawn anew in every pass and cannot be subtracted."
            )
        different = sorted(self.sums.keys() ^ set(parameters))
        if different:
            raise ValueError(
                f"The kept Fisher has {len(self.sums)} parameters and the request's scope {len(parameters)}; "
                f"{len(different)} are on one side only, {different[0]} for one. Use the `reset_scope`, "
                "`target_modules` and `exclude_modules` that the Fisher was kept with, and let the same parameters "
                "require gradients."
            )
        if self.weights_fingerprint is None:
            raise ValueError(
                "The kept Fisher does not say which weights it belongs to. Keep it with "
                "`save_pretrained(directory, model)`."
            )
        self.check_fresh(weights_fingerprint(model))

    def check_fresh(self, fingerprint: str) -> None:
        """
        Refuses a stale diagonal, that is, other weights than those the diagonal belongs to.

        Args:
            fingerprint (`str`):
                The fingerprint of the model's present weights.

        Raises:
            `ValueError`: If the diagonal is stale. The message says what a refresh costs.
        """
        if self.weights_fingerprint != fingerprint:
            raise ValueError(
                "The kept Fisher is stale: it was computed at other weights than the model's, which change with every "
                f"training and every unlearning. A refresh costs {self.refresh_cost()}; or leave the kept Fisher out."
            )

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        model: nn.Module | None = None,
        *,
        max_shard_size: int | str = "5GB",
    ) -> None:
        """
        Keeps the diagonal in a folder: as `fisher.safetensors`, or as several files and their index. The folder may be
        a model's. The diagonal is written whole or not at all, and nothing is overwritten.

        Together with the model, a diagonal reveals something about its examples, the more so the fewer they are. Keep
        it as carefully as the data, and never upload it with the model. All file names begin with `fisher`, so
        `ignore_patterns="*fisher*.safetensors*"` leaves the files out of an upload.
        [`~transformers.Trainer.push_to_hub`] leaves out folders whose names begin with an underscore.

        Args:
            directory (`str`):
                The folder. It is made if it does not exist.
            model (`torch.nn.Module`, *optional*):
                The model that the diagonal belongs to. Its fingerprint is kept with the diagonal. Without a model
                `weights_fingerprint` must be known.
            max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`):
                Size above which the sums are spread over several files.

        Raises:
            `ValueError`: If the diagonal's weights are unknown, or are not those of the model.
            `FileExistsError`: If the folder holds a diagonal, or a part of one.
        """
        directory = Path(directory)
        check_no_fisher(directory)
        fisher = self
        if model is not None:
            fisher = replace(self, weights_fingerprint=weights_fingerprint(model))
            fisher._common_fingerprint(self)
        if fisher.weights_fingerprint is None:
            raise ValueError(
                "A kept Fisher must say which weights it belongs to, and this one does not. Pass the model that it "
                "was computed on: `save_pretrained(directory, model)`."
            )
        write_sums(directory, self.sums, fisher._metadata(), max_shard_size)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> "FisherDiagonal":
        """
        Loads a diagonal that [`~FisherDiagonal.save_pretrained`] wrote, to the CPU.

        Args:
            directory (`str`):
                The folder.

        Raises:
            `FileNotFoundError`: If the folder holds no diagonal, or a part of it is missing.
            `ValueError`: If the files do not hold a Fisher diagonal, or are damaged.
        """
        return cls._of_file(*read_sums(Path(directory)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Writes the diagonal to one safetensors file, whole or not at all. The sums are its tensors, the rest metadata.

        The file needs the same care as a folder that [`~FisherDiagonal.save_pretrained`] writes.

        Args:
            path (`str`):
                The file to write.

        Raises:
            `FileExistsError`: If the file exists.
            `FileNotFoundError`: If its folder does not exist.
        """
        path = Path(path)
        check_new_file(path)
        with replaced(path) as written:
            write_tensors(written, self.sums, self._metadata())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FisherDiagonal":
        """
        Loads a diagonal that [`~FisherDiagonal.save`] wrote, to the CPU.

        Args:
            path (`str`):
                The file.

        Raises:
            `ValueError`: If the file does not hold a Fisher diagonal, or is damaged.
        """
        return cls._of_file(*read_files([path]))

    def _metadata(self) -> dict[str, str]:
        metadata = {
            "fisher_type": self.fisher_type,
            "num_examples": str(self.num_examples),
            "fallback_parameters": json.dumps(self.fallback_parameters),
            "hf_deepclean_version": __version__,
        }
        data = self.data and self.data.to_json()
        optional = {"weights_fingerprint": self.weights_fingerprint, "seconds": self.seconds, "data": data}
        return metadata | {name: str(value) for name, value in optional.items() if value is not None}

    @classmethod
    def _of_file(cls, sums: dict[str, torch.Tensor], metadata: Mapping[str, str]) -> "FisherDiagonal":
        return cls(
            sums,
            int(metadata["num_examples"]),
            metadata["fisher_type"],
            json.loads(metadata["fallback_parameters"]),
            metadata.get("weights_fingerprint"),
            float(metadata["seconds"]) if "seconds" in metadata else None,
            FisherData.of_json(metadata["data"]) if "data" in metadata else None,
        )


def rounding_error(total: torch.Tensor) -> torch.Tensor:
    """
    Estimates how far the sums of two passes over the same examples lie apart by rounding, entry by entry.

    A sum of N squares has a relative error of a few units in the last place. The gradients, which are sums themselves,
    add their own error: if an entry is small and others of its parameter are large, larger terms cancelled in its
    gradient and left their rounding error. So the estimate for an entry S of a parameter with the mean M is
    `8 eps (S + sqrt(S M))`. Gradients that are 0 in exact arithmetic, such as those of key biases under a softmax, are
    nothing but rounding. Their error can have any size, between any two passes.

    Args:
        total (`torch.Tensor`):
            The sums of one parameter.

    Returns:
        `torch.Tensor`: The error of every entry, in the shape and dtype of `total`.
    """
    return _ROUNDING * torch.finfo(total.dtype).eps * (total + total.sqrt() * total.mean().sqrt())
