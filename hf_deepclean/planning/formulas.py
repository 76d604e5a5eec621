# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of an unlearning run on paper, by the formulas of recipes/scale.md."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .device import Device, Job, Setting
from .model_size import ModelSize


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

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
