# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of an unlearning run on paper, by the formulas of recipes/scale.md."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Fitted to the calibration runs of tests/benchmarks/scale.py, BERT and Llama on one thread of a CPU.
_UTILISATION = 0.95
_ACTIVATION_PASSES = 4
_LOGIT_PASSES = 15
_SET_UP_EXAMPLES = 9

# Timed on their own on one thread.
_SELECTION_SECONDS = 8e-8
_HASH_BYTES_PER_SECOND = 1.2e9
_INITIALISED_WEIGHTS_PER_SECOND = 1e8
_OPTIMIZER_BYTES_MOVED = 120

# The ratios of a block of weights in float64, and what the threshold takes of copies of them.
_SELECTION_BYTES = 40
_SELECTION_BLOCK = 2**24
# Rows of a squared product are handled in blocks of so many elements, each with two kernels per example.
_BLOCK_ELEMENTS = 2**20
# On a CPU the Fisher pass runs as many examples together as have logits of that size, but at least two.
_CACHE_BYTES = 2**25
# What the driver and fragmentation leave of a device's memory.
_USABLE = 0.93


@dataclass(frozen=True)
class ModelSize:
    """
    The sizes of a transformer that decide time and memory.

    Args:
        num_parameters (`int`):
            All weights.
        num_table_parameters (`int`):
            Those of embedding tables, which are looked up and not multiplied; a table that is the output layer too
            does not count.
        hidden_size, num_layers, intermediate_size (`int`):
            Width, depth, and width within the MLP.
        key_value_size (`int`):
            Width of the keys, smaller than `hidden_size` where heads share them.
        num_outputs (`int`):
            Logits per token, 0 for a head that classifies whole examples.
        mlp_matrices (`int`, *optional*, defaults to `2`):
            2, or 3 for a gated MLP.
        mlp_tensors (`int`, *optional*, defaults to `2`):
            Tensors of `intermediate_size` that a training step keeps per token and layer: 2 (the activation's input
            and output), 4 (gated), 5 (a GELU computed op by op, as in GPT-2).
        norm_tensors (`int`, *optional*, defaults to `0`):
            Tensors of `hidden_size` that it keeps beyond the inputs of the layers: 2 for RMS norms computed op by op.
        num_in_scope (`int`, *optional*):
            Weights that may be reset, by default all.
    """

    num_parameters: int
    num_table_parameters: int
    hidden_size: int
    num_layers: int
    intermediate_size: int
    key_value_size: int
    num_outputs: int
    mlp_matrices: int = 2
    mlp_tensors: int = 2
    norm_tensors: int = 0
    num_in_scope: int | None = None

    @property
    def scope(self) -> int:
        """Number of weights that may be reset."""
        return self.num_parameters if self.num_in_scope is None else self.num_in_scope

    @property
    def largest_parameter(self) -> int:
        """Number of weights of the largest parameter: a table, the output layer, or a matrix of the MLP."""
        return self.hidden_size * max(self.num_outputs, self.intermediate_size)

    @property
    def layer_parameters(self) -> int:
        """Number of weights that are gathered together when weights are sharded."""
        return max(self.num_parameters // max(1, self.num_layers), self.largest_parameter)

    def forward_flops(self, tokens: int) -> float:
        """Of one example: `2 M T + 4 L T^2 d`, with M the weights that are multiplied."""
        matrices = self.num_parameters - self.num_table_parameters
        return 2.0 * matrices * tokens + 4.0 * self.num_layers * tokens**2 * self.hidden_size

    def weight_gradient_flops(self, tokens: int) -> float:
        """Of one example: `2 M T` over the weights in scope."""
        return 2.0 * min(self.scope, self.num_parameters - self.num_table_parameters) * tokens

    def activation_bytes(self, bytes_per_element: int) -> int:
        """
        What one layer keeps of a token for the backward pass: `(6 + n) d + 2 d_kv + m f` elements, of which the `n d`
        inputs of RMS norms are float32. Attention weights are not kept.
        """
        elements = 6 * self.hidden_size + 2 * self.key_value_size + self.mlp_tensors * self.intermediate_size
        return elements * bytes_per_element + 4 * self.norm_tensors * self.hidden_size

    @classmethod
    def of_weights(cls, num_parameters: int, num_outputs: int = 32000) -> "ModelSize":
        """
        A language model of the usual shape, if no more is known than its size: `P = 12 L d^2 + 2 V d`, `L = d / 128`.

        Args:
            num_parameters (`int`):
                All weights.
            num_outputs (`int`, *optional*, defaults to `32000`):
                Size of the vocabulary.
        """
        hidden = (num_parameters * 128 / 12) ** (1 / 3)
        for _ in range(20):
            hidden = (max(1, num_parameters - 2 * num_outputs * hidden) * 128 / 12) ** (1 / 3)
        hidden = max(1, round(hidden))
        layers = max(1, round(hidden / 128))
        return cls(num_parameters, num_outputs * hidden, hidden, layers, 4 * hidden, hidden, num_outputs)

    @classmethod
    def of_config(cls, name_or_path: str) -> "ModelSize":
        """
        The sizes of a model from its configuration; no weight is read or allocated.

        Args:
            name_or_path (`str`):
                Folder, `config.json` or id.

        Raises:
            `ValueError`: If the configuration is not one of a transformer with the usual names of its sizes.
        """
        import torch
        import transformers
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(name_or_path)
        names = config.architectures
        if not names or not hasattr(transformers, names[0]):
            raise ValueError(
                f"The configuration of {name_or_path!r} names no architecture of transformers ({names}), so its head "
                "is unknown. Give the sizes instead: `num_parameters` and `vocab_size`."
            )
        with torch.device("meta"):
            model = getattr(transformers, names[0])(config)
        return cls.of_model(model)

    @classmethod
    def of_model(cls, model: Any) -> "ModelSize":
        """
        The sizes of a model.

        Args:
            model ([`~transformers.PreTrainedModel`]):
                The model, on any device, the meta device too. Of a model with an adapter the adapter is in scope.

        Raises:
            `ValueError`: If its configuration does not have the usual names of sizes.
        """
        from torch import nn

        from ..models.adapters.parameters import is_adapted
        from ..models.heads import base_model
        from ..models.scope import parameters_in_scope

        scope = parameters_in_scope(model, reset_scope="adapter" if is_adapted(model) else "full")
        bare = base_model(model)
        config = bare.config.get_text_config()
        hidden = getattr(config, "hidden_size", None)
        layers = getattr(config, "num_hidden_layers", None)
        if hidden is None or layers is None:
            raise ValueError(
                f"{type(bare).__name__} does not say its width and depth as `hidden_size` and `num_hidden_layers`. "
                "Give the sizes as numbers."
            )
        inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
        heads = getattr(config, "num_attention_heads", 1)
        shared = getattr(config, "num_key_value_heads", None) or heads
        head_size = getattr(config, "head_dim", None) or hidden // heads
        output = bare.get_output_embeddings()
        # PEFT wraps the tables it adapts.
        multiplied = None if output is None else getattr(output, "base_layer", output).weight
        tables = {m.weight for m in bare.modules() if isinstance(m, nn.Embedding) and m.weight is not multiplied}
        matrices = len(
            [m for name, m in bare.named_modules() if name.endswith(("gate_proj", "up_proj")) and hasattr(m, "weight")]
        )
        gated = matrices >= 2 * layers
        stepwise = getattr(config, "activation_function", None) == "gelu_new"
        norms = {type(module).__name__ for module in bare.modules() if hasattr(module, "weight")}
        return cls(
            num_parameters=sum(parameter.numel() for parameter in bare.parameters()),
            num_table_parameters=sum(table.numel() for table in tables),
            hidden_size=hidden,
            num_layers=layers,
            intermediate_size=inner,
            key_value_size=shared * head_size,
            num_outputs=0 if multiplied is None else len(multiplied),
            mlp_matrices=3 if gated else 2,
            mlp_tensors=4 if gated else 5 if stepwise else 2,
            norm_tensors=2 if any("RMSNorm" in name for name in norms) else 0,
            num_in_scope=sum(parameter.numel() for parameter in scope.values()),
        )

    def with_adapter(self, rank: int) -> "ModelSize":
        """
        The same with a LoRA adapter on all linear layers in scope.

        Args:
            rank (`int`):
                Its rank.
        """
        attention = 2 * 2 * self.hidden_size + 2 * (self.hidden_size + self.key_value_size)
        mlp = self.mlp_matrices * (self.hidden_size + self.intermediate_size)
        adapter = rank * self.num_layers * (attention + mlp)
        return replace(self, num_parameters=self.num_parameters + adapter, num_in_scope=adapter)


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    _argument_group_name = "job"

    num_forget_examples: int = field(metadata={"help": "Examples to forget, of one request."})
    num_retain_examples: int = field(metadata={"help": "Examples to keep."})
    tokens_per_example: int = field(metadata={"help": "Tokens of an example, padding included."})
    num_eval_examples: int = field(default=0, metadata={"help": "Examples of test data."})
    num_unseen_examples: int = field(default=0, metadata={"help": "Examples that no model saw."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the retain data in the repair."})
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps of the repair in the place of epochs."})
    reset_fraction: float = field(default=0.1, metadata={"help": "Share of the weights in scope that is reset."})
    reset_value: Literal["zero", "init", "pretrained"] = field(
        default="init", metadata={"help": "What they are reset to."}
    )
    fisher_batch_size: int = field(default=8, metadata={"help": "Examples per process in the Fisher pass."})
    train_batch_size: int = field(default=8, metadata={"help": "Examples per process in the repair."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches of the repair before each of its steps."}
    )
    eval_batch_size: int = field(default=8, metadata={"help": "Examples per process in the evaluation."})
    kept_fisher: bool = field(
        default=False,
        metadata={"help": "A Fisher of all training data was kept, so that none of the retain data is computed."},
    )
    with_reference: bool = field(default=False, metadata={"help": "A reference model is evaluated too."})
    random_mask_control: bool = field(default=False, metadata={"help": "A random mask is reset and repaired too."})

    def __post_init__(self) -> None:
        for name in ("num_forget_examples", "num_retain_examples", "tokens_per_example", *_BATCH_SIZES):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)} but must be at least 1.")
        if not 0 < self.reset_fraction <= 1:
            raise ValueError(f"`reset_fraction` is {self.reset_fraction} but must be above 0 and at most 1.")

    def in_single_examples(self) -> "Job":
        """The same job with batches of one example, and as many batches to a step as keep its size."""
        accumulated = self.gradient_accumulation_steps * self.train_batch_size
        return replace(self, **dict.fromkeys(_BATCH_SIZES, 1), gradient_accumulation_steps=accumulated)

    @property
    def num_evaluated(self) -> int:
        """Examples of one evaluation."""
        evaluated = self.num_eval_examples + self.num_unseen_examples
        return self.num_forget_examples + self.num_retain_examples + evaluated


_BATCH_SIZES = ("fisher_batch_size", "train_batch_size", "eval_batch_size")


@dataclass(frozen=True)
class Setting:
    """How it is done: precision, processes, and where things live."""

    _argument_group_name = "setting"

    dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "Of the model's weights."}
    )
    num_processes: int = field(default=1, metadata={"help": "Processes, each with a device and a part of the data."})
    sharded: bool = field(default=False, metadata={"help": "Weights and sums are divided among them (FSDP2)."})
    accumulator_device: Literal["device", "cpu"] = field(
        default="device", metadata={"help": "Where the sums of the Fisher information live."}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Keep the input of every layer alone and compute the rest twice."}
    )
    fisher_products: Literal["float32", "tf32", "bfloat16"] = field(
        default="float32", metadata={"help": "Precision in which the squared products are formed."}
    )

    def __post_init__(self) -> None:
        if self.num_processes < 1:
            raise ValueError(f"`num_processes` is {self.num_processes} but must be at least 1.")
        if self.sharded and self.num_processes == 1:
            raise ValueError("`sharded` divides the weights among processes, and `num_processes` is 1. Raise it.")


