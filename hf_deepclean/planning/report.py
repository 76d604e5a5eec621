# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a run fits a device, which setting is the cheapest that does, and how many requests a day holds."""

import math
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from ..report.tables import aligned
from .device import Device, Job, Setting
from .formulas import Calculation, Estimate, estimate, gigabytes
from .model_size import ModelSize


_SECONDS_PER_DAY = 86400
_NUM_SHOWN = 6


@dataclass(frozen=True)
class Alternative:
    """A setting, what it costs, and whether it fits."""

    setting: Setting
    job: Job
    estimate: Estimate
    fits: bool

    @property
    def device_seconds(self) -> float:
        """Seconds times devices, which is what a run costs."""
        return self.estimate.seconds * self.setting.num_processes

    def row(self) -> list[str]:
        """The row of the table."""
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


_HEAD = ["weights", "sums on", "activations", "batch", "seconds", "device GB", "host GB", "fits"]


def alternatives(
    size: ModelSize, job: Job, setting: Setting, device: Device, memory: float, host_memory: float = math.inf
) -> list[Alternative]:
    """
    The ways to do the same job on as many devices: weights sharded or not, sums on the device or the host, activations
    kept or checkpointed, batches as given or of one example. Those that fit by cost, then the others by memory.

    Args:
        size ([`ModelSize`]):
            The model.
        job ([`Job`]):
            What is to be done.
        setting ([`Setting`]):
            Precision and processes; the rest of it is varied.
        device ([`Device`]):
            Where.
        memory (`float`):
            Bytes of a device.
        host_memory (`float`, *optional*):
            Bytes of the machine.
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
        outcome = estimate(size, batches, other, device)
        fits = outcome.fits(memory) and outcome.host_peak <= host_memory
        found.append(Alternative(other, batches, outcome, fits))
    fitting = sorted((o for o in found if o.fits), key=lambda other: (other.device_seconds, other.estimate.peak))
    return fitting + sorted((o for o in found if not o.fits), key=lambda other: other.estimate.peak)


@dataclass(frozen=True)
class Throughput:
    """
    What a day holds.

    Args:
        one_by_one (`float`):
            Seconds of a run for one request.
        requests_per_day (`float`):
            How many such runs a day holds.
        merged (`float`):
            Seconds of one run for all requests of a day.
        refresh (`float`):
            Seconds of the Fisher information of all training data at new weights.
    """

    one_by_one: float
    requests_per_day: float
    merged: float
    refresh: float


def throughput(size: ModelSize, job: Job, setting: Setting, device: Device, num_requests: int) -> Throughput:
    """
    Requests one by one, and all of a day in one run.

    Args:
        size ([`ModelSize`]):
            The model.
        job ([`Job`]):
            What is to be done for one request.
        setting ([`Setting`]):
            How.
        device ([`Device`]):
            Where.
        num_requests (`int`):
            Requests of a day, of `job.num_forget_examples` each, which are disjoint.

    Raises:
        `ValueError`: If the requests leave nothing to keep.
    """
    single = estimate(size, job, setting, device).seconds
    more = (num_requests - 1) * job.num_forget_examples
    if job.num_retain_examples <= more:
        raise ValueError(
            f"{num_requests:,} requests of {job.num_forget_examples:,} examples forget more than the "
            f"{job.num_forget_examples + job.num_retain_examples:,} examples there are. Lower one of the two."
        )
    together = replace(
        job,
        num_forget_examples=job.num_forget_examples + more,
        num_retain_examples=job.num_retain_examples - more,
    )
    everything = replace(job, num_retain_examples=job.num_retain_examples + job.num_forget_examples)
    return Throughput(
        single,
        _SECONDS_PER_DAY / single,
        estimate(size, together, setting, device).seconds,
        Calculation(size, everything, setting, device).fisher_seconds(everything.num_retain_examples),
    )


@dataclass(frozen=True)
class EstimateReport:
    """
    What `hf-deepclean estimate` says.

    Args:
        size ([`ModelSize`]): The model.
        job ([`Job`]): What is to be done.
        setting ([`Setting`]): How.
        device ([`Device`]): Where.
        estimate ([`Estimate`]): Time and memory.
        alternatives (`list[Alternative]`): Other ways to do it, the cheapest that fits first.
        num_devices_needed (`int`, *optional*): If none fits, the smallest power of two of devices that does.
        throughput ([`Throughput`], *optional*): What a day holds.
    """

    size: ModelSize
    job: Job
    setting: Setting
    device: Device
    estimate: Estimate
    alternatives: list[Alternative]
    num_devices_needed: int | None = None
    throughput: Throughput | None = None

    @classmethod
    def of(
        cls,
        size: ModelSize,
        job: Job,
        setting: Setting,
        device: Device,
        host_memory: float = math.inf,
        requests_per_day: int | None = None,
    ) -> "EstimateReport":
        """
        Computes everything.

        Args:
            size, job, setting, device:
                As for [`estimate`].
            host_memory (`float`, *optional*):
                Bytes of the machine.
            requests_per_day (`int`, *optional*):
                Requests to say the time of.
        """
        others = alternatives(size, job, setting, device, device.memory, host_memory)
        return cls(
            size,
            job,
            setting,
            device,
            estimate(size, job, setting, device),
            others,
            None if others[0].fits else _num_devices_needed(size, job, setting, device),
            None if requests_per_day is None else throughput(size, job, setting, device, requests_per_day),
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types; bytes and seconds."""
        phases = [asdict(phase) | {"peak": phase.peak} for phase in self.estimate.phases]
        return {
            "model": asdict(self.size),
            "job": asdict(self.job),
            "setting": asdict(self.setting),
            "device": asdict(self.device) | {"memory": _finite(self.device.memory)},
            "phases": phases,
            "seconds": self.estimate.seconds,
            "device_bytes": self.estimate.peak,
            "host_bytes": self.estimate.host_peak,
            "fits": self.estimate.fits(self.device.memory),
            "alternatives": [
                asdict(other.setting)
                | {"train_batch_size": other.job.train_batch_size, "seconds": other.estimate.seconds}
                | {"device_bytes": other.estimate.peak, "host_bytes": other.estimate.host_peak, "fits": other.fits}
                for other in self.alternatives
            ],
            "num_devices_needed": self.num_devices_needed,
            "throughput": None if self.throughput is None else asdict(self.throughput),
        }

    def __str__(self) -> str:
        size, memory = self.size, self.device.memory
        of_memory = "" if math.isinf(memory) else f" of {memory / 1e9:,.0f} GB"
        devices = f"{self.setting.num_processes} x {self.device.name}{of_memory}"
        lines = [
            f"{size.num_parameters:,} weights, {size.scope:,} in scope, in {self.setting.dtype}, on {devices}.",
            "",
            *aligned(self.estimate.rows()),
        ]
        if not math.isinf(memory):
            fits = "fits" if self.estimate.fits(memory) else "does not fit"
            lines += [
                "",
                f"This {fits}.",
                "",
                *aligned([_HEAD, *(other.row() for other in self.alternatives[:_NUM_SHOWN])]),
            ]
            lines += ["", self._advice()]
        if self.throughput is not None:
            lines += ["", *self._daily()]
        return "\n".join(line.rstrip() for line in lines)

    def _advice(self) -> str:
        best = self.alternatives[0]
        if best.fits:
            return (
                f"Cheapest that fits: {best.estimate.seconds:,.0f} s, {gigabytes(best.estimate.peak)} GB per device "
                f"and {gigabytes(best.estimate.host_peak)} GB of the host; the first row above."
            )
        if self.num_devices_needed is None:
            return "No number of devices makes it fit. Use an adapter, or shorter examples."
        return f"None fits. Sharded, it needs {self.num_devices_needed} devices; or use an adapter."

    def _daily(self) -> list[str]:
        day = self.throughput
        kept = " (with the kept Fisher)" if self.job.kept_fisher else ""
        verdict = "more than" if day.merged > _SECONDS_PER_DAY else f"{day.merged / _SECONDS_PER_DAY:.1%} of"
        return [
            f"One by one{kept}: {day.one_by_one:,.0f} s each, {day.requests_per_day:,.1f} a day.",
            f"All requests of a day in one run{kept}: {day.merged:,.0f} s, {verdict} the day.",
            f"Fisher of all training data at new weights: {day.refresh:,.0f} s.",
        ]


def _num_devices_needed(size: ModelSize, job: Job, setting: Setting, device: Device) -> int | None:
    single = job.in_single_examples()
    for devices in (2**power for power in range(1, 11)):
        other = replace(setting, num_processes=devices, sharded=True, gradient_checkpointing=True)
        if estimate(size, single, other, device).fits(device.memory):
            return devices
    return None


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
