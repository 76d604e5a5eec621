# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-deepclean fisher`: computes and keeps the Fisher diagonal of a model on one split."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .lazy import add_lazy_parser
from .models import ModelArguments, model_loader, prepare_inputs


DESCRIPTION = "Compute and keep the Fisher diagonal of a model on one split of a data set"


@dataclass
class FisherArguments:
    """The data, the Fisher and the output file of `hf-deepclean fisher`."""

    _argument_group_name = "fisher"

    dataset_name: str = field(metadata={"help": "Hub id, folder or file, as for `hf-deepclean unlearn`."})
    output: str = field(metadata={"help": "File to write, FILE.safetensors."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    split: str = field(default="train", metadata={"help": "Split to use; slices as in 'train[:1000]' work."})
    fisher_type: Literal["empirical", "sampled", "expected"] = field(
        default="empirical",
        metadata={
            "help": "Labels of the Fisher: those of the data (empirical), drawn from the model (sampled), or all "
            "classes, weighted by their probabilities (expected)."
        },
    )
    per_device_fisher_batch_size: int = field(
        default=32, metadata={"help": "Examples per batch; the result does not depend on it."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of the modules in scope; by default all."}
    )
    exclude_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of modules to leave out; by default none."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the labels for --fisher_type sampled."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that the model comes with. Read it first."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU even if there is an accelerator."})


def add_parser(commands: Any) -> None:
    """Adds the command."""
    add_lazy_parser(commands, "fisher", DESCRIPTION, run_fisher)


def run_fisher(arguments: Sequence[str]) -> None:
    """Computes the Fisher diagonal over all processes; the main process writes it to a file."""
    from accelerate import PartialState
    from tqdm.auto import tqdm
    from transformers import default_data_collator

    from ..data.checks import check_dataset
    from ..data.loaders import seeded_batches
    from ..data.sources import load_splits
    from ..fisher.kept_data import FisherData
    from ..fisher.passes import accumulate_over_processes
    from ..models.adapters.parameters import is_adapted
    from ..models.checks import check_model, check_sequence_lengths
    from ..models.fingerprint import weights_fingerprint
    from ..models.scope import parameters_in_scope
    from ..runtime.files import check_new_file
    from ..runtime.processes import check_launch
    from .parser import UnlearningParser

    parser = UnlearningParser(
        (ModelArguments, FisherArguments),
        prog="hf-deepclean fisher",
        description=f"{DESCRIPTION}.",
    )
    model_arguments, fisher_arguments = parser.parse_args_and_config(arguments)
    check_new_file(Path(fisher_arguments.output))
    load_model = model_loader(model_arguments, fisher_arguments.trust_remote_code)
    wanted = {"split": fisher_arguments.split}
    splits = load_splits(fisher_arguments.dataset_name, wanted, fisher_arguments.dataset_config_name)
    model = load_model(model_arguments.model_name_or_path)
    reset_scope = "adapter" if is_adapted(model) else "full"
    check_model(model, reset_scope)
    patterns = fisher_arguments.target_modules, fisher_arguments.exclude_modules
    scope = parameters_in_scope(model, *patterns, reset_scope=reset_scope)
    splits, collator, _ = prepare_inputs(model_arguments, model, splits, fisher_arguments.trust_remote_code)
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
    data, fingerprint = FisherData.of(dataset, model), weights_fingerprint(model)
    fisher = replace(fisher, weights_fingerprint=fingerprint, data=data, seconds=time.perf_counter() - begin)
    if not state.is_main_process:
        return
    fisher.save(fisher_arguments.output)
    num_weights = sum(total.numel() for total in fisher.sums.values())
    print(
        f"{fisher_arguments.output}: the {fisher.fisher_type} Fisher diagonal of {num_weights:,} weights on "
        f"{fisher.num_examples:,} examples. Load it with `FisherDiagonal.load`, or pass it to `hf-deepclean unlearn` "
        "as `--kept_fisher`."
    )