@dataclass(frozen=True)
class Device:
    """
    What a device achieves, which is not what its data sheet says.

    Args:
        name (`str`):
            Its name.
        memory (`float`):
            Bytes.
        flops_per_second (`dict[str, float]`):
            Achieved rate of matrix products by precision.
        bytes_per_second (`float`):
            Of its memory.
        link_bytes_per_second (`float`):
            From one device to another, and to the host.
        launch_seconds (`float`):
            Of a kernel.
    """

    name: str
    memory: float
    flops_per_second: Mapping[str, float]
    bytes_per_second: float
    link_bytes_per_second: float = math.inf
    host_bytes_per_second: float = math.inf
    launch_seconds: float = 0.0

    def rate(self, precision: str) -> float:
        """Achieved products and sums per second."""
        return self.flops_per_second[precision]

    def achieving(self, dtype: str, flops_per_second: float) -> "Device":
        """
        The same with another rate of products.

        Args:
            dtype (`str`):
                The precision whose rate is given.
            flops_per_second (`float`):
                The rate.
        """
        return replace(self, flops_per_second={**self.flops_per_second, dtype: flops_per_second})

    @classmethod
    def cpu(cls, flops_per_second: float, memory: float = math.inf) -> "Device":
        """
        A processor, whose rate has to be measured.

        Args:
            flops_per_second (`float`):
                That of matrix products in float32, see [`calibrate`]. Models get `0.95` of it.
            memory (`float`, *optional*):
                Bytes.
        """
        rates = dict.fromkeys(("float32", "tf32", "bfloat16", "float16"), _UTILISATION * flops_per_second)
        return cls("cpu", memory, rates, 1e10)


