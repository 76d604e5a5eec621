# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has to do, how it is done, and what the device achieves."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .model_size import ModelSize


# Fitted to the calibration runs of tests/benchmarks/scale.py, BERT and Llama on one thread of a CPU.
_UTILISATION = 0.95


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
