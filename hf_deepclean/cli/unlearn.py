# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-deepclean unlearn`: makes a model forget rows of its training data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lazy import add_lazy_parser
from .models import ModelArguments, model_loader, prepare_inputs


DESCRIPTION = "Make a model forget rows of its training data, and measure the result"


@dataclass
class RunArguments:
    """What `hf-deepclean unlearn` is given besides the model, the data and the configuration."""

    _argument_group_name = "run"

    reference_model: str | None = field(
        default=None, metadata={"help": "A model trained without the forget data, evaluated for comparison."}
    )
    kept_fisher: str | None = field(
        default=None,
        metadata={
            "help": "Fisher of the whole training set, kept by FisherCallback (a folder) or `hf-deepclean fisher` "
            "(a file). It saves the pass over the retain data."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Check everything, print what would be reset and what it would cost, and change nothing."},
    )


def add_parser(commands: Any) -> None:
    """Adds the command."""
    add_lazy_parser(commands, "unlearn", DESCRIPTION, run_unlearn)


def run_unlearn(arguments: Sequence[str]) -> None:
    """Loads model and data, unlearns, prints the report, and pushes the result if `hub_model_id` is given."""
    from ..config import FisherUnlearningConfig
    from ..data.arguments import DataArguments
    from ..data.sources import load_unlearning_datasets
    from ..publishing.leaks import needles_of_dataset
    from ..runtime.processes import is_main_process
    from ..state.directory import check_output_directory
    from ..unlearner import FisherUnlearner
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (ModelArguments, DataArguments, RunArguments, FisherUnlearningConfig),
        prog="hf-deepclean unlearn",
        description=f"{DESCRIPTION}.",
    )
    model_arguments, data_arguments, run_arguments, config = parser.parse_args_and_config(arguments)
    resume = config.resume_from_checkpoint
    check_output_directory(config.output_dir, resuming=bool(resume))
    load_model = model_loader(model_arguments, config.trust_remote_code)
    splits = load_unlearning_datasets(data_arguments)
    forget_rows, retain_rows = splits["forget"], splits["retain"]
    model = load_model(model_arguments.model_name_or_path)
    splits, collator, processing_class = prepare_inputs(model_arguments, model, splits, config.trust_remote_code)
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
        if not run_arguments.dry_run:
            print(f"The cleaned model and report.json are in {config.output_dir}.")
    if config.hub_model_id is None or run_arguments.dry_run:
        return
    needles = None
    if is_main_process():
        needles = needles_of_dataset(
            forget_rows, names=[Path(data_arguments.dataset_name).name], retain_dataset=retain_rows
        )
    pushed = unlearner.push_to_hub(
        config.hub_model_id,
        private=config.hub_private_repo is not False,
        revision=config.hub_revision,
        needles=needles,
        token=config.hub_token,
    )
    if is_main_process():
        print(pushed)
