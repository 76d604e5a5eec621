# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a LoRA adapter is made of, what its weights were before training, and how it is loaded and saved alone."""

import copy
import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ..contexts import seeded


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer


logger = logging.getLogger(__name__)

CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")

# Head classes by the task that an adapter names; other adapters go by the architecture of their base.
_TASK_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
# Initialisations that peft can repeat without data and without touching the base.
_REPEATABLE_INITIALISATIONS = (True, "gaussian", "orthogonal")
_BASE_ALTERING_INITIALISATIONS = ("corda", "loftq", "lora_ga", "olora", "pissa")
# Frozen weights of these methods are differentiated through; of others that was never measured.
_QUANTIZATION_METHODS = ("bitsandbytes", "torchao")


def is_adapted(model: object) -> bool:
    """Whether a model is a [`~peft.PeftModel`]; does not import peft."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def is_adapter_path(path: object) -> bool:
    """Whether a path is a folder with a saved adapter."""
    return isinstance(path, (str, os.PathLike)) and (Path(path) / CONFIG_NAME).is_file()


def active_adapter(model: "PeftModel") -> str:
    """
    Name of the adapter that is active.

    Raises:
        `ValueError`: If none or several are, or the model has no adapter.
    """
    if not is_adapted(model):
        raise ValueError(f"A {type(model).__name__} has no adapter of its own: wrap it in a `PeftModel`.")
    names = list(model.active_adapters)
    if len(names) != 1:
        raise ValueError(
            f"{len(names)} adapters of this model are active ({', '.join(map(repr, names)) or 'none'}), and their "
            "weights cannot be told apart by their effect. Activate the one to clean with `model.set_adapter(name)`."
        )
    return names[0]


def adapter_parameters(model: "PeftModel") -> dict[str, nn.Parameter]:
    """
    The parameters of the active adapter: its low-rank factors and their biases, magnitudes (DoRA), copies of whole
    modules (`modules_to_save`) and rows of trained tokens. Each once, under the first of its names.
    """
    owned = set(_parameters_of(model, [active_adapter(model)]))
    return {name: parameter for name, parameter in model.named_parameters() if parameter in owned}


def token_parameters(model: "PeftModel") -> list[nn.Parameter]:
    """
    The parameters of the active adapter that hold a row or a column for every token of the vocabulary: the first
    factor of LoRA on the token embeddings, a trained copy of the table, or its trained rows.
    """
    try:
        embeddings = model.get_base_model().get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return []
    name = active_adapter(model)
    parameters: list[nn.Parameter] = []
    for container in ("lora_embedding_A", "modules_to_save", "token_adapter.trainable_tokens_delta"):
        try:
            entries = attrgetter(container)(embeddings)
        except AttributeError:
            continue
        parameters += _leaves(entries[name]) if name in entries else []
    return parameters


def num_base_weights(model: "PeftModel") -> int:
    """Number of weights outside all adapters; packed ones count as they are stored."""
    owned = set(_parameters_of(model, list(model.peft_config)))
    return sum(parameter.numel() for parameter in model.parameters() if parameter not in owned)


def check_adapter(model: "PeftModel", reset_value: str = "zero") -> None:
    """
    Refuses an adapter whose weights cannot be reset one by one, or not to the values that are asked for.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            What its weights are to be reset to.

    Raises:
        `ValueError`: If the adapter is no LoRA or of a kind that mixes its weights with the base's; if it is switched
            off, merged, frozen, or one of several active ones; if its initial values cannot be drawn again; or if the
            base is quantised by a method that does not let gradients pass.
    """
    kinds = {name: getattr(config.peft_type, "value", config.peft_type) for name, config in model.peft_config.items()}
    others = sorted({f"{kind} (adapter {name!r})" for name, kind in kinds.items() if kind != "LORA"})
    if others:
        raise ValueError(
            f"`reset_scope='adapter'` cleans LoRA adapters, and this model has {', '.join(others)}, whose weights act "
            "in another way. Merge it into the model (`merge_and_unload`, where the method has it) and use "
            "`reset_scope='full'`."
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
    _check_initialisation(name, config, reset_value)
    if reset_value == "zero" and str(config.init_lora_weights).lower().startswith(_BASE_ALTERING_INITIALISATIONS):
        logger.warning(
            f"The adapter {name!r} was initialised with `init_lora_weights={config.init_lora_weights!r}`, which moved "
            "a part of the base into it: weights reset to zero take out some of that part too, which the repair has "
            "to build again. Convert it to a plain adapter first (`path_initial_model_for_weight_conversion` of peft)."
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
            f"Parameters of the adapter {name!r} share their storage (`ensure_weight_tying`), so that one entry would "
            "be reset twice. Train the adapter without it, or merge it (`merge_and_unload`) and use "
            "`reset_scope='full'`."
        )


def load_adapted_model(path: str | os.PathLike[str], seed: int = 0) -> "PeftModel":
    """
    Loads a saved LoRA adapter, ready to train, on the base it names.

    The base is loaded as it is saved; to clean an adapter on a base that is quantised on loading, load both and pass
    the model. The head is that of the adapter's task, else of its base's architecture; a head that the base does not
    have gets as many labels as the adapter's copy of it, and is initialised by `seed`. The global random state is left
    as it was.

    Args:
        path (`str`):
            Folder with `adapter_config.json`. It is only read.
        seed (`int`, *optional*, defaults to `0`):
            Seed of what neither base nor adapter have.

    Raises:
        `OSError`: If the base cannot be loaded.
        `ValueError`: If the adapter is no LoRA, names no base, or does not fit it.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights

    path = os.fspath(path)
    config = PeftConfig.from_pretrained(path)
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise ValueError(
            f"The adapter {path} is of type {kind}, and only LoRA adapters are loaded here. Merge it into its base "
            "(`merge_and_unload`, where the method has it) and pass the merged model."
        )
    if not config.base_model_name_or_path:
        raise ValueError(
            f"The adapter {path} does not say which base it belongs to (`base_model_name_or_path` is "
            f"{config.base_model_name_or_path!r}). Load the base yourself and pass "
            "`PeftModel.from_pretrained(base, path, is_trainable=True)`."
        )
    if not any((Path(path) / weights_name).is_file() for weights_name in _WEIGHTS_NAMES):
        raise FileNotFoundError(
            f"The folder {path} has the configuration of an adapter and no weights ({' or '.join(_WEIGHTS_NAMES)}). "
            "Save the adapter again with `save_pretrained`."
        )
    weights = load_peft_weights(path, device="cpu")
    with seeded(seed):
        base = _load_base(path, config, weights)
        carried = _not_of_the_base(base, weights)
        try:
            model = PeftModel.from_pretrained(base, path, is_trainable=True)
            outcome = model.load_adapter(path, "default", is_trainable=True)
        except (RuntimeError, ValueError) as error:
            raise _misfit(path, config, " ".join(str(error).split())) from error
    if outcome.missing_keys or outcome.unexpected_keys:
        missing, unexpected = list(outcome.missing_keys), list(outcome.unexpected_keys)
        found = [f"it has no {missing[0]} ({len(missing)} tensors missing)"] if missing else []
        found += [f"the base has no place for {unexpected[0]} ({len(unexpected)} tensors)"] if unexpected else []
        raise _misfit(path, config, "; ".join(found))
    replaced = sorted(carried & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if replaced:
        raise ValueError(
            f"The adapter {path} carries weights of the base that are not those of "
            f"{config.base_model_name_or_path!r}: {', '.join(replaced)}. An adapter of a changed base cannot be "
            "cleaned without it: load both yourself and pass the `PeftModel`."
        )
    return model


def save_adapter(model: "PeftModel", directory: str | os.PathLike[str]) -> None:
    """
    Writes the active adapter, whatever its name, straight into a folder, and no weight of the base.

    Only where the vocabulary was resized are the embeddings of the base written too, as peft does: the base on disk
    does not have those rows.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        directory (`str`):
            Where to.
    """
    with saving_the_adapter_alone(model):
        model.save_pretrained(directory)
    # A template of a model card, with nothing filled in.
    (Path(directory) / "README.md").unlink(missing_ok=True)


@contextmanager
def saving_the_adapter_alone(model: nn.Module) -> Iterator[None]:
    """
    Where anything saves the model, for the duration, it saves the active adapter alone, straight into the folder.

    By itself peft saves all adapters, those not named "default" in folders of their own (where Trainer does not find
    its best checkpoint), asks the Hub for the base's configuration, and adds the base's embeddings if LoRA is applied
    to them. Does nothing to a model without adapter.
    """
    if not is_adapted(model):
        yield
        return
    resized = _vocabulary_was_resized(model)
    if resized:
        logger.warning(
            "The vocabulary of the base was resized, so its embeddings are saved beside the adapter, which could not "
            "be loaded without them."
        )
    name, save_pretrained = active_adapter(model), model.save_pretrained

    def save(save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        save_pretrained(save_directory, selected_adapters=[name], save_embedding_layers=resized, **kwargs)
        folder = Path(save_directory) / name
        if name != "default":
            for path in folder.iterdir():
                path.replace(folder.parent / path.name)
            folder.rmdir()

    model.save_pretrained = save
    try:
        yield
    finally:
        del model.save_pretrained


def adapter_reset_values(
    model: "PeftModel", indices: Mapping[str, torch.Tensor], reset_value: str, seed: int
) -> dict[str, torch.Tensor]:
    """
    New values for entries of the active adapter; the model stays as it is.

    Args:
        model ([`~peft.PeftModel`]):
            The model with the adapter.
        indices (`dict[str, torch.Tensor]`):
            For every parameter the flat indices of its entries.
        reset_value (`str`):
            `"init"`: the values before training. That is what peft's own initialisation draws for the factors, which
            makes their product 0; for the magnitudes of [DoRA](https://huggingface.co/papers/2402.09353) the norms of
            the base's weights; for copies of modules and trained tokens the base's values.

            `"zero"`: 0, with two exceptions. A magnitude of 0 would switch off a neuron of the base, so magnitudes
            get the norm of the base's weights. And a rank whose row of A and column of B are both 0 throughout would
            never have a gradient again, so its selected entries get their initial values instead.
        seed (`int`):
            Seed of the initialisation. The global random state is left as it was.

    Returns:
        `dict[str, torch.Tensor]`: Flat values by parameter.

    Raises:
        `ValueError`: If an entry is not the active adapter's, or its initial value cannot be drawn again.
    """
    name = active_adapter(model)
    config = model.peft_config[name]
    parameters = adapter_parameters(model)
    foreign = sorted(indices.keys() - parameters.keys())
    if foreign:
        raise ValueError(
            f"{len(foreign)} of {len(indices)} parameters to reset are not those of the active adapter {name!r}: "
            f"{', '.join(foreign[:3])}. Select with `reset_scope='adapter'`."
        )
    _check_initialisation(name, config, reset_value)
    if reset_value == "init":
        fresh = _initial_values(model, name, config.init_lora_weights, seed)
        return {key: torch.take(fresh[key], chosen.cpu()) for key, chosen in indices.items()}
    values = {key: parameters[key].new_zeros(len(chosen)) for key, chosen in indices.items()}
    magnitudes = [key for key in indices if ".lora_magnitude_vector." in key]
    dead = _dead_ranks(model, name, indices)
    if magnitudes or dead:
        # By peft's default, in which a rank alone has no effect, whatever the adapter itself started from.
        fresh = _initial_values(model, name, True, seed)
        for key in magnitudes:
            values[key] = torch.take(fresh[key], indices[key].cpu())
        for key, revived in dead.items():
            chosen = indices[key].cpu()
            values[key] = torch.where(revived.flatten()[chosen], torch.take(fresh[key], chosen), 0)
    return values


def keep_base_differentiable(model: nn.Module) -> None:
    """
    Keeps the 4-bit weights of bitsandbytes in the layout that gradients pass through.

    On processors with AVX512-BF16 a forward pass in eval mode repacks them in place, for good, into one that is for
    inference only; a gradient of any layer below would silently be missing, and the base's bits would differ.
    """
    packing = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for module in packing:
        # Asking for its state is how bitsandbytes undoes the packing.
        module.state_dict()
        module.support_avx512bf16_for_cpu = False


def _parameters_of(model: "PeftModel", names: Collection[str]) -> Iterator[nn.Parameter]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            for container in module.adapter_layer_names:
                entries = attrgetter(container)(module)
                for name in names:
                    yield from _leaves(entries[name]) if name in entries else ()


def _leaves(entry: nn.Parameter | nn.Module) -> list[nn.Parameter]:
    return [entry] if isinstance(entry, nn.Parameter) else list(entry.parameters())


def _lora_layers(model: "PeftModel", name: str) -> "Iterator[LoraLayer]":
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.r:
            yield module


def _check_kind(model: "PeftModel", name: str, config: "LoraConfig") -> None:
    advice = "Merge the adapter (`merge_and_unload`) and use `reset_scope='full'`."
    if config.bias != "none":
        raise ValueError(
            f"The adapter {name!r} was trained with `bias={config.bias!r}`, so that biases of the base belong to it, "
            f"and the base would not stay as it is. {advice}"
        )
    for layer in _lora_layers(model, name):
        variant = type(layer.lora_variant.get(name)).__name__
        if type(layer).__name__ in ("MultiheadAttention", "ParamWrapper"):
            raise ValueError(
                f"The adapter {name!r} has a layer of type {type(layer).__name__}, which writes into the base's "
                f"weights in its forward pass or keeps several adapters in one tensor. {advice}"
            )
        if name in layer.lora_variant and not variant.startswith("Dora"):
            raise ValueError(
                f"The adapter {name!r} is a variant of LoRA ({variant}) whose reset is not known; plain LoRA, rsLoRA "
                f"and DoRA are. {advice}"
            )


def _check_initialisation(name: str, config: "LoraConfig", reset_value: str) -> None:
    init = config.init_lora_weights
    if reset_value == "pretrained":
        raise ValueError(
            "`reset_value='pretrained'` rewinds a model to the checkpoint before fine-tuning. An adapter did not "
            "exist before it was trained: use `reset_value='init'`, its initial values, or 'zero'."
        )
    if reset_value == "init" and init not in _REPEATABLE_INITIALISATIONS:
        reason = "that of a random adapter, whose start is not the base" if init is False else "from data or the base"
        raise ValueError(
            f"The adapter {name!r} was initialised with `init_lora_weights={init!r}`, {reason}, and that cannot be "
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
            f"let exact gradients pass to the adapter. Weights quantised by {' or '.join(_QUANTIZATION_METHODS)} are; "
            "or load the base unquantised."
        )
    if getattr(base, "is_loaded_in_8bit", False) and any(
        name in layer.lora_magnitude_vector for layer in _lora_layers(model, name)
    ):
        raise ValueError(
            f"The adapter {name!r} has magnitudes (DoRA) on a base in 8 bits by bitsandbytes, whose weights peft "
            "cannot read again after the first forward pass. Load the base in 4 bits or unquantised."
        )


def _load_base(path: str, config: "LoraConfig", weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    name = config.base_model_name_or_path
    source = {} if config.revision is None else {"revision": config.revision}
    try:
        base_config = AutoConfig.from_pretrained(name, **source)
        model_class = _model_class(config, base_config)
        if model_class.__name__ not in (base_config.architectures or ()):
            _set_num_labels(base_config, model_class, weights)
        return model_class.from_pretrained(name, config=base_config, **source)
    except OSError as error:
        raise OSError(
            f"The adapter {path} belongs to the base {name!r}, which cannot be loaded ({' '.join(str(error).split())})"
            ". Put the base there, or load it yourself and pass "
            "`PeftModel.from_pretrained(base, path, is_trainable=True)`."
        ) from error


def _model_class(config: "LoraConfig", base_config: PreTrainedConfig) -> type[PreTrainedModel]:
    task = getattr(config.task_type, "value", config.task_type)
    if task in _TASK_CLASSES:
        auto_class = getattr(transformers, _TASK_CLASSES[task])
        if type(base_config) in auto_class._model_mapping:
            with torch.device("meta"):
                return type(auto_class.from_config(copy.deepcopy(base_config)))
    names = [(config.auto_mapping or {}).get("base_model_class"), *(base_config.architectures or ())]
    known = [name for name in names if name is not None and hasattr(transformers, name)]
    if not known:
        raise ValueError(
            f"Neither the adapter (task {task!r}) nor its base {config.base_model_name_or_path!r} "
            f"({base_config.architectures}) name a class of transformers. Load the base yourself and pass the "
            "`PeftModel`."
        )
    return getattr(transformers, known[0])


def _set_num_labels(
    base_config: PreTrainedConfig, model_class: type[PreTrainedModel], weights: Mapping[str, torch.Tensor]
) -> None:
    """As many labels as the adapter's copy of a head has that the base is without."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model_class(copy.deepcopy(base_config)).named_parameters()}
    for key, tensor in weights.items():
        shape = shapes.get(key.removeprefix("base_model.model."), ())
        if shape[1:] == tensor.shape[1:] and len(shape) == tensor.ndim and shape[:1] == (base_config.num_labels,):
            base_config.num_labels = len(tensor)
            return


def _not_of_the_base(base: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of weights in an adapter's file that the base has too, in other values."""
    parameters = dict(base.named_parameters(remove_duplicate=False))
    names = {key: key.removeprefix("base_model.model.").replace(".base_layer.", ".") for key in weights}
    return {
        key
        for key, name in names.items()
        if name in parameters
        and not torch.equal(parameters[name].detach().cpu(), weights[key].to(parameters[name].dtype))
    }


def _misfit(path: str, config: "LoraConfig", reason: str) -> ValueError:
    return ValueError(
        f"The adapter {path} does not fit its base {config.base_model_name_or_path!r}: {reason}. It was trained on "
        "another base, or on this one with a resized vocabulary or another head. Load the right base yourself and "
        "pass `PeftModel.from_pretrained(base, path, is_trainable=True)`."
    )


def _vocabulary_was_resized(model: "PeftModel") -> bool:
    """Compared with the configuration of the base, if that is on this machine."""
    here = getattr(model.get_base_model().config, "vocab_size", None)
    name = model.peft_config[active_adapter(model)].base_model_name_or_path
    if not name or here is None:
        return False
    try:
        there = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return False
    return getattr(there, "vocab_size", here) != here


def _initial_values(model: "PeftModel", name: str, init: bool | str, seed: int) -> dict[str, torch.Tensor]:
    """What every parameter of the adapter had before training, on the CPU."""
    values: dict[nn.Parameter, torch.Tensor] = {}
    with seeded(seed), torch.no_grad():
        for layer in _lora_layers(model, name):
            values |= _initial_factors(layer, name, init)
    values |= _copied_values(model, name)
    return {key: values[parameter] for key, parameter in adapter_parameters(model).items()}


def _initial_factors(layer: "LoraLayer", name: str, init: bool | str) -> dict[nn.Parameter, torch.Tensor]:
    """Runs peft's own initialisation of a layer on copies in the place of its factors, then puts them back."""
    trained = {kind: getattr(layer, kind)[name] for kind in _FACTORS if name in getattr(layer, kind)}
    copies = {}
    try:
        for kind, entry in trained.items():
            fresh = copy.deepcopy(entry)
            # As peft does it: drawn in float32 and on the CPU, whatever the parameter's type and place.
            for parameter in _leaves(fresh):
                parameter.data = parameter.data.to("cpu", torch.float32)
            copies[kind] = getattr(layer, kind)[name] = fresh
        if init == "orthogonal":
            layer.orthogonal_init(name)
        else:
            layer.reset_lora_parameters(name, init)
        if "lora_magnitude_vector" in copies:
            embedding = "lora_embedding_A" in copies
            first, second = (copies[f"lora_{'embedding_' if embedding else ''}{factor}"] for factor in "AB")
            copies["lora_magnitude_vector"].update_layer(
                base_layer=layer.get_base_layer(),
                lora_A=first if embedding else first.weight,
                lora_B=second if embedding else second.weight,
                scaling=layer.scaling[name],
            )
    finally:
        for kind, entry in trained.items():
            getattr(layer, kind)[name] = entry
    return {
        parameter: fresh.detach()
        for kind, entry in trained.items()
        for parameter, fresh in zip(_leaves(entry), _leaves(copies[kind]), strict=True)
    }


def _copied_values(model: "PeftModel", name: str) -> dict[nn.Parameter, torch.Tensor]:
    """The base's values of whole modules that the adapter trained a copy of, and of single rows."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper

    values: dict[nn.Parameter, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            trained = module.modules_to_save[name].named_parameters(remove_duplicate=False)
            originals = dict(module.original_module.named_parameters(remove_duplicate=False))
            values |= {parameter: originals[key].detach().cpu() for key, parameter in trained}
        elif isinstance(module, TrainableTokensLayer) and name in module.trainable_tokens_delta:
            original = module.trainable_tokens_original[name]
            values[module.trainable_tokens_delta[name]] = original.detach().cpu()
    return values


def _dead_ranks(model: "PeftModel", name: str, indices: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    For every factor with such entries, where the ranks lie that a reset to 0 would leave with nothing but zeros.

    Each of the two factors gets its gradient through the other one, so that both stay 0 from then on.
    """
    names = {parameter: key for key, parameter in model.named_parameters()}
    dead: dict[str, torch.Tensor] = {}
    num_ranks = 0
    for layer in _lora_layers(model, name):
        pair = (
            (layer.lora_embedding_A[name], layer.lora_embedding_B[name])
            if name in layer.lora_embedding_A
            else (layer.lora_A[name].weight, layer.lora_B[name].weight)
        )
        keys = [names[parameter] for parameter in pair]
        if not any(key in indices for key in keys):
            continue
        left = []
        for key, parameter in zip(keys, pair, strict=True):
            remaining = parameter.detach().to("cpu", copy=True) != 0
            if key in indices:
                remaining.view(-1)[indices[key].cpu()] = False
            left.append(remaining)
        first, second = left
        # The second factor of a grouped convolution holds, for its outputs, only the ranks of their group.
        groups = len(first) // second.shape[1]
        by_rank = second.view(groups, len(second) // groups, second.shape[1], -1).any(dim=3).any(dim=1).flatten()
        nothing = ~(first.flatten(1).any(dim=1) | by_rank)
        if not nothing.any():
            continue
        num_ranks += int(nothing.sum())
        places = (
            nothing.view(-1, *[1] * (first.ndim - 1)).expand_as(first),
            nothing.view(groups, 1, -1)
            .expand(groups, len(second) // groups, second.shape[1])
            .reshape(len(second), second.shape[1], *[1] * (second.ndim - 2))
            .expand_as(second),
        )
        dead |= {key: place for key, place in zip(keys, places, strict=True) if key in indices}
    if num_ranks:
        logger.warning(
            f"All weights of {num_ranks} ranks of the adapter {name!r} are reset. With zeros in both factors they "
            "would never have a gradient again, so these weights get their initial values (no effect on the output, "
            "but trainable). Lower `reset_fraction` or raise `gamma` to reset fewer."
        )
    return dead
