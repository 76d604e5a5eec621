# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a resumed run must share with the interrupted one to end in the same bits."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..base_checkpoint import BASE_CHECKPOINT
from ..config import FisherUnlearningConfig
from ..data.contents.earlier import earlier_fingerprint
from ..data.digests import DIGESTS_FORMAT, dataset_fingerprint
from ..models.fingerprint import weights_fingerprint
from ..repair.trainer import RepairTrainer
from ..report.provenance import library_versions
from ..request import UnlearningRequest
from ..run_plan import plan_run
from ..runtime.processes import num_processes, on_main_process
from ..runtime.secrets import without_tokens
from .fingerprints import Fingerprints
from .settings import callbacks_of, code_of_model, settings_of_model, settings_of_torch, transforms_of


# The key of what matters for the result and cannot be compared.
NOT_COMPARED = "not compared"
# The key of how digests of rows are taken. Version 0.1 did not note it.
FORMAT_OF_DIGESTS = "format of digests"

# The attributes of a trainer that hold functions of the caller.
_FUNCTIONS = (
    *("data_collator", "compute_metrics", "preprocess_logits_for_metrics", "log_likelihood_func", "processing_class"),
)
# The keys whose values are fingerprints by name.
_FINGERPRINTED = ("callback", "transform", "code of the model")

# Arguments, or their beginnings, that may differ in a resumed run.
_WITHOUT_EFFECT = (
    *("output_dir", "resume_from_checkpoint", "state_save_seconds", "disable_tqdm", "run_name", "report_to"),
    *("project", "logging_", "log_", "save_", "hub_", "push_to_hub", "dataloader_num_workers"),
    *("dataloader_pin_memory", "ddp_", "local_rank", "trackio_", "do_", "skip_memory_metrics"),
    *("enable_jit_checkpoint", "forget_disclosure", "forget_description", "trust_remote_code", "dress_rehearsal"),
)


def identity_of_run(
    request: UnlearningRequest,
    args: FisherUnlearningConfig,
    trainer: RepairTrainer | None = None,
    digests_format: int = DIGESTS_FORMAT,
) -> dict[str, Any]:
    """
    Returns what a resumed run must share with the interrupted run to end in the same bits.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run.
        args ([`FisherUnlearningConfig`]):
            The configuration.
        trainer ([`RepairTrainer`], *optional*):
            The trainer of the run, whose functions, callbacks and model belong to it too.
        digests_format (`int`, *optional*, defaults to 2):
            How digests of rows are taken. With 1 as version 0.1 did, to compare with a run of that version.

    Returns:
        `dict[str, Any]`: JSON types. The list `NOT_COMPARED` in it says what else matters and cannot be compared.
    """
    weights = {"model": weights_fingerprint(request.model)}
    if request.reference_model is not None:
        weights["reference_model"] = weights_fingerprint(request.reference_model)
    rows = {f"{split}_dataset": dataset for split, dataset in request.splits.items()}
    fingerprint = partial(dataset_fingerprint, disable_tqdm=args.disable_tqdm)
    if digests_format == 1:
        fingerprint = earlier_fingerprint
    settings = without_tokens(args.to_dict()) | {"reset_value": request.reset_value}
    rewinds = request.pretrained_model is not None
    if rewinds:
        settings["pretrained_model"] = request.base_checkpoint.name
    kept = {} if request.kept_fisher is None else {"kept_fisher_sums": request.kept_fisher.digest()}
    return (
        weights
        | kept
        | (request.base_checkpoint.identity() if rewinds else {})
        | ({} if digests_format == 1 else {FORMAT_OF_DIGESTS: digests_format})
        | on_main_process(lambda: {name: fingerprint(dataset) for name, dataset in rows.items()})
        | {
            "num_processes": num_processes(),
            "planned repair steps": plan_run(request, args).num_repair_steps,
            "kept_fisher": None if request.kept_fisher is None else request.kept_fisher.num_examples,
            "requests": {name: list(rows) for name, rows in request.requests.items()},
            "settings": {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_EFFECT)},
            "versions": library_versions(with_peft=request.has_adapter),
        }
        | ({} if trainer is None else on_main_process(lambda: _surroundings(request, trainer)))
    )


def _surroundings(request: UnlearningRequest, trainer: RepairTrainer) -> dict[str, Any]:
    """Functions and settings that a run is given, and no argument names."""
    known = {"model": request.model, "reference_model": request.reference_model, **request.splits}
    fingerprints = Fingerprints(known)
    functions = {name: fingerprints.of(getattr(trainer, name)) for name in _FUNCTIONS}
    return {
        **functions,
        "class of the trainer": fingerprints.of(type(trainer)),
        "transform": transforms_of(request.splits, fingerprints),
        "callback": callbacks_of(trainer, fingerprints),
        "code of the model": code_of_model(request.model, fingerprints),
        "settings of the model": settings_of_model(request.model, trainer.original_configs.get("config")),
        "settings of torch": settings_of_torch(trainer.args.device),
        NOT_COMPARED: sorted(fingerprints.opaque),
    }


def check_same_run(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """
    Refuses to continue a run with something else than it was started with.

    Args:
        folder (`Path`):
            The state of the run.
        before, now (`dict[str, Any]`):
            The identities of the interrupted run and of this one.

    Raises:
        `ValueError`: If they differ. Names the differences.
    """
    found = differences(before, now)
    if found:
        raise ValueError(
            f"{folder} is the state of another run: {'; '.join(found)}. Continue with what that run was started with, "
            "or choose another `output_dir`."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """
    Says in what two identities differ. Names no request, which may be called like a person.

    Args:
        before, now (`dict[str, Any]`):
            The identities.
    """
    found = []
    for key in sorted((before.keys() | now.keys()) - {NOT_COMPARED}):
        old, new = before.get(key), now.get(key)
        # An earlier state does not hold it; the settings name the checkpoint too.
        if old == new or (key == BASE_CHECKPOINT and None in (old, new)):
            continue
        if key == "requests":
            found.append("other names of the requests, or another division of the rows among them")
        elif isinstance(old, dict) and isinstance(new, dict):
            names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            # Where a model was loaded from: a call goes on from its model in memory, or from the folder of it.
            names = [name for name in names if not name.endswith(".name_or_path")]
            found += [_difference(key, name, old.get(name), new.get(name)) for name in names]
        else:
            found.append(f"{key} {old!r}, now {new!r}" if key == "num_processes" else f"another {key}")
    return found


def _difference(key: str, name: str, old: Any, new: Any) -> str:
    if key not in _FINGERPRINTED:
        return f"{key}: {name} {old!r}, now {new!r}"
    of = {"callback": f"callback {name}", "transform": f"transform of {name}"}.get(key, f"{key} ({name})")
    if old is None or new is None:
        return f"the {of} was {'not there' if old is None else 'there'}, and now is{' not' * (new is None)}"
    return f"another {of}"
