# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set: batches in, a `FisherDiagonal` out."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..data.batches import num_examples
from ..models.likelihood import LogLikelihoodFunction
from .accumulation import FisherAccumulation
from .diagonal import FisherDiagonal


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

    Gradients are squared per example and then summed, with dropout off and normalisation layers in eval mode; the
    result does not depend on how the examples are batched. The model is left as it was found.

    Of a model sharded with `torch.distributed.fsdp.fully_shard` all processes call this, each with its own batches, of
    any number and size. The result is that of all examples, the same in all processes, and its sums are sharded like
    the parameters.

    Section 3 of [DeepClean](https://huggingface.co/papers/2311.10448).

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model; not wrapped for data parallelism, whose gradients are averages. It may be sharded by its rows
            (FSDP2), or lie on several devices (`device_map`).
        batches (`Iterable[dict[str, Any]]`):
            Batches of model inputs, with the targets under `"labels"` (or `"start_positions"` and `"end_positions"`)
            and the example axis first in every tensor. Packed documents count as one example each.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"` (the given labels), `"sampled"` (labels drawn from the model, seeded by example position) or
            `"expected"` (the exact expectation over classes; one backward pass per class).
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default that of the model's head, which is checked against the model's own loss.
        parameters (`dict[str, torch.nn.Parameter]`, *optional*):
            Named parameters of the model to compute the diagonal for, by default all that require gradients.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampled labels.
        self_check (`bool`, *optional*, defaults to `True`):
            Whether to compare two examples of the first batch with one-example passes. Parameters that differ take
            the one-example path for the whole data set, with a warning that names them.
        product_dtype (`torch.dtype`, *optional*):
            The dtype in which the matrix products of linear layers are formed, by default that of the sums, in which
            they are squared and added in any case. `torch.bfloat16` is faster where the processor has instructions
            for it, and exact to about three digits instead of seven.
        accumulator_device (`str` or `torch.device`, *optional*):
            Where the sums are kept, by default where each parameter is. `"cpu"` leaves room for models that fill their
            device: squares are formed there, in a temporary of one parameter, and moved.

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
        for batch in accumulation.in_step(batches):
            accumulation.add(batch)
    return accumulation.diagonals()[0]


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
    Computes the diagonals of several groups of examples in one pass, as those to forget and those to retain.

    The groups may be mixed in any order; the pass costs what it costs for one group, but for one set of sums each.

    Args:
        model, batches, fisher_type, log_likelihood_func, parameters, seed, self_check, product_dtype,
        accumulator_device:
            As for [`accumulate_fisher_diagonal`].
        group_column (`str`):
            The entry of every batch that holds the group of every example, integers of shape `(batch_size,)`.

    Returns:
        `dict[int, FisherDiagonal]`: By group.

    Raises:
        `ValueError`: As [`accumulate_fisher_diagonal`], and if a batch has no such groups.

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
        for batch in accumulation.in_step(batches):
            accumulation.add(*_split_groups(batch, group_column))
    return accumulation.diagonals()


def _split_groups(batch: Mapping[str, Any] | None, column: str) -> tuple[dict[str, Any] | None, list[int] | None]:
    if batch is None:
        return None, None
    rest = dict(batch)
    groups = rest.pop(column, None)
    shape = tuple(groups.shape) if isinstance(groups, torch.Tensor) else None
    if shape != (num_examples(rest),) or groups.is_floating_point() or groups.is_complex():
        raise ValueError(
            f"`group_column={column!r}` must name integers, one for each of the {num_examples(rest)} examples of a "
            f"batch, but that entry is {'missing' if groups is None else f'of shape {shape}'}. Keep the column in the "
            f"data set and in the collator's output; the batch holds {sorted(batch)}."
        )
    return rest, groups.tolist()
