# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Digests of what small runs select, end with and report, to compare two versions of the code bit by bit.

Record the version before a change, make the change, and compare on the same machine, because bits differ between
processors:

```shell
make golden-record    # writes outputs/golden.json
make golden-compare   # compares with it, and names what differs
```
"""

import argparse
import hashlib
import importlib
import inspect
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.utils import logging

import hf_deepclean
from hf_deepclean import (
    FisherCallback,
    FisherUnlearner,
    FisherUnlearningConfig,
    PublicReport,
    UnlearningReport,
    answer_requests,
)
from tests import tiny


RECIPES = Path(__file__).parent.parent / "recipes"
# Without that of a pretrained model, which takes minutes.
CONFIGS = sorted(path.stem for path in (RECIPES / "configs").glob("*.yaml") if "pretrained" not in path.stem)

# Seconds in place of minutes, with all that a report can hold.
SMALL = """
    --num_example_rows 80 --original_num_train_epochs 1 --num_train_epochs 1 --train_reference true
    --random_mask_control true --fine_tuning_control true --relearning_steps 3
    --relearning_data forget retain few_forget --gamma_sweep 1 3 --disable_tqdm true --seed 7
""".split()
SMALL_LANGUAGE = """
    --num_example_rows 60 --num_ordinary_rows 64 --num_mixed_rows 16 --num_repetitions 1 --base_num_train_epochs 1
""".split()


def digest_of_tensors(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def digest_of_json(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def without_seconds(report: UnlearningReport | PublicReport) -> dict[str, Any]:
    """The report as JSON, without what differs from run to run or from folder to folder."""
    record = report.to_dict()
    for name in ("seconds", "versions", "provenance"):
        record.pop(name, None)
    # It says how many seconds a pass took.
    (record.get("kept_fisher") or {}).pop("refresh_cost", None)
    return record


class Recorder:
    """Notes what every call of `FisherUnlearner.unlearn` selects and ends with."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def __enter__(self) -> "Recorder":
        self._unlearn = FisherUnlearner.unlearn

        def unlearn(unlearner: FisherUnlearner, *args: Any, **kwargs: Any) -> UnlearningReport:
            report = self._unlearn(unlearner, *args, **kwargs)
            self.runs.append(self._record(unlearner, report))
            return report

        FisherUnlearner.unlearn = unlearn
        return self

    def __exit__(self, *error: Any) -> None:
        FisherUnlearner.unlearn = self._unlearn

    def _record(self, unlearner: FisherUnlearner, report: UnlearningReport) -> dict[str, Any]:
        output = Path(unlearner.args.output_dir)
        return {
            "selection": digest_of_tensors(dict(unlearner.selection.indices)),
            "num_selected": unlearner.selection.num_selected,
            "weights": digest_of_tensors(tiny.parameters_and_buffers(unlearner.model)),
            "report": digest_of_json(without_seconds(report)),
            "figures": {stage: digest_of_json(result.figures()) for stage, result in report.stages.items()},
            "public_report": digest_of_json(without_seconds(PublicReport.of(report))),
            "phases": sorted(report.seconds),
            "files": sorted(path.name for path in output.iterdir()),
            "config": hashlib.sha256((output / "config.json").read_bytes()).hexdigest()[:16]
            if (output / "config.json").exists()
            else None,
        }


def run_recipe(config: str, folder: Path) -> None:
    name = next(
        path.stem
        for path in sorted(RECIPES.glob("*.py"))
        if path.stem not in ("common", "example_data") and config.startswith(path.stem)
    )
    recipe = importlib.import_module(name)
    if "causal_lm" in config:
        importlib.import_module("causal_lm").new_model = _small_language_model
    language = SMALL_LANGUAGE if "causal_lm" in config else []
    rounding = [] if config.startswith("lora") else ["--quantization_bits", "4", "8"]
    options = ["--config", str(RECIPES / "configs" / f"{config}.yaml"), "--output_dir", str(folder / "clean")]
    recipe.main(*recipe.make_parser().parse_args_and_config([*options, *SMALL, *language, *rounding]))


def _small_language_model(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes, **ids))


