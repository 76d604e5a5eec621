# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Arguments of an unlearning run."""

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from .evaluation.checks import check_measurements
from .evaluation.recovery import RELEARNING_DATA
from .fisher.checks import check_fisher_type
from .models.scope import check_reset_scope
from .publishing.redaction import FORGET_DISCLOSURES, check_disclosure
from .repair.plan import check_repair_options
from .reset.values import check_reset_value
from .runtime.processes import check_parallelism
from .selection.knowledge import TARGETS, check_target
from .selection.rules import SELECTION_RULES, check_selection_rule
from .selection.sweep import check_gammas


@dataclass
class FisherUnlearningConfig(TrainingArguments):
    r"""
    Arguments of [`FisherUnlearner`]: those of the repair phase, inherited from [`~transformers.TrainingArguments`],
    and those of unlearning.

    > [!NOTE]
    > Defaults that differ from [`~transformers.TrainingArguments`]: `save_strategy` is `"no"`; the cleaned model is
    > written at the end in any case. `warmup_steps` is 0.1, a tenth of the repair: weights that have just been reset
    > stand at the start of a training.

    > Parameters that control the Fisher pass

    Args:
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            Whose labels the Fisher information is taken at: `"empirical"` (the given ones), `"sampled"` (drawn from
            the model, seeded) or `"expected"` (the exact expectation over classes, at one backward pass per class).
        per_device_fisher_batch_size (`int`, *optional*, defaults to `32`):
            Batch size of the Fisher pass. It decides time and memory, never the result.
        fisher_max_examples (`int`, *optional*):
            At most so many examples of each data set, drawn at random by `seed`, enter its Fisher information. By
            default all; with `selection="auto"`, whose trials make up for what a sample leaves open, 500, except of
            streams and beside a kept Fisher.
        accumulator_device (`str`, *optional*):
            `"cpu"` keeps the sums of both Fishers in the memory of the processor, for models that leave no room on
            their device. By default they are where the parameters are.
        state_save_seconds (`float`, *optional*, defaults to `60.0`):
            Time between two savings of the sums of a Fisher pass, from which an interrupted run goes on; more if a
            saving takes over 5 % of it.

        > Parameters that control which weights are reset

        selection (`str`, *optional*):
            `"auto"`: the deepest reset that a repair can recover from, found by trials on samples of the forget and
            the retain data; see [`search_selection`]. `"gamma"`, `"reset_fraction"` and `"adaptive"`: see
            [`select_weights`]. By default the rule whose value is given, else `"auto"`.
        gamma (`float`, *optional*):
            Weights with a ratio of forget to retain Fisher above it are reset.
        reset_fraction (`float`, *optional*):
            This share of the weights in scope, those with the largest ratios, is reset.
        target (`str`, *optional*):
            What the forget data should be like afterwards, which `selection="auto"` checks and warns of: `"unseen"`
            (data never seen) or `"chance"` (their classes are gone). By default it follows from whether their classes
            also occur in the retain data.
        num_selection_trials (`int`, *optional*, defaults to `6`):
            Trials of `selection="auto"`.
        num_selection_examples (`int`, *optional*, defaults to `64`):
            At most so many examples of each data set, drawn at random by `seed`, are evaluated in a trial.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            `"full"` (all weights) or `"adapter"` (those of the active LoRA adapter; the base is only read).
        target_modules (`list[str]`, *optional*):
            Names, or last parts of names, of the modules that may be reset. By default all.
        exclude_modules (`list[str]`, *optional*):
            Names, or last parts of names, of modules that may not be reset; see [`parameters_in_scope`].

        > Parameters that control the reset and its control

        reset_value (`str`, *optional*):
            `"zero"`, `"init"` (a fresh initialisation) or `"pretrained"` (the values before fine-tuning). For an
            adapter `"zero"` or `"init"` (its values before training), see [`reset_weights`]. By default
            `"pretrained"` if `pretrained_model` is given, else `"init"` for models with token embeddings and adapters,
            `"zero"` for all others; see [`reset.default_reset_value`].
        pretrained_model (`str`, *optional*):
            Path or id of the checkpoint before fine-tuning, for `reset_value="pretrained"`: of the same architecture
            and size, with any head or none, in any precision. Weights of a new head and of added tokens get a fresh
            initialisation instead. Checked before any work; see [`reset.check_pretrained_model`].
        random_mask_control (`bool`, *optional*, defaults to `False`):
            Whether to reset and repair as many weights drawn at random beside, for comparison. Doubles the repair.

        > Parameters that control the repair

        forget_penalty (`float`, *optional*):
            Weight of a penalty on forget examples that are known better than unseen ones, in every fourth to eighth
            step of the repair; see [`~penalty.ForgetPenalty`]. 0 leaves it out: then the repair reads retained data
            alone. By default 1.5 with `selection="auto"`, and 1 for language models and other heads without a class
            per example; it acts towards the target `"unseen"` if there is an `unseen_dataset`. The other rules have
            none.
        hard_example_share (`float`, *optional*):
            After the first epoch the repair reads this share of the retained data alone, those with the largest
            losses, as often as makes up an epoch; see [`~hard_examples.HardExampleSampler`]. 1 reads all. By default
            0.5 with `selection="auto"` for a model that gave 98 % of a sample of them the right class before the
            reset: then the largest losses are those of what the reset took. Else 1, and always 1 of a stream.

        > Parameters that control what is published

        forget_disclosure (`str`, *optional*, defaults to `"withheld"`):
            What card and public report tell of the forgotten data: `"withheld"` (nothing), `"size"` (how many there
            were) or `"description"` (what they were, too); see [`PublicReport`].
        forget_description (`str`, *optional*):
            What they were, in your words, for `forget_disclosure="description"`.

        > Parameters of further measurements

        gamma_sweep (`list[float]`, *optional*):
            Thresholds to try beside: for each of them the weights with a ratio above it are reset, evaluated without
            a repair, and put back. Costs an evaluation each.
        relearning_steps (`int`, *optional*, defaults to `0`):
            For so many steps of plain AdamW a copy of the cleaned model, and one of the reference model if there is
            one, are fine-tuned on the data to forget in the end, to see how fast they come back. Takes the memory of
            a copy of the model and of an optimizer of all weights in scope.
        relearning_learning_rate (`float`, *optional*):
            The learning rate of that. By default a tenth of `learning_rate`, because all weights in scope move and
            not only the selected ones.
        relearning_data (`list[str]`, *optional*, defaults to `["forget"]`):
            What they are fine-tuned on, each from the start: `"forget"` (the data to forget), `"retain"` (data to
            retain alone, drawn at random by `seed`; of a stream the first ones) or `"few_forget"` (a few examples to
            forget and data to retain, batch by batch in turns). Evaluated on all data to forget in any case.
        relearning_num_examples (`int`, *optional*, defaults to `10`):
            At most so many examples are the few of `"few_forget"`, drawn likewise.
        quantization_bits (`list[int]`, *optional*):
            4, 8 or both: the cleaned model, and the reference model if there is one, are also evaluated with weights
            rounded to so many bits; see [`quantized`]. Costs an evaluation each. Not for adapters.
    """

    save_strategy: str = field(
        default="no", metadata={"help": "When to save checkpoints of the repair: 'no', 'steps', 'epoch' or 'best'."}
    )

    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of the warm-up of the repair's learning rate; below 1, a share of all."}
    )

    fisher_type: str = field(
        default="empirical",
        metadata={
            "help": "Labels of the Fisher information: the given ones, drawn from the model, or all in expectation.",
            "choices": ["empirical", "sampled", "expected"],
        },
    )
    per_device_fisher_batch_size: int = field(
        default=32, metadata={"help": "Batch size of the Fisher pass; it never changes the result."}
    )
    fisher_max_examples: int | None = field(
        default=None,
        metadata={
            "help": "At most so many random examples of each data set enter its Fisher information; by default all, "
            "with --selection auto 500."
        },
    )
    accumulator_device: str | None = field(
        default=None,
        metadata={"help": "Keep the sums of the Fishers on the processor ('cpu'); by default where the weights are."},
    )
    state_save_seconds: float = field(
        default=60.0, metadata={"help": "Seconds between two savings of a Fisher pass, to resume from."}
    )
    selection: str | None = field(
        default=None,
        metadata={
            "help": "Rule that selects the weights; by default the one whose value is given, else 'auto'.",
            "choices": list(SELECTION_RULES),
        },
    )
    gamma: float | None = field(
        default=None, metadata={"help": "Reset the weights whose ratio of forget to retain Fisher is above it."}
    )
    reset_fraction: float | None = field(
        default=None, metadata={"help": "Reset this share of the weights in scope, those with the largest ratios."}
    )
    target: str | None = field(
        default=None,
        metadata={
            "help": "What --selection auto checks: forget data as 'unseen', or answers at 'chance' (classes gone).",
            "choices": list(TARGETS),
        },
    )
    num_selection_trials: int = field(default=6, metadata={"help": "Trials of --selection auto."})
    num_selection_examples: int = field(
        default=64, metadata={"help": "At most so many examples of each data set are evaluated in a trial."}
    )
    reset_scope: str = field(
        default="full",
        metadata={
            "help": "Which weights may be reset: all, or those of the active LoRA adapter, with the base only read.",
            "choices": ["full", "adapter"],
        },
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of the modules that may be reset."}
    )
    exclude_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Names, or last parts of names, of modules that may not be reset."},
    )
    reset_value: str | None = field(
        default=None,
        metadata={
            "help": "What selected weights are reset to; by default 'pretrained' if --pretrained_model is given, "
            "'init' for models with token embeddings and adapters, else 'zero'.",
            "choices": ["zero", "init", "pretrained"],
        },
    )
    pretrained_model: str | None = field(
        default=None,
        metadata={"help": "Path or id of the checkpoint before fine-tuning, for --reset_value pretrained."},
    )
    random_mask_control: bool = field(
        default=False, metadata={"help": "Also reset and repair as many weights drawn at random, for comparison."}
    )
    forget_penalty: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the penalty on forget examples that are known better than unseen ones, in the repair; "
            "0: none. By default with --selection auto 1.5, for language models 1; else 0."
        },
    )
    hard_example_share: float | None = field(
        default=None,
        metadata={
            "help": "After its first epoch the repair reads this share of the retained data alone, those with the "
            "largest losses. By default 0.5 with --selection auto and a model that knew the classes of all, else 1."
        },
    )
    gamma_sweep: list[float] | None = field(
        default=None,
        metadata={"help": "Also try these thresholds of the ratio: reset, evaluate without a repair, and put back."},
    )
    relearning_steps: int = field(
        default=0,
        metadata={"help": "Fine-tune a copy on the data to forget for so many steps, to see how fast they come back."},
    )
    relearning_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of that; by default a tenth of --learning_rate."}
    )
    relearning_data: list[str] = field(
        default_factory=lambda: ["forget"],
        metadata={
            "help": "What that trains on: the data to forget, those to retain, or these and a few to forget.",
            "choices": list(RELEARNING_DATA),
        },
    )
    relearning_num_examples: int = field(
        default=10,
        metadata={"help": "At most so many examples to forget are the few of --relearning_data few_forget."},
    )
    quantization_bits: list[int] | None = field(
        default=None,
        metadata={"help": "Also evaluate the result with weights rounded to 4 or 8 bits.", "choices": [4, 8]},
    )

    forget_disclosure: str = field(
        default="withheld",
        metadata={
            "help": "What the published card tells of the forgotten data: nothing, how many, or what they were too.",
            "choices": list(FORGET_DISCLOSURES),
        },
    )
    forget_description: str | None = field(
        default=None, metadata={"help": "What was forgotten, in your words, for --forget_disclosure description."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if str(self.resume_from_checkpoint).lower() in ("true", "false"):
            # On the command line it is a string.
            self.resume_from_checkpoint = str(self.resume_from_checkpoint).lower() == "true"
        check_fisher_type(self.fisher_type, None)
        self.selection = check_selection_rule(self.selection, self.gamma, self.reset_fraction, by_trials=True)
        check_target(self.target, self.selection)
        if self.forget_penalty is None and self.selection != "auto":
            self.forget_penalty = 0.0
        check_repair_options(
            self.forget_penalty, self.hard_example_share, self.selection, str(self.train_sampling_strategy)
        )
        check_reset_scope(self.reset_scope)
        if self.reset_value is None and self.pretrained_model is not None:
            self.reset_value = "pretrained"
        if self.reset_value is not None:
            check_reset_value(self.reset_value, self.pretrained_model, self.reset_scope)
        self._check_numbers()
        check_disclosure(self.forget_disclosure, self.forget_description)
        if self.gamma_sweep is not None:
            self.gamma_sweep = check_gammas(self.gamma_sweep)
        check_measurements(
            self.relearning_steps, self.relearning_learning_rate, self.relearning_data, self.quantization_bits
        )
        self._check_training_arguments()

    def _check_numbers(self) -> None:
        if self.accumulator_device not in (None, "cpu"):
            raise ValueError(
                f"`accumulator_device` is {self.accumulator_device!r} but must be 'cpu', or left out to keep the sums "
                "where the weights are."
            )
        if not self.state_save_seconds >= 0:
            raise ValueError(f"`state_save_seconds` is {self.state_save_seconds} but must be a time, 0 or more.")
        counts = ("num_selection_trials", "num_selection_examples", "relearning_num_examples")
        for name in ("per_device_fisher_batch_size", "fisher_max_examples", *counts):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value} but must be at least 1.")

    def _check_training_arguments(self) -> None:
        if self.push_to_hub:
            raise ValueError(
                "`push_to_hub=True` would publish checkpoints of a model that still holds what it is to forget. Leave "
                "it out; when `unlearn()` is done, call `unlearner.push_to_hub(repo_id)`."
            )
        if not str(self.optim.value).startswith("adamw"):
            raise ValueError(
                f"`optim` is {self.optim.value!r}, but the repair trains single entries of tensors, which only "
                "`SparseAdamW` does. Leave `optim` at its default; its rate, betas, epsilon and decay are honoured."
            )
        check_parallelism(fsdp=bool(self.fsdp), deepspeed=bool(self.deepspeed))

    def reported_settings(self) -> dict[str, Any]:
        """The settings that enter the report: those of unlearning, and those that decide the repair."""
        own = {item.name for item in fields(FisherUnlearningConfig)} - {
            item.name for item in fields(TrainingArguments)
        }
        repair = {
            *("num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay"),
            *("max_grad_norm", "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16"),
        }
        # `to_dict` turns enumerations into their values.
        return {name: value for name, value in self.to_dict().items() if name in own | repair}

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of the warm-up; of very few steps none, since the first one of a warm-up changes nothing."""
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return math.floor(num_training_steps * self.warmup_steps)

    @classmethod
    def from_training_arguments(cls, args: TrainingArguments, **overrides: Any) -> "FisherUnlearningConfig":
        """
        The configuration with the values of other training arguments.

        Args:
            args ([`~transformers.TrainingArguments`]):
                The arguments to take over; what concerns the Hub is left out, and so is a warm-up of 0.
            overrides:
                Fields that get another value.
        """
        known = {item.name for item in fields(cls) if item.init}
        if args.warmup_steps == 0:
            # The default of a training, which does not start from weights that have just been reset.
            known.discard("warmup_steps")
        values = {
            item.name: getattr(args, item.name)
            for item in fields(args)
            if item.name in known and not item.name.startswith(("push_to_hub", "hub_", "gradient_checkpointing"))
        }
        return cls(**(values | overrides))

    @classmethod
    def beside_training(cls, args: TrainingArguments, **overrides: Any) -> "FisherUnlearningConfig":
        """
        The configuration of a run on the model that a training made.

        Args:
            args ([`~transformers.TrainingArguments`]):
                The arguments of the training.
            overrides:
                Fields that get another value. By default the output directory is that of the training, followed by
                `-unlearned`; no checkpoints are saved; and the learning rate is five times that of the training,
                because few weights move, and from far away.
        """
        defaults = {
            "output_dir": f"{os.path.normpath(args.output_dir)}-unlearned",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "optim": "adamw_torch",
            "learning_rate": 5 * args.learning_rate,
        }
        return cls.from_training_arguments(args, **(defaults | overrides))