def _gpu(name: str, memory: float, bandwidth: float, half: float, tf32: float, single: float, link: float) -> Device:
    """Assumed, not measured: half of the data sheet's peak in products, and seven tenths of it in moving bytes."""
    rates = {"bfloat16": 0.5 * half, "float16": 0.5 * half, "tf32": 0.5 * tf32, "float32": 0.5 * single}
    return Device(name, memory, rates, 0.7 * bandwidth, 0.7 * link, 20e9, 5e-6)


DEVICES = {
    "h100-80gb": _gpu("h100-80gb", 80e9, 3.35e12, 989e12, 494e12, 67e12, 450e9),
    "a100-80gb": _gpu("a100-80gb", 80e9, 2.04e12, 312e12, 156e12, 19.5e12, 300e9),
    "cpu": Device.cpu(9e10),
}


@dataclass(frozen=True)
class Phase:
    """
    One phase of a run.

    Args:
        name (`str`): As in [`UnlearningReport`].
        seconds (`float`): On the clock.
        device_bytes (`dict[str, float]`): What lies on one device at the peak of the phase, by kind.
        host_bytes (`dict[str, float]`): What lies in the memory of the machine, for all processes of it.
    """

    name: str
    seconds: float
    device_bytes: dict[str, float]
    host_bytes: dict[str, float]

    @property
    def peak(self) -> float:
        """Bytes on one device."""
        return sum(self.device_bytes.values())

    @property
    def host_peak(self) -> float:
        """Bytes in the memory of the machine."""
        return sum(self.host_bytes.values())


