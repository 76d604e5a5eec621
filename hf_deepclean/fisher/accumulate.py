# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set: batches in, a `FisherDiagonal` out."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..models.contexts import with_gradients
from ..models.likelihood import LogLikelihoodFunction
from .accumulation import FisherAccumulation
from .diagonal import FisherDiagonal
from .groups import split_groups


@with_gradients
def accumulate_fisher_diagonal(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    fisher_type: str = "empirical",
    log_likelihood_func: LogLikelihoodFunction | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    seed: int = 0,
    self_check: bool = True,
    product_dtype: torch.dtype | None = None,
    accumulator_device: str | torch.device | None = None,
) -> FisherDiagonal:
    """
    Computes the exact diagonal of the Fisher information, `1/N sum_n (d log p(y_n | x_n, w) / dw)^2`.

    Gradients are squared per example and then summed, with dropout off and normalisation layers in eval mode. The
    result does not depend on how the examples are batched: examples that would change each other's results run alone,
    with a warning, or in groups of their own; see [`~models.company.Company`]. The model is afterwards what it was
    before.

    If the model is sharded with `torch.distributed.fsdp.fully_shard`, all processes must call this, each with its own
    batches, of any number and size. Every process gets the diagonal on the examples of all processes, with sums that
    are sharded like the parameters.

    Section 3 of [DeepClean](https://huggingface.co/papers/2311.10448).

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model. It may be sharded by rows (FSDP2) or lie on several devices (`device_map`). It must not be
            wrapped for data parallelism, which averages gradients.
        batches (`Iterable[dict[str, Any]]`):
            Batches of model inputs, with the targets under `"labels"` (or `"start_positions"` and `"end_positions"`)
            and the example axis first in every tensor. Tensors of images, videos and sounds may have an entry for
            every image or patch instead; see [`~models.rows.select_examples`]. Packed documents count as one example
            each.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"` (the given labels), `"sampled"` (labels drawn from the model, seeded by example position) or
            `"expected"` (the exact expectation over classes; one backward pass per class).
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default the log-likelihood of the model's head, which is checked against the model's
            own loss.
        parameters (`dict[str, torch.nn.Parameter]`, *optional*):
            Named parameters of the model to compute the diagonal for, by default all that require gradients.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.
        self_check (`bool`, *optional*, defaults to `True`):
            Whether to compare two examples of the first batch with one-example passes. Parameters that differ take
            the one-example path for the whole data set, with a warning that names them.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of the matrix products of linear layers, by default the dtype of the sums. The products are
            squared and added in the dtype of the sums in any case. `torch.bfloat16` is faster on processors that have
            instructions for it, and exact to about three digits instead of seven.
        accumulator_device (`str` or `torch.device`, *optional*):
            The device of the sums, by default the device of each parameter. `"cpu"` leaves room for models that fill
            their device: squares are formed on that device, in a temporary tensor of one parameter's size, and moved.

    Returns:
        [`FisherDiagonal`]: Sums in float32, or float64 for float64 parameters.

    Raises:
        `ValueError`: If there is no example or no parameter, if the labels do not fit the head, if the likelihood is
            not the one the model was trained on, or if a likelihood or a squared gradient is not finite.

    Example:

    ```python
    >>> fisher = accumulate_fisher_diagonal(model, dataloader)
    >>> fisher.mean()["classifier.weight"].shape
    ```
    """
    accumulation = FisherAccumulation(
        model, parameters, fisher_type, log_likelihood_func, seed, self_check, product_dtype, accumulator_device
    )
    with accumulation.running():
        for batch in accumulation.lockstep.batches(batches):
            accumulation.add(batch)
    return accumulation.diagonals()[0]


@with_gradients
def accumulate_fisher_diagonals(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    group_column: str,
    fisher_type: str = "empirical",
    log_likelihood_func: LogLikelihoodFunction | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    seed: int = 0,
    self_check: bool = True,
    product_dtype: torch.dtype | None = None,
    accumulator_device: str | torch.device | None = None,
) -> dict[int, FisherDiagonal]:
    """
    Computes the Fisher diagonals of several groups of examples in one pass, such as the forget set and the retain set.

    The groups may be mixed in any order. The pass costs what a pass over one group of all the examples costs, plus one
    set of sums per group.

    Args:
        model, batches, fisher_type, log_likelihood_func, parameters, seed, self_check, product_dtype,
        accumulator_device:
            As for [`accumulate_fisher_diagonal`].
        group_column (`str`):
            The entry of every batch that holds the group of every example, integers of shape `(batch_size,)`.

    Returns:
        `dict[int, FisherDiagonal]`: The diagonal of every group.

    Raises:
        `ValueError`: As [`accumulate_fisher_diagonal`], and if a batch does not hold one integer group per example.

    Example:

    ```python
    >>> fishers = accumulate_fisher_diagonals(model, dataloader, group_column="forget")
    >>> ratio = fishers[1].mean()["classifier.weight"] / fishers[0].mean()["classifier.weight"]
    ```
    """
    accumulation = FisherAccumulation(
        model, parameters, fisher_type, log_likelihood_func, seed, self_check, product_dtype, accumulator_device
    )
    with accumulation.running():
        for batch in accumulation.lockstep.batches(batches):
            accumulation.add(*((None, None) if batch is None else split_groups(batch, group_column)))
    return accumulation.diagonals()
