# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses adapters that cannot be cleaned, before any heavy work."""

import logging
from typing import TYPE_CHECKING

from .parameters import MERGE_ADVICE, active_adapter, adapter_parameters, lora_layers


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


logger = logging.getLogger(__name__)

# Initialisations that peft can repeat without data and without changing the base model.
_REPEATABLE_INITIALISATIONS = (True, "gaussian", "orthogonal")
_BASE_ALTERING_INITIALISATIONS = ("corda", "loftq", "lora_ga", "olora", "pissa")
# Gradients pass through frozen weights of these methods; for others this was never measured.
_QUANTIZATION_METHODS = ("bitsandbytes", "torchao")


def check_adapter(model: "PeftModel", reset_value: str = "zero") -> None:
    """
    Refuses an adapter whose weights cannot be reset one by one to the given value.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            The value that its weights will be reset to.

    Raises:
        `ValueError`: If the adapter is not a LoRA adapter, or of a kind that mixes its weights with those of the base
            model. If it is switched off, merged, frozen, or one of several active ones. If its initial values cannot
            be drawn again. If the base model is quantised by a method that does not let gradients pass.
    """
    kinds = {name: getattr(config.peft_type, "value", config.peft_type) for name, config in model.peft_config.items()}
    others = sorted({f"{kind} (adapter {name!r})" for name, kind in kinds.items() if kind != "LORA"})
    if others:
        raise ValueError(
            f"`reset_scope='adapter'` cleans LoRA adapters, and this model has {', '.join(others)}, whose "
            f"weights work in another way. If the method supports it, {MERGE_ADVICE}"
        )
    name = active_adapter(model)
    status = model.get_model_status()
    if status.enabled is not True or status.merged_adapters:
        state = "switched off in some or all layers" if status.enabled is not True else "merged into the base"
        raise ValueError(
            f"The adapter {name!r} is {state}, so its weights have no effect of their own. Call "
            f"`{'model.enable_adapter_layers()' if status.enabled is not True else 'model.unmerge_adapter()'}` first."
        )
    config = model.peft_config[name]
    _check_kind(model, name, config)
    check_initialisation(name, config, reset_value)
    if reset_value == "zero" and str(config.init_lora_weights).lower().startswith(_BASE_ALTERING_INITIALISATIONS):
        logger.warning(
            f"The adapter {name!r} was initialised with `init_lora_weights={config.init_lora_weights!r}`, which moved "
            "a part of the base into it: weights reset to zero remove some of that part too, and the repair has to "
            "learn it again. Convert it to a plain adapter first (`path_initial_model_for_weight_conversion` of peft)."
        )
    _check_quantization(model, name)
    parameters = adapter_parameters(model)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(
            f"None of the {len(parameters)} parameters of the adapter {name!r} requires gradients: it was loaded for "
            f"inference. Load it with `is_trainable=True`, or call `model.set_requires_grad({name!r})`."
        )
    storages = [parameter.untyped_storage().data_ptr() for parameter in parameters.values() if parameter.numel()]
    if len(set(storages)) < len(storages):
        raise ValueError(
            f"Parameters of the adapter {name!r} share their storage (`ensure_weight_tying`), so one entry would be "
            f"reset twice. Train the adapter without weight tying, or {MERGE_ADVICE}"
        )


def _check_kind(model: "PeftModel", name: str, config: "LoraConfig") -> None:
    advice = f"Instead, {MERGE_ADVICE}"
    if config.bias != "none":
        raise ValueError(
            f"The adapter {name!r} was trained with `bias={config.bias!r}`, so biases of the base belong to it, and "
            f"cleaning it would change the base. {advice}"
        )
    for layer in lora_layers(model, name):
        variant = type(layer.lora_variant.get(name)).__name__
        if type(layer).__name__ in ("MultiheadAttention", "ParamWrapper"):
            raise ValueError(
                f"The adapter {name!r} has a layer of type {type(layer).__name__}, which writes into the weights of "
                f"the base in its forward pass, or keeps several adapters in one tensor. {advice}"
            )
        if name in layer.lora_variant and not variant.startswith("Dora"):
            raise ValueError(
                f"The adapter {name!r} is a variant of LoRA ({variant}) that cannot be reset; plain LoRA, rsLoRA and "
                f"DoRA can. {advice}"
            )


def check_initialisation(name: str, config: "LoraConfig", reset_value: str) -> None:
    """
    Refuses a reset to values that cannot be computed again.

    Args:
        name (`str`):
            Name of the adapter.
        config ([`~peft.LoraConfig`]):
            Its configuration.
        reset_value (`str`):
            The value that its weights will be reset to.

    Raises:
        `ValueError`: If the value is `"pretrained"`, or `"init"` and the initialisation cannot be repeated.
    """
    init = config.init_lora_weights
    if reset_value == "pretrained":
        raise ValueError(
            "`reset_value='pretrained'` rewinds a model to the checkpoint before fine-tuning, but an adapter did not "
            "exist before it was trained. Use `reset_value='init'`, its initial values, or 'zero'."
        )
    if reset_value == "init" and init not in _REPEATABLE_INITIALISATIONS:
        reason = "at random, so its start is not the base" if init is False else "from data or from the base"
        raise ValueError(
            f"The adapter {name!r} was initialised with `init_lora_weights={init!r}`, {reason}, and this cannot be "
            "repeated. Use `reset_value='zero'`."
        )


def _check_quantization(model: "PeftModel", name: str) -> None:
    base = model.get_base_model()
    method = getattr(base, "quantization_method", None)
    if method is None and not getattr(base, "is_quantized", False):
        return
    method = str(getattr(method, "value", method))
    dynamic = any(
        getattr(parameter, "act_quant_kwargs", None) is not None or "Activation" in type(parameter).__name__
        for parameter in base.parameters()
    )
    if method not in _QUANTIZATION_METHODS or dynamic:
        raise ValueError(
            f"The base is quantised by {method}{' with its activations' if dynamic else ''}, which is not known to "
            f"let exact gradients pass to the adapter. Quantise only weights by {' or '.join(_QUANTIZATION_METHODS)}, "
            "or load the base unquantised."
        )
    if getattr(base, "is_loaded_in_8bit", False) and any(
        name in layer.lora_magnitude_vector for layer in lora_layers(model, name)
    ):
        raise ValueError(
            f"The adapter {name!r} has magnitudes (DoRA) on a base in 8 bits by bitsandbytes, whose weights peft "
            "cannot read after the first forward pass. Load the base in 4 bits or unquantised."
        )
