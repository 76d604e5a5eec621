# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses Fisher passes and kept Fishers that cannot work, before any heavy work."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..data.streams import is_stream
from ..models.likelihood import LogLikelihoodFunction, built_in_kind
from ..runtime.choices import check_choice
from ..runtime.processes import is_main_process
from ..runtime.shards import is_sharded
from .diagonal import FisherDiagonal
from .kept_data import name_of_likelihood


logger = logging.getLogger(__name__)

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
    log_likelihood_func: LogLikelihoodFunction | None,
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
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood.
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
    if fisher.data is not None and fisher.data.likelihood != (name := name_of_likelihood(log_likelihood_func)):
        raise ValueError(
            f"`kept_fisher` is that of {_words(fisher.data.likelihood)}, and the request has {_words(name)}. Pass the "
            "`log_likelihood_func` that it was computed with, or leave it out."
        )
    check_rows_of_kept_fisher(fisher, forget_dataset, retain_dataset)


def check_rows_of_kept_fisher(fisher: FisherDiagonal, forget_dataset: Any, retain_dataset: Any) -> None:
    """
    Refuses a kept Fisher of other rows than two data sets have together. Warns if the rows cannot be compared.

    Args:
        fisher, forget_dataset, retain_dataset:
            As for [`check_kept_fisher`]. All processes must call this.

    Raises:
        `ValueError`: If it is that of other rows.
    """
    parts = {"forget_dataset": forget_dataset, "retain_dataset": retain_dataset}
    streams = [argument for argument, dataset in parts.items() if is_stream(dataset)]
    if not streams:
        num_rows = sum(map(len, parts.values()))
        if num_rows != fisher.num_examples:
            raise ValueError(
                f"`kept_fisher` is that of {fisher.num_examples:,} examples, and `forget_dataset` and "
                f"`retain_dataset` have {num_rows:,} rows together. Together they must be the training set that it "
                "was computed on. If rows were forgotten since, the weights have changed and `kept_fisher` is of no "
                "use any more."
            )
        if fisher.data is not None and fisher.data.is_comparable:
            fisher.data.check_rows(parts)
            return
    reason = f"`{streams[0]}` is a stream" if streams else "it was kept without a digest of them"
    if is_main_process():
        logger.warning(
            f"The rows of `kept_fisher` are not compared with `forget_dataset` and `retain_dataset`: {reason}. Make "
            "sure that they are the same rows. Its weights, parameters and estimator are checked"
            f"{'' if streams else ', and the number of rows'}."
        )


def _words(likelihood: str) -> str:
    return f"the likelihood `{likelihood}`" if likelihood else "the likelihood of the model's head"


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
