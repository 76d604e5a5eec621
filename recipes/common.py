# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the recipes share: their options, the training of an example's models, and the course of a run."""

import copy
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from datasets import ClassLabel, Dataset
from example_data import UNSCORED
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Digits, Sequence
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch.utils.data import ConcatDataset
from transformers import (
    ModernBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

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
    Which model a recipe cleans, and how it trains one where none is named.

    Args:
        model_name_or_path (`str`, *optional*):
            The trained model to clean. By default the recipe trains one, on the data to forget and to keep.
        base_model_name_or_path (`str`, *optional*):
            What that training starts from. By default a small model with random weights.
        reference_model_name_or_path (`str`, *optional*):
            A model trained without the data to forget, to compare with.
        train_reference (`bool`, *optional*, defaults to `False`):
            Whether to train such a model too, as the original was trained.
        fine_tuning_control (`bool`, *optional*, defaults to `False`):
            Whether to fine-tune all weights of the original on the data to keep too, for as many epochs as the repair
            has and at the learning rate of its training, for comparison.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to stop after checking everything and printing an estimate.
        public_dir (`str`, *optional*):
            New folder for what may be published of the result, with its card. `hub_model_id` publishes it.
        max_length (`int`, *optional*):
            Number of tokens to cut longer texts to.
        num_example_rows (`int`, *optional*):
            Rows of the example data to train on, by default as many as the example has.
        original_num_train_epochs (`float`, *optional*, defaults to `5`):
            Epochs of the training of the original and of the reference.
        original_learning_rate (`float`, *optional*, defaults to `1e-3`):
            Its highest learning rate.
        original_per_device_train_batch_size (`int`, *optional*, defaults to `32`):
            Its batch size.
        original_lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`):
            How the rate falls; with `"warmup_stable_decay"` over the last 40 %.
        original_adam_beta2 (`float`, *optional*, defaults to `0.999`):
            Decay of the second moment.
    """

    _argument_group_name = "recipe"

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Trained model to clean; without it the recipe trains one on the data."},
    )
    base_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "What that training starts from; without it a small model with random weights."},
    )
    reference_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model trained without the data to forget, to compare with."}
    )
    train_reference: bool = field(
        default=False, metadata={"help": "Train such a reference too, as the original is trained."}
    )
    fine_tuning_control: bool = field(
        default=False, metadata={"help": "Also fine-tune all weights on the data to keep, for comparison."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check everything, print an estimate of what would be reset, and stop."}
    )
    public_dir: str | None = field(
        default=None,
        metadata={"help": "New folder for what may be published of the result, with its card."},
    )
    max_length: int | None = field(default=None, metadata={"help": "Number of tokens to cut longer texts to."})
    num_example_rows: int | None = field(default=None, metadata={"help": "Rows of the example data to train on."})
    original_num_train_epochs: float = field(
        default=5, metadata={"help": "Epochs of the training of the original and of the reference."}
    )
    original_learning_rate: float = field(default=1e-3, metadata={"help": "Highest learning rate of that training."})
    original_per_device_train_batch_size: int = field(default=32, metadata={"help": "Batch size of that training."})
    original_lr_scheduler_type: str = field(default="cosine", metadata={"help": "How the rate falls."})
    original_adam_beta2: float = field(default=0.999, metadata={"help": "Decay of the second moment."})

    def __post_init__(self) -> None:
        if self.model_name_or_path is not None and (self.train_reference or self.base_model_name_or_path is not None):
            raise ValueError(
                "--train_reference and --base_model_name_or_path say how the recipe trains a model, and with "
                "--model_name_or_path it trains none. Name a reference with --reference_model_name_or_path."
            )
        if self.train_reference and self.reference_model_name_or_path is not None:
            raise ValueError("Of --train_reference and --reference_model_name_or_path, give one.")


def load_data(
    recipe: RecipeArguments,
    arguments: DataArguments,
    load_example: Callable[..., dict[str, Dataset]],
    seed: int,
) -> dict[str, Dataset]:
    """The data sets that were asked for, or the example's: `forget`, `retain`, and where given `eval` and `unseen`."""
    if arguments.dataset_name is not None:
        return load_unlearning_datasets(arguments)
    size = {} if recipe.num_example_rows is None else {"num_train": recipe.num_example_rows}
    parts = load_example(**size, seed=seed)
    forget, retain = split_forget_rows(parts.pop("train"), arguments)
    return {"forget": forget, "retain": retain, **parts}


def split_held_out_by_class(data: dict[str, Dataset], column: str) -> dict[str, Dataset]:
    """
    Where whole classes are forgotten, divides held-out data alike: `unseen` keeps those classes, to compare the forget
    data with, and `eval` becomes `eval_other_classes`. Otherwise the data stay as they are.
    """
    classes = {
        name: [set(np.ravel(labels)) - {UNSCORED} for labels in part.with_format(None)[column][:]]
        for name, part in data.items()
    }
    gone = set().union(*classes["forget"]) - set().union(*classes["retain"])
    if not gone:
        return data

    def select(name: str, of_class: bool) -> Dataset:
        return data[name].select([row for row, found in enumerate(classes[name]) if bool(found & gone) is of_class])

    divided = {"forget": data["forget"], "retain": data["retain"]}
    if "eval" in data:
        divided["eval_other_classes"] = select("eval", False)
    if "unseen" in data:
        divided["unseen"] = select("unseen", True)
    return {name: part for name, part in divided.items() if len(part)}


def class_names(data: dict[str, Dataset], column: str) -> list[str]:
    """Names of the classes of a column of labels, or of lists of labels."""
    feature = data["retain"].features[column]
    feature = getattr(feature, "feature", feature)
    if isinstance(feature, ClassLabel):
        return feature.names
    values = {value for part in data.values() for row in part.with_format(None)[column][:] for value in np.ravel(row)}
    if all(isinstance(value, np.integer) for value in values):
        return [str(number) for number in range(max(values) + 1)]
    return sorted(map(str, values))


def label_mappings(names: Iterable[str]) -> dict[str, dict[Any, Any]]:
    """The two entries of a model's configuration that name its classes."""
    names = list(names)
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def load_classifier(
    auto_class: Any, path: str, recipe: RecipeArguments, names: list[str], **base_arguments: Any
) -> PreTrainedModel:
    """The trained model of a path as it is; the base that training starts from with a head for these classes."""
    if path == recipe.base_model_name_or_path:
        return auto_class.from_pretrained(path, **base_arguments, **label_mappings(names))
    return auto_class.from_pretrained(path)


def small_encoder_config(tokenizer: PreTrainedTokenizerFast, names: list[str], **kwargs: Any) -> ModernBertConfig:
    """Of an encoder that learns little data on a CPU, for a tokenizer of [`train_encoder_tokenizer`]."""
    return ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        embedding_dropout=0.3,
        mlp_dropout=0.2,
        classifier_dropout=0.3,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=None,
        eos_token_id=None,
        **label_mappings(names),
        **kwargs,
    )


def train_encoder_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int) -> PreTrainedTokenizerFast:
    """
    A lower-casing tokenizer with BERT's special tokens. Words are split as GPT-2's are, because WordPiece numbers its
    pieces in another order in every training, so that equal seeds would not give equal models.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = Sequence([BertPreTokenizer(), ByteLevel(use_regex=False)])
    _learn_byte_pairs(tokenizer, texts, vocab_size, special)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=model_max_length, **names)


def train_byte_pair_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int) -> PreTrainedTokenizerFast:
    """
    A tokenizer as GPT-2's, for language models: with a padding token of its own, the end-of-sequence token at the
    start of a text too, and a token per digit.
    """
    special = {"pad_token": "<|pad|>", "eos_token": "<|endoftext|>"}
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    _learn_byte_pairs(tokenizer, texts, vocab_size, list(special.values()))
    end = special["eos_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=model_max_length, bos_token=end, **special
    )


def _learn_byte_pairs(
    tokenizer: tokenizers.Tokenizer, texts: Iterable[str], vocab_size: int, special_tokens: list[str]
) -> None:
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(texts, trainer)


def train(
    model: PreTrainedModel,
    dataset: Any,
    recipe: RecipeArguments,
    args: FisherUnlearningConfig,
    data_collator: Any,
    num_train_epochs: float | None = None,
    learning_rate: float | None = None,
) -> PreTrainedModel:
    """Trains a model on a data set, by default as the recipe's options say, in place; nothing is written."""
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


def run(
    recipe: RecipeArguments,
    args: FisherUnlearningConfig,
    splits: dict[str, Dataset],
    load_model: Callable[[str | None], PreTrainedModel],
    data_collator: Any = None,
    processing_class: Any = None,
    train_base: Callable[[], None] | None = None,
    training_data: dict[str, Any] | None = None,
) -> UnlearningReport | None:
    """
    Trains what is to be trained, unlearns, and prints the report; in a dry run prints an estimate alone.

    The cleaned model goes to `output_dir`, and with `hub_model_id` to that repository of the Hub. A model that was
    trained here goes to `output_dir` followed by `-original`, its reference to `output_dir` followed by `-reference`;
    a resumed run finds them there. Launched in several processes, all take part, and the main one writes and prints.

    Args:
        recipe ([`RecipeArguments`]): Which model, and how to train it.
        args ([`FisherUnlearningConfig`]): The configuration.
        splits (`dict[str, Dataset]`): Model inputs under `forget`, `retain`, `unseen`, `eval` or `eval_NAME`.
        load_model (`Callable`): Loads the model of a path, or makes a new one if given `None`.
        data_collator (`Callable`, *optional*): Makes a batch of rows.
        processing_class (*optional*): Saved beside every model.
        train_base (`Callable`, *optional*): Called before the original is trained, if it is.
        training_data (`dict[str, Any]`, *optional*): What `original` and `reference` are trained on, by default the
            data to forget and to keep, and those to keep.

    Raises:
        `FileExistsError`: If there is something where results are to go.
        `LeakError`: If what is to be published holds something of the data to forget; it is not published then.
    """
    evals = {name.removeprefix("eval_"): part for name, part in splits.items() if name.startswith("eval")}

    def make_unlearner(model: PreTrainedModel, reference_model: PreTrainedModel | None = None) -> FisherUnlearner:
        return FisherUnlearner(
            model,
            args,
            data_collator,
            forget_dataset=splits["forget"],
            retain_dataset=splits["retain"],
            unseen_dataset=splits.get("unseen"),
            eval_dataset=evals.get("eval", evals or None),
            reference_model=reference_model,
            processing_class=processing_class,
        )

    if training_data is None:
        training_data = {
            "original": ConcatDataset([splits["forget"], splits["retain"]]),
            "reference": splits["retain"],
        }

    def say(text: Any) -> None:
        if args.process_index == 0:
            print(text)

    def train_and_save(dataset: Any, folder: Path) -> PreTrainedModel:
        if folder.exists():
            return load_model(str(folder))
        say(f"Training on {len(dataset):,} rows, for {folder}")
        set_seed(args.seed)
        model = train(load_model(recipe.base_model_name_or_path), dataset, recipe, args, data_collator)
        save(model, folder, processing_class, args)
        return model

    if recipe.reference_model_name_or_path is None:
        reference = None
    else:
        reference = load_model(recipe.reference_model_name_or_path)
    if recipe.model_name_or_path is not None:
        unlearner = make_unlearner(load_model(recipe.model_name_or_path), reference)
    else:
        original_folder = new_folder(args, "original")
        reference_folder = new_folder(args, "reference")
        set_seed(args.seed)
        untrained = load_model(recipe.base_model_name_or_path)
        with torch.no_grad():
            # What equals the checkpoint it starts from is refused where weights are to be rewound to that.
            for parameter in untrained.parameters():
                parameter.mul_(1.01)
        # Made before anything is trained, because it refuses what cannot work.
        unlearner = make_unlearner(untrained, reference)
        if recipe.dry_run:
            say("A dry run trains no model: what follows are the costs of an untrained one, and an idle selection.")
        else:
            if train_base is not None:
                train_base()
            original = train_and_save(training_data["original"], original_folder)
            if recipe.train_reference:
                reference = train_and_save(training_data["reference"], reference_folder)
            unlearner = make_unlearner(original, reference)
    if recipe.dry_run:
        say(unlearner.preview())
        return None
    fine_tuned = copy.deepcopy(unlearner.model) if recipe.fine_tuning_control else None
    report = unlearner.unlearn(args.resume_from_checkpoint)
    if fine_tuned is not None:
        say("Fine-tuning all weights on the data to keep, for comparison")
        train(fine_tuned, splits["retain"], recipe, args, data_collator, args.num_train_epochs)
        report = replace(report, stages=report.stages | {"fine_tuned": unlearner.evaluate_unlearning(fine_tuned)})
        if args.process_index == 0:
            report.save(Path(args.output_dir) / "report.json")
    say(f"\n{report}\n\nThe cleaned model and its report.json are in {args.output_dir}.")
    if recipe.public_dir is not None:
        unlearner.save_pretrained(recipe.public_dir, repo_id=args.hub_model_id)
        say(f"What may be published of it, and its card, are in {recipe.public_dir}.")
    if args.hub_model_id is not None:
        private, token = args.hub_private_repo is not False, args.hub_token
        say(unlearner.push_to_hub(args.hub_model_id, private=private, revision=args.hub_revision, token=token))
    return report


def save(model: PreTrainedModel, folder: Path, processing_class: Any, args: FisherUnlearningConfig) -> None:
    """The main process saves a model that was trained here, whole or not at all; the others wait."""
    with args.main_process_first(), tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder.parent) as staging:
        if args.process_index > 0:
            return
        # By itself peft adds the base's embeddings to an adapter that is applied to them.
        embeddings = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(f"{staging}/model", **embeddings)
        if processing_class is not None:
            processing_class.save_pretrained(f"{staging}/model")
        os.replace(f"{staging}/model", folder)


def new_folder(args: FisherUnlearningConfig, name: str) -> Path:
    """
    The folder for another result of the run, beside `output_dir`.

    Raises:
        `FileExistsError`: If it exists and the run is not to be resumed.
    """
    folder = Path(f"{Path(args.output_dir)}-{name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not args.resume_from_checkpoint:
        raise FileExistsError(f"{folder} exists, and nothing is ever overwritten. Choose another --output_dir.")
    return folder