@dataclass(frozen=True)
class Estimate:
    """The phases of a run in order, one entry for each name."""

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def peak(self) -> float:
        """Bytes on one device."""
        return max(phase.peak for phase in self.phases)

    @property
    def host_peak(self) -> float:
        """Bytes in the memory of the machine."""
        return max(phase.host_peak for phase in self.phases)

    def fits(self, memory: float) -> bool:
        """Whether one device of that many bytes is enough, of which the driver and fragmentation take a part."""
        return self.peak <= _USABLE * memory

    def rows(self) -> list[list[str]]:
        """The table, as rows of cells."""
        rows = [["phase", "seconds", "device GB", "of which", "host GB"]]
        for phase in self.phases:
            kinds = sorted(phase.device_bytes.items(), key=lambda item: -item[1])
            main = ", ".join(f"{kind} {gigabytes(size)}" for kind, size in kinds[:3])
            cells = [f"{phase.seconds:,.1f}", gigabytes(phase.peak), main, gigabytes(phase.host_peak)]
            rows.append([phase.name, *cells])
        return [*rows, ["run", f"{self.seconds:,.1f}", gigabytes(self.peak), "", gigabytes(self.host_peak)]]


def estimate(size: ModelSize, job: Job, setting: Setting, device: Device) -> Estimate:
    """
    Time and memory of a run, phase by phase.

    Args:
        size ([`ModelSize`]):
            The model.
        job ([`Job`]):
            What is to be done.
        setting ([`Setting`]):
            How.
        device ([`Device`]):
            Where.

    Returns:
        [`Estimate`]
    """
    return Estimate(tuple(Calculation(size, job, setting, device).phases()))


