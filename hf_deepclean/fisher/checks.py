# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses Fisher passes and kept Fishers that cannot work, before any heavy work."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..data.streams import is_stream
from ..models.likelihood import LogLikelihoodFunction, built_in_kind
from ..runtime.choices import check_choice
from ..runtime.shards import is_sharded
from .diagonal import FisherDiagonal


FISHER_TYPES = ("empirical", "sampled", "expected")


def check_fisher_type(fisher_type: str, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    """Refuses an unknown `fisher_type`, and one that does not work with the caller's likelihood."""
    check_choice("fisher_type", fisher_type, FISHER_TYPES)
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
    Refuses a kept Fisher that does not give the retain Fisher by subtraction of the forget Fisher.

    Args:
        fisher ([`FisherDiagonal`]):
            The kept Fisher.
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters in scope.
        fisher_type (`str`):
            The estimator of the run.
        fisher_max_examples (`int`, *optional*):
            The largest number of examples that enter a Fisher of the run.
        forget_dataset, retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The data. Together they must be the data set of the kept Fisher.

    Raises:
        `ValueError`: If the kept Fisher is stale, or belongs to other parameters, another estimator or other data; if
            the model is sharded; or if only a part of the examples is to be used.
    """
    if any(map(is_sharded, parameters.values())):
        raise ValueError(
            "`kept_fisher` holds whole parameters, and the parameters of this model are sharded. Leave it out; the "
            "retain Fisher is then computed by a pass over the retain data."
        )
    if fisher_max_examples is not None:
        raise ValueError(
            f"`fisher_max_examples={fisher_max_examples}` computes the forget Fisher on a part of the rows, but only "
            "the Fisher of all forget rows can be subtracted from `kept_fisher`. Leave one of the two out."
        )
    fisher.check_fits(model, parameters, fisher_type)
    if is_stream(forget_dataset) or is_stream(retain_dataset):
        return
    num_rows = len(forget_dataset) + len(retain_dataset)
    if num_rows != fisher.num_examples:
        raise ValueError(
            f"`kept_fisher` is that of {fisher.num_examples:,} examples, and `forget_dataset` and `retain_dataset` "
            f"have {num_rows:,} rows together. Together they must be the training set that it was computed on. If "
            "rows were forgotten since, the weights have changed and `kept_fisher` is of no use any more."
        )


def check_loaded(parameters: Mapping[str, torch.Tensor]) -> None:
    """Refuses parameters whose values are not loaded."""
    absent = [name for name, parameter in parameters.items() if parameter.is_meta]
    if absent:
        raise ValueError(
            f"{len(absent)} parameters, {absent[0]} first, are offloaded: they have no values between their layers' "
            "forward passes. Load the model without offloading to the CPU or the disk, over several devices if it "
            'does not fit one (`device_map="balanced"`), or leave these parameters out of scope.'
        )


def check_differentiable(model: nn.Module) -> None:
    """Refuses models whose layers compute the gradients of their parameters themselves, without autograd."""
    if getattr(getattr(model, "config", None), "model_type", None) == "reformer":
        raise ValueError(
            f"{type(model).__name__} has reversible layers, which write their parameters' gradients past autograd and "
            "only in training mode, with dropout on: per-example gradients cannot be taken. Use another architecture."
        )
