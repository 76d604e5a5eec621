# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The rates that a device achieves, and their measurement."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .model_size import ModelSize


# Fitted to the calibration runs of tests/benchmarks/scale.py (BERT and Llama on one CPU thread).
_UTILISATION = 0.95


@dataclass(frozen=True)
class Device:
    """
    Memory and achieved rates of a device. Achieved rates are lower than the peak rates of a data sheet.

    Args:
        name (`str`):
            Name of the device.
        memory (`float`):
            Memory in bytes.
        flops_per_second (`dict[str, float]`):
            Achieved floating-point operations per second in matrix products, by precision.
        bytes_per_second (`float`):
            Achieved bandwidth of the device's memory.
        link_bytes_per_second (`float`, *optional*):
            Achieved bandwidth from one device to another.
        host_bytes_per_second (`float`, *optional*):
            Achieved bandwidth between the device and the host.
        launch_seconds (`float`, *optional*):
            Time to launch a kernel.
    """

    name: str
    memory: float
    flops_per_second: Mapping[str, float]
    bytes_per_second: float
    link_bytes_per_second: float = math.inf
    host_bytes_per_second: float = math.inf
    launch_seconds: float = 0.0

    def rate(self, precision: str) -> float:
        """Achieved floating-point operations per second in matrix products of a precision."""
        return self.flops_per_second[precision]

    def achieving(self, dtype: str, flops_per_second: float) -> "Device":
        """
        The same device with another rate of matrix products.

        Args:
            dtype (`str`):
                The precision.
            flops_per_second (`float`):
                Floating-point operations per second in that precision.
        """
        return replace(self, flops_per_second={**self.flops_per_second, dtype: flops_per_second})

    @classmethod
    def cpu(cls, flops_per_second: float, memory: float = math.inf) -> "Device":
        """
        A CPU, whose rate has to be measured.

        Args:
            flops_per_second (`float`):
                Rate of float32 matrix products, as measured by [`calibrate`]. Models achieve 0.95 of it.
            memory (`float`, *optional*):
                Memory in bytes, by default unlimited.
        """
        rates = dict.fromkeys(("float32", "tf32", "bfloat16", "float16"), _UTILISATION * flops_per_second)
        return cls("cpu", memory, rates, 1e10)


def _gpu(name: str, memory: float, bandwidth: float, half: float, tf32: float, single: float, link: float) -> Device:
    """Assumes, without measurement, half of the data sheet's peak in matrix products and 70 % of its bandwidths."""
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
    Measures the rate of matrix products on this machine, by the forward and backward pass of one linear layer.

    Args:
        size ([`ModelSize`]):
            The model, whose sizes the matrices have.
        tokens (`int`):
            Number of tokens in a batch.
        on_accelerator (`bool`, *optional*, defaults to `False`):
            Whether to measure the accelerator instead of the CPU.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Precision of the products.
        seconds (`float`, *optional*, defaults to `2.0`):
            Duration of the measurement.
        clock (`Callable`, *optional*):
            Returns the current time in seconds, by default that of the wall clock.

    Returns:
        `float`: Floating-point operations per second.

    Raises:
        `ValueError`: If there is no accelerator to measure.
    """
    import torch

    if on_accelerator and not torch.accelerator.is_available():
        raise ValueError(
            "There is no accelerator on this machine to calibrate. Calibrate on the machine of the run, pass "
            "`flops_per_second`, or do without: the rates are then assumptions."
        )
    device = torch.accelerator.current_accelerator() if on_accelerator else torch.device("cpu")
    inputs = torch.randn(tokens, size.hidden_size, device=device, dtype=getattr(torch, dtype))
    weight = torch.randn(size.intermediate_size, size.hidden_size, device=device, dtype=inputs.dtype)
    gradients = inputs @ weight.T

    def measure(duration: float) -> float:
        """Returns operations per second."""
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

    # Warm-up: the first products of a process are slower.
    measure(seconds / 4)
    return measure(seconds)