class Calculation:
    """The formulas of recipes/scale.md."""

    def __init__(self, size: ModelSize, job: Job, setting: Setting, device: Device) -> None:
        self.size, self.job, self.setting, self.device = size, job, setting, device
        self.bytes = _BYTES[setting.dtype]
        self.rate = device.rate(setting.dtype)
        self.shards = setting.num_processes if setting.sharded else 1
        self.selected = job.reset_fraction * size.scope
        self.forward = size.forward_flops(job.tokens_per_example) / self.rate + self._elementwise_seconds()
        self.products = size.weight_gradient_flops(job.tokens_per_example)
        self.is_host = device.name == "cpu"

    def phases(self) -> Iterator[Phase]:
        job = self.job
        stages = 3 + job.with_reference + 2 * job.random_mask_control
        repairs = 1 + job.random_mask_control
        yield self._phase("evaluation", stages * self._evaluation_seconds(), self._evaluation_bytes())
        yield self._phase("forget Fisher", self.fisher_seconds(job.num_forget_examples), self._fisher_bytes(1))
        retain = 0.0 if job.kept_fisher else self.fisher_seconds(job.num_retain_examples)
        yield self._phase("retain Fisher", retain, self._fisher_bytes(2))
        yield self._phase(
            "selection",
            _SELECTION_SECONDS * self.size.scope / self.shards,
            self._held(2) | {"ratios": _SELECTION_BYTES * min(_SELECTION_BLOCK, self.size.largest_parameter)},
            {"indices": 8 * self.selected},
        )
        yield self._phase("reset", repairs * self._reset_seconds(), self._held(0), self._reset_bytes())
        yield self._phase("repair", repairs * self._repair_seconds(), self._repair_bytes())

    def _phase(
        self, name: str, seconds: float, on_device: dict[str, float], on_host: dict[str, float] | None = None
    ) -> Phase:
        on_device, on_host = dict(on_device), dict(on_host or {})
        if self.setting.accumulator_device == "cpu" and "Fisher sums" in on_device:
            on_host["Fisher sums"] = on_device.pop("Fisher sums") * self.setting.num_processes
            on_device["block of sums"] = 4.0 * self.size.largest_parameter
        if self.is_host:
            on_device = on_device | on_host
            on_host = {}
        return Phase(name, seconds, on_device, on_host)

    # Time

    def _elementwise_seconds(self) -> float:
        """Of one example forward: activations and logits go through memory some times, whatever is multiplied."""
        size, tokens = self.size, self.job.tokens_per_example
        activations = _ACTIVATION_PASSES * size.num_layers * size.activation_bytes(self.bytes)
        moved = tokens * (activations + _LOGIT_PASSES * size.num_outputs * self.bytes)
        return moved / self.device.bytes_per_second

    def _share(self, num_examples: float) -> int:
        """Examples of one process."""
        return math.ceil(num_examples / self.setting.num_processes)

    def _num_batches(self, num_examples: float, batch_size: int) -> int:
        return math.ceil(num_examples / (batch_size * self.setting.num_processes))

    def _gather_seconds(self, times: int) -> float:
        """Of one batch under FSDP: every weight comes from the other processes, once per forward and per backward."""
        if self.shards == 1:
            return 0.0
        return times * self._exchanged(self.size.num_parameters * self.bytes)

    def _exchanged(self, num_bytes: float) -> float:
        """Seconds of an all-gather or a reduce-scatter; an all-reduce is both."""
        processes = self.setting.num_processes
        return num_bytes * (processes - 1) / processes / self.device.link_bytes_per_second

    def _evaluation_seconds(self) -> float:
        batches = self._num_batches(self.job.num_evaluated, self.job.eval_batch_size)
        return self._share(self.job.num_evaluated) * self.forward + batches * self._gather_seconds(1)

    def fisher_seconds(self, num_examples: int) -> float:
        setting, scope = self.setting, self.size.scope
        examples = num_examples + _SET_UP_EXAMPLES * setting.num_processes
        batches = self._num_batches(examples, self.job.fisher_batch_size)
        forwards = 2 + setting.gradient_checkpointing
        exact = self.products / self.device.rate(setting.fisher_products)
        launches = 2 * scope / _BLOCK_ELEMENTS * self.device.launch_seconds
        example = forwards * self.forward + max(exact, launches)
        seconds = self._share(examples) * example + batches * self._gather_seconds(2)
        if self.shards > 1:
            seconds += batches * self._exchanged(4.0 * scope)
        elif setting.num_processes > 1:
            seconds += 2 * self._exchanged(4.0 * scope)
        if setting.accumulator_device == "cpu" and not self.is_host:
            seconds += batches * 4.0 * scope / self.shards / self.device.host_bytes_per_second
        return seconds

    def _reset_seconds(self) -> float:
        """The fingerprint before, and a model to take values from."""
        built = 0.0 if self.job.reset_value == "zero" else self._built() / _INITIALISED_WEIGHTS_PER_SECOND
        return self._hash_seconds() + built

    def _hash_seconds(self) -> float:
        return self.size.num_parameters * self.bytes / _HASH_BYTES_PER_SECOND

    def _built(self) -> int:
        """Weights of the model that initial values come from: an adapter is drawn alone."""
        return min(self.size.scope, self.size.num_parameters) if self._is_adapter() else self.size.num_parameters

    def _is_adapter(self) -> bool:
        return self.size.scope < 0.5 * (self.size.num_parameters - self.size.num_table_parameters)

    def _repair_seconds(self) -> float:
        job, setting = self.job, self.setting
        examples = job.num_train_epochs * job.num_retain_examples
        batches = self._num_batches(examples, job.train_batch_size)
        if job.max_steps > 0:
            batches = job.max_steps * job.gradient_accumulation_steps
            examples = batches * job.train_batch_size * setting.num_processes
        steps = math.ceil(batches / job.gradient_accumulation_steps)
        example = (2 + setting.gradient_checkpointing) * self.forward + self.products / self.rate
        seconds = self._share(examples) * example + batches * self._gather_seconds(2)
        if setting.num_processes > 1:
            gradients = self._exchanged(self.size.scope * self.bytes)
            seconds += batches * gradients if setting.sharded else 2 * steps * gradients
        updates = steps * self.selected / self.shards * _OPTIMIZER_BYTES_MOVED / self.device.bytes_per_second
        return seconds + updates + self._hash_seconds()

    # Memory of one device

    def _held(self, sums: int) -> dict[str, float]:
        held = {"weights": self.size.num_parameters * self.bytes / self.shards}
        if self.shards > 1:
            held["gathered layers"] = 2.0 * self.size.layer_parameters * self.bytes
        if sums:
            held["Fisher sums"] = sums * 4.0 * self.size.scope / self.shards
        return held

    def _activations(self, batch_size: int) -> float:
        tokens = batch_size * self.job.tokens_per_example
        layer = tokens * self.size.activation_bytes(self.bytes)
        if self.setting.gradient_checkpointing:
            return layer + tokens * self.size.hidden_size * self.size.num_layers * self.bytes
        return layer * self.size.num_layers

    def _logits(self, batch_size: int) -> float:
        """The logits, and one tensor of their size beside them."""
        return 2.0 * batch_size * self.job.tokens_per_example * self.size.num_outputs * self.bytes

    def _evaluation_bytes(self) -> dict[str, float]:
        batch = self.job.eval_batch_size
        one_layer = batch * self.job.tokens_per_example * self.size.activation_bytes(self.bytes)
        return self._after_reset() | {"activations": one_layer / 2, "logits": self._logits(batch)}

    def _fisher_bytes(self, sums: int) -> dict[str, float]:
        batch, tokens = self.job.fisher_batch_size, self.job.tokens_per_example
        if self.is_host and self.size.num_outputs:
            batch = min(batch, max(2, _CACHE_BYTES // (self.bytes * tokens * self.size.num_outputs)))
        widest = self.size.hidden_size + max(self.size.intermediate_size, self.size.num_outputs)
        copies = 4.0 * batch * tokens * widest if self.bytes < 4 else 0.0
        passing = {"activations": self._activations(batch), "logits": self._logits(batch), "float32 copies": copies}
        if self.shards > 1:
            passing["squares of a layer"] = 4.0 * self.size.layer_parameters
        return self._held(sums) | passing

    def _reset_bytes(self) -> dict[str, float]:
        return {} if self.job.reset_value == "zero" else {"initial model": 4.0 * self._built()}

    def _after_reset(self) -> dict[str, float]:
        master = 4 if self.bytes < 4 else 0
        kept = self.selected * (8 + self.bytes) / self.shards
        return self._held(0) | {
            "optimizer": self.selected * (8 + master) / self.shards,
            "indices and old values": kept,
        }

    def _repair_bytes(self) -> dict[str, float]:
        batch = self.job.train_batch_size
        training = {"gradients": self.size.scope * self.bytes / self.shards}
        training |= {"activations": self._activations(batch), "logits": self._logits(batch)}
        if self.shards > 1:
            training["gradients of a layer"] = 1.0 * self.size.layer_parameters * self.bytes
        return self._after_reset() | training


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f}" if size >= 1e10 else f"{size / 1e9:,.2f}"


def calibrate(
    size: ModelSize,
    tokens: int,
    *,
    on_accelerator: bool = False,
    dtype: str = "float32",
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """
    The rate of matrix products on this machine: those of one linear layer of the model, forward and backward.

    Args:
        size ([`ModelSize`]):
            The model, which says how large the matrices are.
        tokens (`int`):
            Tokens of a batch.
        on_accelerator (`bool`, *optional*, defaults to `False`):
            Whether to measure the accelerator of this machine, not its processor.
        dtype (`str`, *optional*, defaults to `"float32"`):
            In which precision.
        seconds (`float`, *optional*, defaults to `2.0`):
            For how long.
        clock (`Callable`, *optional*):
            Says the seconds, by default those on the clock.

    Returns:
        `float`: Floating-point operations per second.

    Raises:
        `ValueError`: If there is no accelerator to measure.
    """
    import torch

    if on_accelerator and not torch.accelerator.is_available():
        raise ValueError(
            "There is no accelerator on this machine to calibrate. Run the calibration where the job is to run, give "
            "`flops_per_second`, or do without: the rates are then assumptions."
        )
    device = torch.accelerator.current_accelerator() if on_accelerator else torch.device("cpu")
    inputs = torch.randn(tokens, size.hidden_size, device=device, dtype=getattr(torch, dtype))
    weight = torch.randn(size.intermediate_size, size.hidden_size, device=device, dtype=inputs.dtype)
    gradients = inputs @ weight.T

    def products(duration: float) -> float:
        """Operations per second."""
        count, end, start = 0, time.perf_counter() + duration, clock()
        while time.perf_counter() < end:
            for _ in range(4):
                inputs @ weight.T
                gradients @ weight
                gradients.T @ inputs
            if on_accelerator:
                torch.accelerator.synchronize()
            count += 4
        return 6.0 * count * inputs.numel() * size.intermediate_size / (clock() - start)

    # The first products of a process are slower.
    products(seconds / 4)
    return products(seconds)
