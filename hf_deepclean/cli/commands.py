# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The command `hf-deepclean`: the same code as the recipes, for a model and data of your own."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__


if TYPE_CHECKING:
    from datasets import Dataset


# Everything heavy is imported where it is used, so that `--help` answers at once.
_COMMANDS = {
    "unlearn": "make a model forget rows of its training data, and measure what that did",
    "fisher": "compute and keep the Fisher diagonal of a model on one split of a data set",
    "estimate": "say on paper how long a run takes and what memory it needs, without a model or data",
    "report": "show the report of a run, or a summary of several",
    "card": "write the unlearning card of a run, without publishing anything",
    "push": "publish the result of a run on the Hub: searched for leaks, in one commit",
    "check-card": "search any folder for traces of the forgotten data",
    "squash-history": "say where a repository still holds weights from before, and make one commit of its history",
}
_TASKS = Literal["text-classification", "token-classification", "causal-lm", "image-classification"]
# Their names in transformers.
_HEADS = {
    "text-classification": "SEQUENCE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "causal-lm": "CAUSAL_LM",
    "image-classification": "IMAGE_CLASSIFICATION",
}


@dataclass
class ModelArguments:
    """The model, its task, and how its inputs are made."""

    _argument_group_name = "model"

    task: _TASKS = field(metadata={"help": "What the model does, which decides how rows become inputs."})
    model_name_or_path: str = field(
        metadata={"help": "The trained model: a folder (of a LoRA adapter too) or a Hub id."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Cut longer texts to so many tokens; by default longer ones are refused."}
    )
    text_column: str | None = field(
        default=None, metadata={"help": "Column of the text in text classification, if not 'text' or 'sentence'."}
    )
    fsdp_size: int | None = field(
        default=None,
        metadata={"help": "Shard a model that fits no single device over so many launched processes (FSDP2)."},
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Column of the image, if not 'image', 'img' or 'pixel_values'."}
    )


@dataclass
class RunArguments:
    """What `hf-deepclean unlearn` does beside the run itself."""

    _argument_group_name = "run"

    reference_model: str | None = field(
        default=None, metadata={"help": "A model trained without the forget data, measured for comparison."}
    )
    kept_fisher: str | None = field(
        default=None,
        metadata={
            "help": "The Fisher of the whole training set, kept by FisherCallback (a folder) or `hf-deepclean fisher` "
            "(a file); saves the pass over the data to keep."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Check everything, print what would be reset and an estimate of the cost, change nothing."},
    )


@dataclass
class FisherArguments:
    """What `hf-deepclean fisher` computes, and where it goes."""

    _argument_group_name = "fisher"

    dataset_name: str = field(metadata={"help": "Hub id, folder or file, as for `hf-deepclean unlearn`."})
    output: str = field(metadata={"help": "The file to write, FILE.safetensors."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    split: str = field(default="train", metadata={"help": "The split; slices as in 'train[:1000]' work."})
    fisher_type: Literal["empirical", "sampled", "expected"] = field(
        default="empirical",
        metadata={"help": "Labels of the Fisher information: the given ones, drawn from the model, or all of them."},
    )
    per_device_fisher_batch_size: int = field(
        default=32, metadata={"help": "Batch size; it never changes the result."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of the modules in scope."}
    )
    exclude_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of modules left out; default: embeddings."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the labels for --fisher_type sampled."})
    use_cpu: bool = field(default=False, metadata={"help": "Use the processor, not an accelerator."})


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


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Runs `hf-deepclean`.

    Args:
        arguments (`Sequence[str]`, *optional*):
            The command line, by default that of the process.

    Returns:
        `int`: The exit status: 0, or 1 after an error that the message on the error stream explains. Bad options end
        the process with status 2, as always with [`~argparse.ArgumentParser`].
    """
    parser = argparse.ArgumentParser(
        prog="hf-deepclean",
        description="Make a trained Hugging Face model forget chosen training data, and measure what that did.",
        epilog="`hf-deepclean COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in ("unlearn", "fisher", "estimate"):
        # Their options are those of dataclasses, and importing these takes seconds.
        commands.add_parser(name, help=_COMMANDS[name], add_help=False)
    report = commands.add_parser("report", help=_COMMANDS["report"], description=_COMMANDS["report"])
    report.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="output directory of a run, or its report.json; of several runs a summary is shown",
    )
    report.add_argument("--json", action="store_true", help="print the whole report as JSON")
    card = commands.add_parser("card", help=_COMMANDS["card"], description=_COMMANDS["card"])
    card.add_argument("path", type=Path, metavar="DIR", help="output directory of a run")
    card.add_argument("--output", type=Path, metavar="README.md", help="file to write; without it, print the card")
    card.add_argument("--repo_id", help="repository that the model is for")
    _add_publication_arguments(card)
    push = commands.add_parser("push", help=_COMMANDS["push"], description=_COMMANDS["push"])
    push.add_argument("path", type=Path, metavar="DIR", help="output directory of a run")
    push.add_argument("repo_id", metavar="REPO", help="repository, such as me/clean-model")
    _add_forget_arguments(push)
    _add_publication_arguments(push)
    push.add_argument("--gated_prompt", help="what people are asked who request access")
    push.add_argument("--gated", choices=["auto", "manual"], help="access must be requested")
    push.add_argument("--public", action="store_true", help="everyone may see it; by default it is private")
    push.add_argument("--exist_ok", action="store_true", help="push to a repository that holds something")
    push.add_argument("--create_pr", action="store_true", help="open a pull request")
    push.add_argument("--revision", help="branch, by default main")
    push.add_argument("--commit_message", default="Add the cleaned model", help="title of the commit")
    push.add_argument("--dry_run", type=Path, metavar="FOLDER", help="write what would be published there instead")
    check = commands.add_parser("check-card", help=_COMMANDS["check-card"], description=_COMMANDS["check-card"])
    check.add_argument("path", type=Path, metavar="DIR", help="the folder")
    _add_forget_arguments(check)
    squash = commands.add_parser(
        "squash-history", help=_COMMANDS["squash-history"], description=_COMMANDS["squash-history"]
    )
    squash.add_argument("repo_id", metavar="REPO", help="the repository")
    squash.add_argument("--branch", default="main", help="the branch")
    squash.add_argument("--yes", action="store_true", help="squash; without it nothing changes. It cannot be undone.")

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["unlearn"]:
            _unlearn(arguments[1:])
        elif arguments[:1] == ["fisher"]:
            _fisher(arguments[1:])
        elif arguments[:1] == ["estimate"]:
            _estimate(arguments[1:])
        else:
            parsed = parser.parse_args(arguments)
            return {
                "report": _report,
                "card": _card,
                "push": _push,
                "check-card": _check_card,
                "squash-history": _squash_history,
            }[parsed.command](parsed)
    except (ValueError, TypeError, OSError) as error:
        print(f"hf-deepclean: error: {error}", file=sys.stderr)
        return 1
    return 0


def _unlearn(arguments: Sequence[str]) -> None:
    from ..config import FisherUnlearningConfig
    from ..data.sources import DataArguments, load_unlearning_datasets
    from ..models.checks import check_output_directory
    from ..publishing.leaks import needles_of_dataset
    from ..runtime.processes import is_main_process
    from ..unlearner import FisherUnlearner
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (ModelArguments, DataArguments, RunArguments, FisherUnlearningConfig),
        prog="hf-deepclean unlearn",
        description=f"{_COMMANDS['unlearn'].capitalize()}.",
    )
    model_arguments, data_arguments, run_arguments, config = parser.parse_args_and_config(arguments)
    resume = config.resume_from_checkpoint
    check_output_directory(config.output_dir, resuming=bool(resume))
    load_model = _model_loader(model_arguments)
    splits = load_unlearning_datasets(data_arguments)
    forget_rows = splits["forget"]
    model = load_model(model_arguments.model_name_or_path)
    splits, collator, processing_class = _prepare_inputs(model_arguments, model, splits)
    unlearner = FisherUnlearner(
        model,
        config,
        collator,
        **{f"{name}_dataset": split for name, split in splits.items()},
        reference_model=run_arguments.reference_model,
        kept_fisher=run_arguments.kept_fisher,
        processing_class=processing_class,
    )
    outcome = unlearner.preview() if run_arguments.dry_run else unlearner.unlearn(resume)
    if is_main_process():
        print(outcome)
    if config.hub_model_id is None or run_arguments.dry_run:
        return
    needles = None
    if is_main_process():
        needles = needles_of_dataset(forget_rows, names=[Path(data_arguments.dataset_name).name])
    pushed = unlearner.push_to_hub(
        config.hub_model_id,
        private=config.hub_private_repo is not False,
        revision=config.hub_revision,
        needles=needles,
        token=config.hub_token,
    )
    if is_main_process():
        print(pushed)


def _fisher(arguments: Sequence[str]) -> None:
    from accelerate import PartialState
    from tqdm.auto import tqdm
    from transformers import default_data_collator

    from ..data.loaders import seeded_batches
    from ..data.sources import load_splits
    from ..fisher.passes import accumulate_over_processes
    from ..models.adapters.parameters import is_adapted
    from ..models.checks import check_dataset, check_model, check_sequence_lengths
    from ..models.fingerprint import weights_fingerprint
    from ..models.scope import parameters_in_scope
    from ..runtime.files import check_new_file
    from ..runtime.processes import check_launch
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (ModelArguments, FisherArguments),
        prog="hf-deepclean fisher",
        description=f"{_COMMANDS['fisher'].capitalize()}.",
    )
    model_arguments, fisher_arguments = parser.parse_args_and_config(arguments)
    check_new_file(Path(fisher_arguments.output))
    load_model = _model_loader(model_arguments)
    wanted = {"split": fisher_arguments.split}
    splits = load_splits(fisher_arguments.dataset_name, wanted, fisher_arguments.dataset_config_name)
    model = load_model(model_arguments.model_name_or_path)
    reset_scope = "adapter" if is_adapted(model) else "full"
    check_model(model, reset_scope)
    patterns = fisher_arguments.target_modules, fisher_arguments.exclude_modules
    scope = parameters_in_scope(model, *patterns, reset_scope=reset_scope)
    splits, collator, _ = _prepare_inputs(model_arguments, model, splits)
    dataset = splits["split"]
    check_dataset(dataset, "split", None)
    check_sequence_lengths(model, dataset, "split")
    state = PartialState(cpu=fisher_arguments.use_cpu)
    check_launch(state.num_processes)
    model.to(state.device)
    size, collator = fisher_arguments.per_device_fisher_batch_size, collator or default_data_collator
    share = {"process_index": state.process_index, "num_processes": state.num_processes}

    def batches(start: int, earlier: Any) -> Any:
        own = seeded_batches(dataset, size, collator, fisher_arguments.seed, start=start, earlier=earlier, **share)
        return tqdm(own, desc="Fisher", leave=False, disable=not state.is_main_process)

    begin = time.perf_counter()
    fisher = accumulate_over_processes(
        model,
        batches,
        size,
        fisher_type=fisher_arguments.fisher_type,
        parameters=scope,
        seed=fisher_arguments.seed,
    )
    fisher = replace(fisher, weights_fingerprint=weights_fingerprint(model), seconds=time.perf_counter() - begin)
    if not state.is_main_process:
        return
    fisher.save(fisher_arguments.output)
    num_weights = sum(total.numel() for total in fisher.sums.values())
    print(
        f"{fisher_arguments.output}: the {fisher.fisher_type} Fisher diagonal of {num_weights:,} weights on "
        f"{fisher.num_examples:,} examples. `FisherDiagonal.load` reads it, and `--kept_fisher` makes use of it."
    )


def _estimate(arguments: Sequence[str]) -> None:
    from ..planning.formulas import DEVICES, Device, Job, ModelSize, Setting, calibrate
    from ..planning.report import EstimateReport
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (EstimateArguments, Job, Setting),
        prog="hf-deepclean estimate",
        description=f"{_COMMANDS['estimate'].capitalize()}.",
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


def _report(parsed: argparse.Namespace) -> int:
    from ..report.report import load_report, summarize_reports

    reports = [load_report(path) for path in parsed.paths]
    if parsed.json:
        records = [report.to_dict() for report in reports]
        print(json.dumps(records[0] if len(records) == 1 else records, indent=2))
    else:
        print(reports[0] if len(reports) == 1 else summarize_reports(reports))
    return 0


def _add_forget_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forget_file",
        "--forget-file",
        required=True,
        metavar="FILE",
        help="the forgotten rows: a csv, tsv, json, jsonl, parquet, txt or arrow file, a folder, or a data set's id",
    )
    parser.add_argument("--forget_split", default="train", help="split of it; slices as in 'train[:100]' work")
    parser.add_argument(
        "--forget_filter", metavar="EXPRESSION", help="which of its rows were forgotten, such as 'label == 3'"
    )
    parser.add_argument("--allow", nargs="+", default=[], metavar="VALUE", help="values that are no leaks")


def _add_publication_arguments(parser: argparse.ArgumentParser) -> None:
    from_run = "by default as the run was started"
    parser.add_argument("--base_model", help="Hub id of the model from before; by default what was loaded from there")
    parser.add_argument(
        "--forget_disclosure", choices=["withheld", "size", "description"], help=f"what the card tells; {from_run}"
    )
    parser.add_argument("--forget_description", help=f"what was forgotten, in your words; {from_run}")


def _card(parsed: argparse.Namespace) -> int:
    from ..publishing.folder import Publication, card_of_run
    from ..runtime.files import check_new_file

    if parsed.output is not None:
        check_new_file(parsed.output)
    publication = Publication(parsed.repo_id, parsed.base_model, parsed.forget_disclosure, parsed.forget_description)
    card = card_of_run(parsed.path, publication)
    if parsed.output is None:
        print(card)
    else:
        card.save(parsed.output)
    return 0


def _push(parsed: argparse.Namespace) -> int:
    from ..publishing.folder import Publication, save_published
    from ..publishing.push import push_folder_to_hub
    from ..report.report import load_report

    # Refused before the rows are read.
    load_report(parsed.path)
    needles = _forget_needles(parsed, parsed.path)
    publication = Publication(
        parsed.repo_id,
        parsed.base_model,
        parsed.forget_disclosure,
        parsed.forget_description,
        parsed.gated_prompt,
        parsed.allow,
    )
    if parsed.dry_run is not None:
        written = save_published(parsed.path, parsed.dry_run, needles, publication)
        print("\n".join([f"{parsed.dry_run} holds what would be published in {parsed.repo_id}:", *written]))
        return 0
    result = push_folder_to_hub(
        parsed.path,
        parsed.repo_id,
        needles=needles,
        publication=publication,
        private=not parsed.public,
        exist_ok=parsed.exist_ok,
        create_pr=parsed.create_pr,
        revision=parsed.revision,
        commit_message=parsed.commit_message,
        gated=parsed.gated,
    )
    print(result)
    return 0


def _check_card(parsed: argparse.Namespace) -> int:
    from ..publishing.card import static_text
    from ..publishing.leaks import find_leaks, needles_of_machine

    if not parsed.path.is_dir():
        raise FileNotFoundError(f"There is no folder {parsed.path}.")
    needles = _forget_needles(parsed, parsed.path) | needles_of_machine()
    leaks = find_leaks(parsed.path, needles, ignore=[static_text(), *parsed.allow])
    if not leaks:
        print(f"{parsed.path}: no traces of the forgotten data or of this machine in any byte.")
        return 0
    print("\n".join([f"{parsed.path}: {len(leaks)} traces.", *map(str, leaks)]))
    return 1


def _squash_history(parsed: argparse.Namespace) -> int:
    from ..publishing.push import squash_history

    print(squash_history(parsed.repo_id, branch=parsed.branch, dry_run=not parsed.yes))
    return 0


def _forget_needles(parsed: argparse.Namespace, folder: Path) -> Any:
    """What of the forgotten rows must not be found, as texts and, with the folder's tokenizer, as tokens."""
    from transformers import AutoTokenizer

    from ..data.sources import DataArguments, load_splits, split_forget_rows
    from ..publishing.leaks import needles_of_dataset

    rows = load_splits(parsed.forget_file, {"forget": parsed.forget_split})["forget"]
    if parsed.forget_filter is not None:
        arguments = DataArguments(dataset_name=parsed.forget_file, forget_filter=parsed.forget_filter)
        rows, _ = split_forget_rows(rows, arguments)
    tokenizer = None
    if (folder / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return needles_of_dataset(rows, tokenizer=tokenizer, names=[Path(parsed.forget_file).name])


def _model_loader(arguments: ModelArguments) -> Callable[[str], Any]:
    """What loads the model with the head that its checkpoint has, if that is one of the task."""
    import transformers
    from huggingface_hub import constants

    from ..models.adapters.parameters import is_adapter_path, load_adapted_model
    from ..models.heads import class_names_of_task

    name, task = arguments.model_name_or_path, arguments.task
    if is_adapter_path(name):
        # Its configuration says what head the base gets.
        return load_adapted_model
    try:
        architectures = transformers.AutoConfig.from_pretrained(name).architectures or ["none"]
    except OSError as error:
        if Path(name).is_dir():
            raise
        offline = "; offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"`model_name_or_path` is {name!r}: no such folder is here, and it could not be loaded from the Hub"
            f"{offline} ({type(error).__name__}). Check the name and the network, or pass a folder."
        ) from None
    of_task = {task: class_names_of_task(head) for task, head in _HEADS.items()}
    if architectures[0] not in of_task[task]:
        others = [other for other in of_task if architectures[0] in of_task[other]]
        raise ValueError(
            f"`model_name_or_path` is {name!r}, whose architecture {architectures[0]} is none of the task {task!r}"
            f"{f', but of {others[0]!r}' if others else ''}. Give the `task` that the model was trained for, and a "
            "model of transformers with its head."
        )
    load = getattr(transformers, architectures[0]).from_pretrained
    if arguments.fsdp_size is None:
        return load
    from transformers.distributed import DistributedConfig

    return partial(load, distributed_config=DistributedConfig(fsdp_size=arguments.fsdp_size))


def _prepare_inputs(
    arguments: ModelArguments, model: Any, splits: dict[str, "Dataset"]
) -> tuple[dict[str, "Dataset"], Any, Any]:
    """The splits as inputs of the model, with the collator (none for the default) and the tokenizer or processor."""
    import transformers

    from ..data import preprocessing
    from ..models.adapters.parameters import is_adapted

    name, length, label2id = arguments.model_name_or_path, arguments.max_length, model.config.label2id
    if arguments.task == "image-classification":
        made = all("pixel_values" in split.column_names for split in splits.values())
        processor = None if made else transformers.AutoImageProcessor.from_pretrained(name)
        images = {
            part: preprocessing.prepare_images(split, processor, arguments.image_column, label2id)
            for part, split in splits.items()
        }
        return images, None, processor
    if is_adapted(model) and not (Path(name) / "tokenizer_config.json").exists():
        name = model.active_peft_config.base_model_name_or_path
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    preprocessing.check_tokenizer(tokenizer, model)
    if arguments.task == "text-classification":
        collator = transformers.DataCollatorWithPadding(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_text_classification(split, tokenizer, length, arguments.text_column, label2id)
            for part, split in splits.items()
        }
    elif arguments.task == "token-classification":
        collator = transformers.DataCollatorForTokenClassification(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_token_classification(split, tokenizer, length, label2id)
            for part, split in splits.items()
        }
    else:
        collator = transformers.DataCollatorForSeq2Seq(tokenizer)
        tokenized = {
            part: preprocessing.tokenize_causal_lm(split, tokenizer, length) for part, split in splits.items()
        }
    return tokenized, collator, tokenizer


if __name__ == "__main__":
    sys.exit(main())
