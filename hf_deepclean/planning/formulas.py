# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The formulas for time and memory of a run, which recipes/scale.md explains."""

import math
from collections.abc import Iterator

from .device import Device
from .job import Job, Setting
from .model_size import ModelSize
from .run_estimate import Phase, RunEstimate


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Fitted to the calibration runs of tests/benchmarks/scale.py: how often a forward pass moves the activations and the
# logits through memory, and the examples that the checks at the start of a Fisher pass cost.
_ACTIVATION_PASSES = 4
_LOGIT_PASSES = 15
_SET_UP_EXAMPLES = 9

# Measured separately on one thread.
_SELECTION_SECONDS = 8e-8
_HASH_BYTES_PER_SECOND = 1.2e9
_INITIALISED_WEIGHTS_PER_SECOND = 1e8
_OPTIMIZER_BYTES_MOVED = 120

# Bytes per weight of a block: the ratios in float64, and their copies for the threshold.
_SELECTION_BYTES = 40
_SELECTION_BLOCK = 2**24
# Squared products are computed in blocks of this many elements, with two kernels per block and example.
_BLOCK_ELEMENTS = 2**20
# On a CPU the Fisher pass limits the logits of the examples that it runs together to this size, but runs at least two.
_CACHE_BYTES = 2**25


def estimate_run(size: ModelSize, job: Job, setting: Setting, device: Device) -> RunEstimate:
    """
    Estimates time and memory of a run, phase by phase.

    Args:
        size ([`ModelSize`]):
            The sizes of the model.
        job ([`Job`]):
            What the run has to do.
        setting ([`Setting`]):
            Precision, processes and where the tensors are kept.
        device ([`Device`]):
            The device of every process.

    Returns:
        [`RunEstimate`]: The phases of the run.
    """
    return RunEstimate(tuple(RunFormulas(size, job, setting, device).phases()))


class RunFormulas:
    """
    The formulas for one run.

    Args:
        size, job, setting, device:
            As for [`estimate_run`].
    """

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
        """Yields the phases in the order of the run."""
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
        """Time to move activations and logits through memory in the forward pass of one example."""
        size, tokens = self.size, self.job.tokens_per_example
        activations = _ACTIVATION_PASSES * size.num_layers * size.activation_bytes(self.bytes)
        moved = tokens * (activations + _LOGIT_PASSES * size.num_outputs * self.bytes)
        return moved / self.device.bytes_per_second

    def _share(self, num_examples: float) -> int:
        """Number of examples of one process."""
        return math.ceil(num_examples / self.setting.num_processes)

    def _num_batches(self, num_examples: float, batch_size: int) -> int:
        return math.ceil(num_examples / (batch_size * self.setting.num_processes))

    def _gather_seconds(self, times: int) -> float:
        """Time to gather all weights from the other processes (FSDP), `times` times for one batch."""
        if self.shards == 1:
            return 0.0
        return times * self._exchanged(self.size.num_parameters * self.bytes)

    def _exchanged(self, num_bytes: float) -> float:
        """Time of an all-gather or a reduce-scatter; an all-reduce is both."""
        processes = self.setting.num_processes
        return num_bytes * (processes - 1) / processes / self.device.link_bytes_per_second

    def _evaluation_seconds(self) -> float:
        batches = self._num_batches(self.job.num_evaluated, self.job.eval_batch_size)
        return self._share(self.job.num_evaluated) * self.forward + batches * self._gather_seconds(1)

    def fisher_seconds(self, num_examples: int) -> float:
        """Time of a Fisher pass over `num_examples` examples."""
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
        """Time of the fingerprint before the reset, and of building the model that holds the reset values."""
        built = 0.0 if self.job.reset_value == "zero" else self._built() / _INITIALISED_WEIGHTS_PER_SECOND
        return self._hash_seconds() + built

    def _hash_seconds(self) -> float:
        return self.size.num_parameters * self.bytes / _HASH_BYTES_PER_SECOND

    def _built(self) -> int:
        """Number of weights of the model that holds the reset values; of an adapter only its own are built."""
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
        """Memory of the logits and of one more tensor of their size."""
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
