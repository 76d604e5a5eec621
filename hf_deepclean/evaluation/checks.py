# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses measurements that cannot work, before any heavy work."""

from collections.abc import Collection

from torch import nn

from ..models.adapters.parameters import is_adapted
from ..runtime.shards import is_sharded
from .quantization import quantized
from .recovery import RELEARNING_DATA


def check_relearning(model: nn.Module, reference_model: nn.Module | None, names: Collection[str]) -> None:
    """
    Refuses models whose relearning cannot be measured.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        reference_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            The reference model.
        names (`Collection[str]`):
            Names of the parameters in scope, which are trained in both models.

    Raises:
        `ValueError`: If one of the models is sharded, or the reference model lacks one of the parameters.
    """
    for one in (model, reference_model):
        if one is not None and any(map(is_sharded, one.parameters())):
            raise ValueError(
                f"`relearning_steps` trains a copy of the model, and this {type(one).__name__} is sharded over "
                "several processes. Leave it at 0, and measure relearning on the saved result in one process."
            )
    if reference_model is None:
        return
    missing = set(names) - dict(reference_model.named_parameters(remove_duplicate=False)).keys()
    if missing:
        raise ValueError(
            f"`relearning_steps` trains the parameters in scope, and `reference_model` does not have {len(missing)} "
            f"of them, for example {min(missing)}. Pass a reference model of the same architecture, or leave it at 0."
        )


def check_quantization(model: nn.Module, reference_model: nn.Module | None) -> None:
    """
    Refuses models whose weights cannot be rounded as a whole.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        reference_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            The reference model.

    Raises:
        `ValueError`: If one of the models has an adapter, or [`quantized`] refuses it.
    """
    for argument, one in (("model", model), ("reference_model", reference_model)):
        if one is None:
            continue
        if is_adapted(one):
            raise ValueError(
                f"`quantization_bits` rounds the weights that are deployed, and `{argument}` has an adapter, so that "
                "base and adapter would be rounded separately. Leave it out, and evaluate a merged copy of the result "
                "(`merge_and_unload()`) within `hf_deepclean.quantized`."
            )
        try:
            with quantized(one, 8):
                pass
        except ValueError as error:
            raise ValueError(f"`quantization_bits` cannot be measured of `{argument}`. {error}") from error


def check_measurements(
    relearning_steps: int,
    relearning_learning_rate: float | None,
    relearning_data: Collection[str],
    quantization_bits: Collection[int] | None,
) -> None:
    """
    Refuses invalid options of the further measurements.

    Args:
        relearning_steps, relearning_learning_rate, relearning_data, quantization_bits:
            As for [`FisherUnlearningConfig`].

    Raises:
        `ValueError`: If one of them has an invalid value.
    """
    if relearning_steps < 0:
        raise ValueError(
            f"`relearning_steps` is {relearning_steps} but must be a number of steps, or 0 to leave the measurement "
            "out."
        )
    if relearning_learning_rate is not None and not relearning_learning_rate > 0:
        raise ValueError(
            f"`relearning_learning_rate` is {relearning_learning_rate} but must be above 0, or left out for a tenth "
            "of `learning_rate`."
        )
    if isinstance(relearning_data, str) or not relearning_data or set(relearning_data) - RELEARNING_DATA.keys():
        allowed = ", ".join(map(repr, RELEARNING_DATA))
        raise ValueError(f"`relearning_data` is {relearning_data!r} but must be a list of one or more of {allowed}.")
    if set(quantization_bits or ()) - {4, 8}:
        raise ValueError(
            f"`quantization_bits` is {quantization_bits}, but weights can be rounded to 4 or 8 bits. Pass [4], [8] or "
            "[4, 8], or leave it out."
        )
