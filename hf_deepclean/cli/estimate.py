# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-deepclean estimate`: time and memory of a run, from the configuration of the model alone."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from .lazy import add_lazy_parser


if TYPE_CHECKING:
    from ..planning.device import Device
    from ..planning.job import Job, Setting
    from ..planning.model_size import ModelSize

DESCRIPTION = "Estimate how long a run takes and what memory it needs, without weights or data"


@dataclass
class EstimateArguments:
    """The size of the model, the device, and what is printed."""

    _argument_group_name = "model and device"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder, config.json or Hub id of the model; only its configuration is read."}
    )
    num_parameters: float | None = field(
        default=None,
        metadata={"help": "Number of weights of a language model of the usual shape, in place of the configuration."},
    )
    vocab_size: int = field(default=32000, metadata={"help": "Size of the vocabulary, with --num_parameters."})
    adapter_rank: int | None = field(
        default=None, metadata={"help": "Rank of a LoRA adapter on all linear layers, which alone is in scope."}
    )
    device: Literal["h100-80gb", "a100-80gb", "cpu"] = field(
        default="cpu",
        metadata={"help": "The device; its rates are assumptions unless --calibrate or --flops_per_second is given."},
    )
    flops_per_second: float | None = field(
        default=None, metadata={"help": "Rate of matrix products that the device achieves in the model's precision."}
    )
    calibrate: bool = field(default=False, metadata={"help": "Measure that rate on this machine in three seconds."})
    device_memory: float | None = field(
        default=None, metadata={"help": "Memory of one device in GB; by default that of --device."}
    )
    host_memory: float | None = field(
        default=None, metadata={"help": "Memory of the machine in GB; by default unlimited."}
    )
    requests_per_day: int | None = field(
        default=None,
        metadata={"help": "Also estimate this many requests a day, each of --num_forget_examples examples."},
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})


def add_parser(commands: Any) -> None:
    """Adds the command."""
    add_lazy_parser(commands, "estimate", DESCRIPTION, run_estimate)


def run_estimate(arguments: Sequence[str]) -> None:
    """Prints the estimate as a table or as JSON."""
    from ..planning.job import Job, Setting
    from ..planning.report import EstimateReport
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (EstimateArguments, Job, Setting),
        prog="hf-deepclean estimate",
        description=f"{DESCRIPTION}.",
    )
    estimate_arguments, job, setting = parser.parse_args_and_config(arguments)
    if (estimate_arguments.model_name_or_path is None) == (estimate_arguments.num_parameters is None):
        parser.error("Give the size of the model, either as --model_name_or_path or as --num_parameters.")
    size = _model_size(estimate_arguments)
    device = _device(estimate_arguments, size, job, setting)
    host_memory = math.inf if estimate_arguments.host_memory is None else 1e9 * estimate_arguments.host_memory
    report = EstimateReport.of(size, job, setting, device, host_memory, estimate_arguments.requests_per_day)
    print(json.dumps(report.to_dict(), indent=2) if estimate_arguments.json else report)


def _model_size(arguments: EstimateArguments) -> "ModelSize":
    from ..planning.model_size import ModelSize

    if arguments.model_name_or_path is not None:
        size = ModelSize.of_config(arguments.model_name_or_path)
    else:
        size = ModelSize.of_weights(int(arguments.num_parameters), arguments.vocab_size)
    return size if arguments.adapter_rank is None else size.with_adapter(arguments.adapter_rank)


def _device(arguments: EstimateArguments, size: "ModelSize", job: "Job", setting: "Setting") -> "Device":
    from ..planning.device import DEVICES, Device, calibrate

    device, rate = DEVICES[arguments.device], arguments.flops_per_second
    if arguments.calibrate:
        tokens = job.train_batch_size * job.tokens_per_example
        rate = calibrate(size, tokens, on_accelerator=arguments.device != "cpu", dtype=setting.dtype)
    if rate is not None:
        device = Device.cpu(rate) if arguments.device == "cpu" else device.achieving(setting.dtype, rate)
    if arguments.device_memory is not None:
        device = replace(device, memory=1e9 * arguments.device_memory)
    return device
