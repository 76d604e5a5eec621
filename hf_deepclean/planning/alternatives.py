# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Other settings for the same job, and which of them fit the devices."""

import math
from dataclasses import dataclass, replace
from itertools import product

from .device import Device
from .formulas import estimate_run
from .job import Job, Setting
from .model_size import ModelSize
from .run_estimate import RunEstimate, gigabytes


@dataclass(frozen=True)
class Alternative:
    """
    A setting, its cost, and whether it fits.

    Args:
        setting ([`Setting`]): The setting.
        job ([`Job`]): The job, with its batch sizes.
        estimate ([`RunEstimate`]): Time and memory.
        fits (`bool`): Whether the memory of the devices and of the host is enough.
    """

    HEAD = ("weights", "sums on", "activations", "batch", "seconds", "device GB", "host GB", "fits")

    setting: Setting
    job: Job
    estimate: RunEstimate
    fits: bool

    @property
    def device_seconds(self) -> float:
        """Seconds times devices, which is the cost of a run."""
        return self.estimate.seconds * self.setting.num_processes

    def row(self) -> list[str]:
        """The row of the table, with the columns of `HEAD`."""
        setting = self.setting
        return [
            "sharded" if setting.sharded else "replicated",
            setting.accumulator_device,
            "checkpointed" if setting.gradient_checkpointing else "kept",
            str(self.job.train_batch_size),
            f"{self.estimate.seconds:,.1f}",
            gigabytes(self.estimate.peak),
            gigabytes(self.estimate.host_peak),
            "yes" if self.fits else "no",
        ]


def find_alternatives(
    size: ModelSize, job: Job, setting: Setting, device: Device, memory: float, host_memory: float = math.inf
) -> list[Alternative]:
    """
    Estimates all ways to do a job on the same number of devices: weights replicated or sharded, Fisher sums on the
    device or the host, activations kept or checkpointed, batches as given or of one example.

    Args:
        size, job, setting, device:
            As for [`estimate_run`]. The alternatives keep the precision and the number of processes of
            `setting`.
        memory (`float`):
            Memory of one device in bytes.
        host_memory (`float`, *optional*):
            Memory of the host in bytes, by default unlimited.

    Returns:
        `list[Alternative]`: First the alternatives that fit, the cheapest first; then the others, the smallest first.
    """
    single = job.in_single_examples()
    found = []
    for sharded, sums, checkpointed, batches in product(
        (False, True) if setting.num_processes > 1 else (False,),
        ("device",) if device.name == "cpu" else ("device", "cpu"),
        (False, True),
        (job, single) if single != job else (job,),
    ):
        other = replace(setting, sharded=sharded, accumulator_device=sums, gradient_checkpointing=checkpointed)
        outcome = estimate_run(size, batches, other, device)
        fits = outcome.fits(memory) and outcome.host_peak <= host_memory
        found.append(Alternative(other, batches, outcome, fits))
    fitting = sorted((o for o in found if o.fits), key=lambda other: (other.device_seconds, other.estimate.peak))
    return fitting + sorted((o for o in found if not o.fits), key=lambda other: other.estimate.peak)


def num_devices_needed(size: ModelSize, job: Job, setting: Setting, device: Device) -> int | None:
    """The smallest power of two, up to 1,024, of devices that a sharded run fits; `None` if it fits none."""
    single = job.in_single_examples()
    for devices in (2**power for power in range(1, 11)):
        other = replace(setting, num_processes=devices, sharded=True, gradient_checkpointing=True)
        if estimate_run(size, single, other, device).fits(device.memory):
            return devices
    return None
