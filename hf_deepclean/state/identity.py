# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a resumed run must share with the interrupted one to end in the same bits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import FisherUnlearningConfig
from ..data.digests import dataset_fingerprint
from ..models.fingerprint import weights_fingerprint
from ..report.provenance import library_versions
from ..request import UnlearningRequest
from ..runtime.processes import num_processes, on_main_process


# Arguments, or their beginnings, that may differ in a resumed run.
_WITHOUT_EFFECT = (
    *("output_dir", "resume_from_checkpoint", "state_save_seconds", "disable_tqdm", "run_name", "report_to"),
    *("project", "logging_", "log_", "save_", "hub_", "push_to_hub", "dataloader_num_workers"),
    *("dataloader_pin_memory", "ddp_", "local_rank", "trackio_", "do_", "skip_memory_metrics"),
    *("enable_jit_checkpoint", "forget_disclosure", "forget_description", "trust_remote_code", "dress_rehearsal"),
)


def identity_of_run(request: UnlearningRequest, args: FisherUnlearningConfig) -> dict[str, Any]:
    """
    Returns what a resumed run must share with the interrupted run to end in the same bits.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run.
        args ([`FisherUnlearningConfig`]):
            The configuration.
    """
    weights = {"model": weights_fingerprint(request.model)}
    if request.reference_model is not None:
        weights["reference_model"] = weights_fingerprint(request.reference_model)
    rows = {f"{split}_dataset": dataset for split, dataset in request.splits.items()}
    settings = args.to_dict() | {"reset_value": request.reset_value}
    return (
        weights
        | on_main_process(lambda: {name: dataset_fingerprint(dataset) for name, dataset in rows.items()})
        | {
            "num_processes": num_processes(),
            "kept_fisher": None if request.kept_fisher is None else request.kept_fisher.num_examples,
            "requests": {name: list(rows) for name, rows in request.requests.items()},
            "settings": {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_EFFECT)},
            "versions": library_versions(with_peft=request.has_adapter),
        }
    )


def check_same_run(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key):
            continue
        if isinstance(before.get(key), dict) and isinstance(now.get(key), dict):
            differences += [
                f"{key}: {name} {before[key].get(name)!r}, now {now[key].get(name)!r}"
                for name in sorted(before[key].keys() | now[key].keys())
                if before[key].get(name) != now[key].get(name)
            ]
        else:
            differences.append(
                f"{key} {before.get(key)!r}, now {now.get(key)!r}" if key == "num_processes" else f"another {key}"
            )
    if differences:
        raise ValueError(
            f"{folder} is the state of another run: {'; '.join(differences)}. Continue with what that run was started "
            "with, or choose another `output_dir`."
        )