def config_for(folder: Path, **kwargs: Any) -> FisherUnlearningConfig:
    defaults = {
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 16,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return FisherUnlearningConfig(str(folder / "clean"), **(defaults | kwargs))


def splits(**others: Any) -> dict[str, Any]:
    digits = tiny.digits()
    parts = {
        "forget_dataset": digits.select(range(24)),
        "retain_dataset": digits.select(range(24, 160)),
        "unseen_dataset": digits.select(range(160, 200)),
        "eval_dataset": digits.select(range(200, 260)),
    }
    return parts | others


def class_splits() -> dict[str, Any]:
    labels = tiny.digits()["labels"][:160].tolist()
    forget, retain = ([row for row, label in enumerate(labels) if (label == 3) is wanted] for wanted in (True, False))
    digits = tiny.digits()
    return {"forget_dataset": digits.select(forget), "retain_dataset": digits.select(retain)}


def run_by_trials(folder: Path) -> None:
    args = config_for(folder, random_mask_control=True, gamma_sweep=[1.0, 4.0], save_strategy="epoch")
    FisherUnlearner(tiny.trained(), args, reference_model=tiny.resnet(num_labels=10), **splits()).unlearn()


def run_by_trials_on_a_class(folder: Path) -> None:
    args = config_for(folder, reset_value="init", weight_decay=0.1)
    FisherUnlearner(tiny.trained(), args, **class_splits()).unlearn()


def run_on_streams(folder: Path) -> None:
    data = {name: dataset.to_iterable_dataset(num_shards=3) for name, dataset in splits().items()}
    FisherUnlearner(tiny.trained(), config_for(folder, max_steps=6), **data).unlearn()


def run_by_percentile(folder: Path) -> None:
    args = config_for(folder, selection="adaptive", fisher_type="expected", label_smoothing_factor=0.1)
    FisherUnlearner(tiny.trained(), args, **splits()).unlearn()


def run_interrupted(folder: Path) -> None:
    further = {"save_strategy": "steps", "save_steps": 5, "random_mask_control": True}
    try:
        stopped = FisherUnlearner(tiny.trained(), config_for(folder, **further), **splits())
        tiny.interrupt_after(stopped, step=13).unlearn()
    except KeyboardInterrupt:
        pass
    FisherUnlearner(tiny.trained(), config_for(folder, **further), **splits()).unlearn(resume_from_checkpoint=True)


def run_requests(folder: Path) -> None:
    rows = tiny.digits().select(range(160))
    trainer = Trainer(
        tiny.trained(),
        TrainingArguments(
            str(folder / "trained"), num_train_epochs=1, learning_rate=1e-4, use_cpu=True, report_to="none",
            disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=rows,
    )  # fmt: skip
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(folder / "trained")
    for mode in ("batched", "sequential"):
        answer_requests(
            str(folder / "trained"),
            config_for(folder / mode, num_train_epochs=1),
            train_dataset=rows,
            requests={"a": [3, 17, 20], "b": [40, 5]},
            mode=mode,
            kept_fisher=str(folder / "trained" / "_fisher"),
            unseen_dataset=splits()["unseen_dataset"],
        )


RUNS: dict[str, Callable[[Path], None]] = {
    **{config: lambda folder, config=config: run_recipe(config, folder) for config in CONFIGS},
    "by_trials": run_by_trials,
    "by_trials_on_a_class": run_by_trials_on_a_class,
    "on_streams": run_on_streams,
    "by_percentile": run_by_percentile,
    "interrupted": run_interrupted,
    "requests": run_requests,
}


def preview() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.trained()
        before = digest_of_tensors(tiny.parameters_and_buffers(model))
        unlearner = FisherUnlearner(model, config_for(Path(folder), random_mask_control=True), **splits())
        found = unlearner.preview()
        return {
            "selection": digest_of_json(found.selection.per_module),
            "num_repair_steps": found.num_repair_steps,
            "bytes": [found.fisher_bytes, found.optimizer_bytes],
            "phases": sorted(found.seconds),
            "unchanged": before == digest_of_tensors(tiny.parameters_and_buffers(model)),
        }


def public_face() -> dict[str, str]:
    """The signatures of all public names, and of their public methods."""
    found = {}
    for name in hf_deepclean.__all__:
        value = getattr(hf_deepclean, name)
        found[name] = _signature(value)
        if inspect.isclass(value):
            for attribute in dir(value):
                member = inspect.getattr_static(value, attribute)
                owner = next((base for base in value.__mro__ if attribute in vars(base)), None)
                if attribute.startswith("_") or owner is None or not owner.__module__.startswith("hf_deepclean"):
                    continue
                if isinstance(member, (classmethod, staticmethod)) or inspect.isfunction(member):
                    found[f"{name}.{attribute}"] = _signature(getattr(value, attribute))
    return found


def _signature(value: Any) -> str:
    try:
        # Where a type lives may change; what it is called may not.
        return ", ".join(
            f"{parameter.kind.name} {parameter.name} = {parameter.default!r}"
            for parameter in inspect.signature(value).parameters.values()
        )
    except (TypeError, ValueError):
        return "no signature"


def record(names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"public_face": public_face(), "preview": preview(), "final_reports": {}}
    for name in names:
        print(name, flush=True)
        set_seed(0)
        with tempfile.TemporaryDirectory() as folder, Recorder() as recorder:
            RUNS[name](Path(folder))
            # Recipes add a stage to it.
            path = Path(folder) / "clean" / "report.json"
            if path.exists():
                found["final_reports"][name] = digest_of_json(without_seconds(UnlearningReport.load(path)))
        found[name] = recorder.runs
    return found


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Where two records differ in the runs that both have. New public names are no difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() & now.keys() if not path else before.keys() | now.keys()
        if path == "public_face":
            keys = before.keys()
        if path == "final_reports":
            keys = before.keys() & now.keys()
        return [
            line
            for key in sorted(keys)
            for line in differences(before.get(key), now.get(key), f"{path}/{key}" if path else key)
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for place, (one, other) in pairs for line in differences(one, other, f"{path}/{place}")]
    return [] if before == now else [f"{path}: {before!r}, now {now!r}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file to write the record to")
    parser.add_argument("--compare", type=Path, help="record to compare with")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS), help="runs to make")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    sys.path.insert(0, str(RECIPES))
    found = json.loads(json.dumps(record(args.runs)))
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(found, indent=2) + "\n")
    if args.compare is None:
        return 0
    changed = differences(json.loads(args.compare.read_text()), found)
    print("\n".join(changed) or "No difference.")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
