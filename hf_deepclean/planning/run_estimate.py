# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The estimated time and memory of a run, phase by phase."""

from dataclasses import dataclass


# The share of a device's memory that is left by the driver and fragmentation.
_USABLE = 0.93


@dataclass(frozen=True)
class Phase:
    """
    Time and memory of one phase of a run.

    Args:
        name (`str`): Name of the phase, as in [`UnlearningReport`].
        seconds (`float`): Wall-clock seconds.
        device_bytes (`dict[str, float]`): Memory of one device at the peak of the phase, by kind of tensor.
        host_bytes (`dict[str, float]`): Memory of the host for all of its processes, by kind of tensor.
    """

    name: str
    seconds: float
    device_bytes: dict[str, float]
    host_bytes: dict[str, float]

    @property
    def peak(self) -> float:
        """Peak memory of one device in bytes."""
        return sum(self.device_bytes.values())

    @property
    def host_peak(self) -> float:
        """Peak memory of the host in bytes."""
        return sum(self.host_bytes.values())


@dataclass(frozen=True)
class RunEstimate:
    """
    Time and memory of a run.

    Args:
        phases (`tuple[Phase]`): The phases in the order of the run; phases of the same name are summed up in one.
    """

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def peak(self) -> float:
        """Peak memory of one device in bytes."""
        return max(phase.peak for phase in self.phases)

    @property
    def host_peak(self) -> float:
        """Peak memory of the host in bytes."""
        return max(phase.host_peak for phase in self.phases)

    def fits(self, memory: float) -> bool:
        """Whether the run fits a device of `memory` bytes, 7 % of which the driver and fragmentation take."""
        return self.peak <= _USABLE * memory

    def rows(self) -> list[list[str]]:
        """The table of the phases, as rows of cells."""
        rows = [["phase", "seconds", "device GB", "of which", "host GB"]]
        for phase in self.phases:
            kinds = sorted(phase.device_bytes.items(), key=lambda item: -item[1])
            largest = ", ".join(f"{kind} {gigabytes(size)}" for kind, size in kinds[:3])
            cells = [f"{phase.seconds:,.1f}", gigabytes(phase.peak), largest, gigabytes(phase.host_peak)]
            rows.append([phase.name, *cells])
        return [*rows, ["run", f"{self.seconds:,.1f}", gigabytes(self.peak), "", gigabytes(self.host_peak)]]


def gigabytes(size: float) -> str:
    """A number of bytes in GB, with three or more digits."""
    return f"{size / 1e9:,.1f}" if size >= 1e10 else f"{size / 1e9:,.2f}"
