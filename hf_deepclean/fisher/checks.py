# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fisher passes and kept Fishers that cannot work are refused here, before any heavy work."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..data.streams import is_stream
from ..models.likelihood import LogLikelihoodFunction, built_in_kind
from ..runtime.shards import is_sharded
from .diagonal import FisherDiagonal


FISHER_TYPES = ("empirical", "sampled", "expected")


def check_fisher_type(fisher_type: str, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    """Refuses an unknown `fisher_type`, and one that the caller's likelihood cannot serve."""
    if fisher_type not in FISHER_TYPES:
        raise ValueError(f"`fisher_type` is {fisher_type!r} but must be one of {', '.join(map(repr, FISHER_TYPES))}.")
    if fisher_type != "empirical" and log_likelihood_func is not None and built_in_kind(log_likelihood_func) is None:
        raise ValueError(
            f"`fisher_type={fisher_type!r}` draws or enumerates labels from the class probabilities of the logits, "
            "which a `log_likelihood_func` does not give. Use `fisher_type='empirical'` with it."
        )


def check_kept_fisher(
    fisher: FisherDiagonal,
    model: nn.Module,
    parameters: Mapping[str, torch.Tensor],
    fisher_type: str,
    fisher_max_examples: int | None,
    forget_dataset: Any,
    retain_dataset: Any,
) -> None:
    """
    Refuses a kept Fisher that the retain Fisher cannot be subtracted from.

    Args:
        fisher ([`FisherDiagonal`]):
            The kept Fisher.
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        parameters (`dict[str, torch.nn.Parameter]`):
            Those in scope.
        fisher_type (`str`):
            The estimator of the run.
        fisher_max_examples (`int`, *optional*):
            At most so many examples enter a Fisher of the run.
        forget_dataset, retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The data, which together are those of the kept Fisher.

    Raises:
        `ValueError`: If the diagonal is stale, of other parameters, of another estimator or of other data; if the
            model is sharded, or only a part of the examples is to be used.
    """
    if any(map(is_sharded, parameters.values())):
        raise ValueError(
            "`kept_fisher` holds whole parameters, and those of this model are sharded. Leave it out, so that the "
            "retain Fisher is computed by a pass over the shards."
        )
    if fisher_max_examples is not None:
        raise ValueError(
            f"`fisher_max_examples={fisher_max_examples}` computes the forget Fisher on a part of the rows, and "
            "what is subtracted from `kept_fisher` has to be that of all of them. Leave one of the two out."
        )
    fisher.check_fits(model, parameters, fisher_type)
    if is_stream(forget_dataset) or is_stream(retain_dataset):
        return
    num_rows = len(forget_dataset) + len(retain_dataset)
    if num_rows != fisher.num_examples:
        raise ValueError(
            f"`kept_fisher` is that of {fisher.num_examples:,} examples, and `forget_dataset` and `retain_dataset` "
            f"have {num_rows:,} rows together. They must be the whole training set that it was computed on: if rows "
            "were forgotten before, the weights have changed and it is of no use any more."
        )
