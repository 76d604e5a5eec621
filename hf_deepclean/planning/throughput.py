# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""How many deletion requests a day a device can answer."""

from dataclasses import dataclass, replace

from .device import Device
from .formulas import RunFormulas, estimate_run
from .job import Job, Setting
from .model_size import ModelSize


SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Throughput:
    """
    The time that the requests of a day take.

    Args:
        one_by_one (`float`):
            Seconds of a run for one request.
        requests_per_day (`float`):
            Number of such runs that a day has time for.
        merged (`float`):
            Seconds of one run for all requests of a day.
        refresh (`float`):
            Seconds to compute the Fisher of all training data at new weights.
    """

    one_by_one: float
    requests_per_day: float
    merged: float
    refresh: float


def estimate_throughput(size: ModelSize, job: Job, setting: Setting, device: Device, num_requests: int) -> Throughput:
    """
    Estimates the time of requests that are answered one by one, and of all requests of a day in one run.

    Args:
        size, job, setting, device:
            As for [`estimate_run`]; `job` is that of one request.
        num_requests (`int`):
            Number of requests a day, each with `job.num_forget_examples` examples of its own.

    Returns:
        [`Throughput`]: The times.

    Raises:
        `ValueError`: If the requests leave no example to keep.
    """
    single = estimate_run(size, job, setting, device).seconds
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
        SECONDS_PER_DAY / single,
        estimate_run(size, together, setting, device).seconds,
        RunFormulas(size, everything, setting, device).fisher_seconds(everything.num_retain_examples),
    )
