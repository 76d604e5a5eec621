# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What `hf-deepclean estimate` prints."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..report.tables import align_columns
from .alternatives import Alternative, find_alternatives, num_devices_needed
from .device import Device
from .formulas import estimate_run
from .job import Job, Setting
from .model_size import ModelSize
from .run_estimate import RunEstimate, gigabytes
from .throughput import SECONDS_PER_DAY, Throughput, estimate_throughput


# Number of alternatives in the table.
_NUM_SHOWN = 6


@dataclass(frozen=True)
class EstimateReport:
    """
    What `hf-deepclean estimate` prints.

    Args:
        size ([`ModelSize`]): The sizes of the model.
        job ([`Job`]): What the run has to do.
        setting ([`Setting`]): Precision, processes and where the tensors are kept.
        device ([`Device`]): The device of every process.
        estimate ([`RunEstimate`]): Time and memory of the run.
        alternatives (`list[Alternative]`): Other settings for the same job, the cheapest that fits first.
        num_devices_needed (`int`, *optional*): If none of them fits, the number of devices that a sharded run needs.
        throughput ([`Throughput`], *optional*): The time that the requests of a day take.
    """

    size: ModelSize
    job: Job
    setting: Setting
    device: Device
    estimate: RunEstimate
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
        Computes the report.

        Args:
            size, job, setting, device:
                As for [`estimate_run`].
            host_memory (`float`, *optional*):
                Memory of the host in bytes, by default unlimited.
            requests_per_day (`int`, *optional*):
                Number of requests a day to estimate the time of.
        """
        others = find_alternatives(size, job, setting, device, device.memory, host_memory)
        return cls(
            size,
            job,
            setting,
            device,
            estimate_run(size, job, setting, device),
            others,
            None if others[0].fits else num_devices_needed(size, job, setting, device),
            None if requests_per_day is None else estimate_throughput(size, job, setting, device, requests_per_day),
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types, in bytes and seconds."""
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
            *align_columns(self.estimate.rows()),
        ]
        if not math.isinf(memory):
            fits = "fits" if self.estimate.fits(memory) else "does not fit"
            lines += [
                "",
                f"This {fits}.",
                "",
                *align_columns([[*Alternative.HEAD], *(other.row() for other in self.alternatives[:_NUM_SHOWN])]),
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
        verdict = "more than" if day.merged > SECONDS_PER_DAY else f"{day.merged / SECONDS_PER_DAY:.1%} of"
        return [
            f"One by one{kept}: {day.one_by_one:,.0f} s each, {day.requests_per_day:,.1f} a day.",
            f"All requests of a day in one run{kept}: {day.merged:,.0f} s, {verdict} the day.",
            f"Fisher of all training data at new weights: {day.refresh:,.0f} s.",
        ]


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
