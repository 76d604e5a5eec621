# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The command `hf-deepclean`: the same code as the recipes, for a model and data of your own."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .models import COMMANDS


@dataclass
class EstimateArguments:
    """Of what size the model is, what it runs on, and what is shown."""

    _argument_group_name = "model and device"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder, config.json or Hub id of the model; only its configuration is read."}
    )
    num_parameters: float | None = field(
        default=None, metadata={"help": "Or: its number of weights, for a language model of the usual shape."}
    )
    vocab_size: int = field(default=32000, metadata={"help": "Its vocabulary, with --num_parameters."})
    adapter_rank: int | None = field(
        default=None, metadata={"help": "Only a LoRA adapter of this rank on all linear layers is in scope."}
    )
    device: Literal["h100-80gb", "a100-80gb", "cpu"] = field(
        default="cpu", metadata={"help": "What it runs on; without --calibrate its rates are assumptions."}
    )
    flops_per_second: float | None = field(
        default=None, metadata={"help": "What the device achieves in products of the model's precision."}
    )
    calibrate: bool = field(default=False, metadata={"help": "Measure that on this machine in three seconds."})
    device_memory: float | None = field(default=None, metadata={"help": "GB of one device; default: by its name."})
    host_memory: float | None = field(default=None, metadata={"help": "GB of the machine; default: unlimited."})
    requests_per_day: int | None = field(
        default=None, metadata={"help": "Also say what so many requests of --num_forget_examples each take."}
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})


def run_estimate(arguments: Sequence[str]) -> None:
    from ..planning.device import DEVICES, Device, Job, Setting, calibrate
    from ..planning.model_size import ModelSize
    from ..planning.report import EstimateReport
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (EstimateArguments, Job, Setting),
        prog="hf-deepclean estimate",
        description=f"{COMMANDS['estimate'].capitalize()}.",
    )
    of_device, job, setting = parser.parse_args_and_config(arguments)
    if (of_device.model_name_or_path is None) == (of_device.num_parameters is None):
        parser.error("Give the size of the model, either as --model_name_or_path or as --num_parameters.")
    if of_device.model_name_or_path is not None:
        size = ModelSize.of_config(of_device.model_name_or_path)
    else:
        size = ModelSize.of_weights(int(of_device.num_parameters), of_device.vocab_size)
    if of_device.adapter_rank is not None:
        size = size.with_adapter(of_device.adapter_rank)
    device, rate = DEVICES[of_device.device], of_device.flops_per_second
    if of_device.calibrate:
        tokens = job.train_batch_size * job.tokens_per_example
        rate = calibrate(size, tokens, on_accelerator=of_device.device != "cpu", dtype=setting.dtype)
    if rate is not None:
        device = Device.cpu(rate) if of_device.device == "cpu" else device.achieving(setting.dtype, rate)
    if of_device.device_memory is not None:
        device = replace(device, memory=1e9 * of_device.device_memory)
    host_memory = math.inf if of_device.host_memory is None else 1e9 * of_device.host_memory
    report = EstimateReport.of(size, job, setting, device, host_memory, of_device.requests_per_day)
    print(json.dumps(report.to_dict(), indent=2) if of_device.json else report)
