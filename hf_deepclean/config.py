# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Arguments of an unlearning run."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from .config_checks import check_options
from .evaluation.recovery import RELEARNING_DATA
from .fisher.checks import FISHER_TYPES
from .models.scope import RESET_SCOPES
from .publishing.redaction import FORGET_DISCLOSURES
from .reset.values import RESET_VALUES
from .selection.knowledge import TARGETS
from .selection.rules import SELECTION_RULES, check_selection_rule
from .selection.sweep import check_gammas
from .taken_over import values_beside_training, values_taken_over


@dataclass
class FisherUnlearningConfig(TrainingArguments):
    """
    The options of [`FisherUnlearner`]: those of unlearning, listed here, and those of
    [`~transformers.TrainingArguments`], which control the repair.

    A run needs one value from you: `learning_rate`, that of the repair. Take about five times that of the model's
    training, because only the reset weights are trained, and the reset moved them far away. All options below can stay
    at their defaults.

    > [!NOTE]
    > Two defaults differ from [`~transformers.TrainingArguments`]: `save_strategy` is `"no"`, because the cleaned
    > model is written in any case, and `warmup_steps` is 0.1, a tenth of the repair.

    > Parameters that control the cost

    Args:
        budget (`float`, *optional*, defaults to `0.15`):
            What the run may cost, as a share of the training that made the model, if its length is known; see
            [`plan_run`]. Evaluations do not count.
        training_steps (`int`, *optional*):
            Number of optimizer steps of that training, each of as many rows as a step in this configuration
            (`per_device_train_batch_size * gradient_accumulation_steps` in each of as many processes).
            [`FisherUnlearner.from_trainer`] fills it in. If it is unknown, the budget limits nothing.

        > Parameters that control the Fisher pass

        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            The labels at which the Fisher information is taken: `"empirical"` (the given labels), `"sampled"` (labels
            drawn from the model, by `seed`) or `"expected"` (the exact expectation over all classes, which takes one
            backward pass per class).
        per_device_fisher_batch_size (`int`, *optional*, defaults to `32`):
            Examples per batch and process in the Fisher pass. It changes time and memory, never the result.
        fisher_max_examples (`int`, *optional*):
            At most this many examples of each data set, drawn at random by `seed`, enter its Fisher. By default all
            do, with `selection="auto"` 500, and fewer (at least 64) if the budget is small. A stream, and data beside
            a kept Fisher, are then read whole.
        accumulator_device (`str`, *optional*):
            `"cpu"` keeps the sums of both Fishers, two float32 numbers per weight in scope, in CPU memory. By default
            they are on the device of the parameters.
        state_save_seconds (`float`, *optional*, defaults to `60.0`):
            Seconds between two savings of the sums of a Fisher pass, from which an interrupted run continues. The time
            is longer where a saving would take over 5 % of it.

        > Parameters that control which weights are reset

        selection (`str`, *optional*):
            The rule that selects the weights. `"auto"`: the deepest reset that a repair can recover from, found by
            trials on samples of the forget and the retain set; see [`search_selection`]. `"gamma"`,
            `"reset_fraction"` and `"adaptive"`: see [`select_weights`]. By default the rule whose value is given, else
            `"auto"`.
        gamma (`float`, *optional*):
            Resets the weights whose ratio of forget to retain Fisher is above this threshold (the rule of the paper).
        reset_fraction (`float`, *optional*):
            Resets this share of the weights in scope, those with the largest ratios.
        target (`str`, *optional*):
            What the forget data should look like afterwards: `"unseen"` (data that the model never saw) or `"chance"`
            (data of classes that the model does not know). `selection="auto"` works towards it, and a warning says if
            it was not reached. By default `"chance"` if no class of the forget data occurs in the retain data, else
            `"unseen"`.
        num_selection_trials (`int`, *optional*):
            Number of trials of `selection="auto"`. By default 6, and fewer (at least 3) if the budget is small.
        num_selection_examples (`int`, *optional*):
            At most this many forget and retain examples, drawn by `seed`, are evaluated in a trial. By default 64, and
            fewer (at least 32) if the budget is small.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            `"full"` (all weights) or `"adapter"` (the weights of the active LoRA adapter; the base is only read).
        target_modules (`list[str]`, *optional*):
            Names, or last parts of names, of the modules whose weights may be reset. By default all modules.
        exclude_modules (`list[str]`, *optional*):
            Names, or last parts of names, of modules that stay frozen; see [`parameters_in_scope`]. By default none.
            The changed rows of token embeddings show anyone who has the old weights which tokens the forget data
            use. Excluding the embeddings prevents this, but a text classifier then hardly forgets random examples.

        > Parameters that control the reset and its control

        reset_value (`str`, *optional*):
            The value of the selected weights after the reset: `"zero"`, `"init"` (a fresh initialisation; for an
            adapter its values before training), `"pretrained"` (the values in the checkpoint before fine-tuning; not
            for adapters; see [`reset_weights`]) or `"natural"` (the nearest values, by the retain Fisher, at which the
            forget data look like unseen data; see [`NaturalReset`]). If the checkpoint is given or at hand, the
            default is `"natural"` where it is possible, else `"pretrained"`; without it `"init"` for adapters and
            models with token embeddings, `"zero"` for all others.
        pretrained_model (`str`, *optional*):
            Path or id of the checkpoint before fine-tuning, for `"pretrained"` and `"natural"`: same architecture and
            size, with any head or none, in any precision. Weights of a new head and of added tokens get a fresh
            initialisation instead. It is checked before any work; see [`check_pretrained_model`]. By default it is
            looked for on this machine; see [`find_base_checkpoint`].
        random_mask_control (`bool`, *optional*, defaults to `False`):
            Whether to also reset and repair equally many random weights, to see how much of the forgetting is due to
            the selection. It doubles the time of the repair.

        > Parameters that control the repair

        forget_penalty (`float`, *optional*):
            Weight of a penalty on forget examples that the model knows better than unseen ones (at most 50 of them:
            better or less), taken in every fourth to eighth step of the repair; see [`ForgetPenalty`]. It needs
            `selection="auto"`, the target `"unseen"` and an `unseen_dataset`. By default 1.5 for classifiers, 1 for
            language models and other heads without a class per example, and 0 with the other rules. Set it to 0 if the
            repair must read retain data alone.
        hard_example_share (`float`, *optional*):
            After the first epoch the repair reads only this share of the retain set, the rows with the largest losses,
            repeated until an epoch is full; see [`HardExampleSampler`]. 1 reads all rows. By default 0.5 with
            `selection="auto"` if the model classified 98 % of a retain sample correctly before the reset: then the
            rows with the largest losses are those that the reset damaged. Else 1, and always 1 for a stream.

        max_repair_rounds (`int`, *optional*, defaults to `3`):
            If the repair did not bring the retained data back, it is repeated up to this many times in all, as long as
            each round brings back more and the budget has room. Not with `max_steps`, `load_best_model_at_end` or an
            [`~transformers.EarlyStoppingCallback`].

        > Parameters that control what is published

        forget_disclosure (`str`, *optional*, defaults to `"withheld"`):
            What card and public report tell of the forget data: `"withheld"` (nothing), `"size"` (their number) or
            `"description"` (their number, and `forget_description`); see [`PublicReport`].
        forget_description (`str`, *optional*):
            The forget data in your words, for `forget_disclosure="description"`.

        > Parameters that control further measurements

        unseen_share_of_eval (`float`, *optional*):
            Takes this share of `eval_dataset`, drawn by `seed` from the rows whose class occurs in the forget data, as
            `unseen_dataset`; the figures of the evaluation data are those of the other rows. Set it, to 0.5 for
            example, if you have no other unseen data.
        gamma_sweep (`list[float]`, *optional*):
            Thresholds to compare. For each, the weights with a ratio above it are reset, the model is evaluated
            without a repair, and the reset is undone. Each takes one evaluation.
        relearning_steps (`int`, *optional*, defaults to `0`):
            Fine-tunes a copy of the cleaned model, and of the reference model if there is one, for this many steps of
            plain AdamW, to see how fast the forget data come back. It takes the memory of a copy of the model and of
            an optimizer of all weights in scope. 0 leaves the measurement out.
        relearning_learning_rate (`float`, *optional*):
            Learning rate of the relearning. By default a tenth of `learning_rate`, because all weights in scope move,
            not only the selected ones.
        relearning_data (`list[str]`, *optional*, defaults to `["forget"]`):
            What the copies are fine-tuned on; each entry is a measurement of its own: `"forget"` (the forget set),
            `"retain"` (retain rows drawn at random by `seed`; the first rows of a stream) or `"few_forget"` (batches
            of a few forget examples and of retain rows in turn). All are evaluated on the whole forget set.
        relearning_num_examples (`int`, *optional*, defaults to `10`):
            At most this many forget examples, drawn at random by `seed`, are trained on with `"few_forget"`.
        quantization_bits (`list[int]`, *optional*):
            4, 8 or both: also evaluates the cleaned model, and the reference model if there is one, with weights
            rounded to this many bits; see [`quantized`]. Each takes one evaluation per model. Not for adapters.

        > Parameters that control how models are loaded

        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with a model may be run if the model is given as a path or Hub id. Read it first.

        > Parameters that control the checks before a run

        dress_rehearsal (`bool`, *optional*, defaults to `True`):
            Whether the constructor tries every step of the run on two rows of every data set, so that what cannot work
            is told before the run and not at its end; see [`rehearse`]. It changes nothing. Switch it off if two rows
            already take too long.
    """

    save_strategy: str = field(
        default="no", metadata={"help": "When to save checkpoints of the repair: 'no', 'steps', 'epoch' or 'best'."}
    )

    warmup_steps: float = field(
        default=0.1, metadata={"help": "Warm-up steps of the repair; below 1, a share of all its steps."}
    )

    budget: float = field(
        default=0.15, metadata={"help": "What the run may cost, as a share of the training of --training_steps."}
    )
    training_steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps of the training, of as many rows as a step of the repair."}
    )
    fisher_type: str = field(
        default="empirical",
        metadata={
            "help": "Labels of the Fisher information: given, drawn from the model, or all classes in expectation.",
            "choices": list(FISHER_TYPES),
        },
    )
    per_device_fisher_batch_size: int = field(
        default=32, metadata={"help": "Batch size of the Fisher pass, per process; never changes the result."}
    )
    fisher_max_examples: int | None = field(
        default=None,
        metadata={
            "help": "At most this many random examples of each data set enter its Fisher. By default all, with "
            "--selection auto 500; fewer with a small budget."
        },
    )
    accumulator_device: str | None = field(
        default=None, metadata={"help": "'cpu' keeps the sums of the Fishers in CPU memory, not beside the weights."}
    )
    state_save_seconds: float = field(
        default=60.0, metadata={"help": "Seconds between two savings of a Fisher pass, to resume from."}
    )
    selection: str | None = field(
        default=None,
        metadata={
            "help": "Rule that selects the weights. By default the rule whose value is given, else 'auto'.",
            "choices": list(SELECTION_RULES),
        },
    )
    gamma: float | None = field(
        default=None, metadata={"help": "Reset the weights whose ratio of forget to retain Fisher is above this."}
    )
    reset_fraction: float | None = field(
        default=None, metadata={"help": "Reset this share of the weights in scope, those with the largest ratios."}
    )
    target: str | None = field(
        default=None,
        metadata={
            "help": "What the forget data should be like afterwards: 'unseen' data, or at 'chance' (classes gone).",
            "choices": list(TARGETS),
        },
    )
    num_selection_trials: int | None = field(
        default=None, metadata={"help": "Number of trials of --selection auto. By default at most 6."}
    )
    num_selection_examples: int | None = field(
        default=None, metadata={"help": "Forget and retain examples evaluated in a trial. By default at most 64."}
    )
    reset_scope: str = field(
        default="full",
        metadata={
            "help": "Which weights may be reset: all, or only those of the active LoRA adapter.",
            "choices": list(RESET_SCOPES),
        },
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of the modules that may be reset."}
    )
    exclude_modules: list[str] | None = field(
        default=None, metadata={"help": "Names, or last parts of names, of modules that stay frozen."}
    )
    reset_value: str | None = field(
        default=None,
        metadata={
            "help": "Value of the selected weights after the reset. By default 'natural' or 'pretrained' if "
            "--pretrained_model is given or found, 'init' for adapters and with token embeddings, else 'zero'.",
            "choices": list(RESET_VALUES),
        },
    )
    pretrained_model: str | None = field(
        default=None,
        metadata={"help": "Path or id of the checkpoint before fine-tuning. By default looked for on this machine."},
    )
    random_mask_control: bool = field(
        default=False, metadata={"help": "Also reset and repair equally many random weights, as a control."}
    )
    forget_penalty: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the repair's penalty on forget examples that are known better than unseen ones. By "
            "default, with --selection auto, 1.5 for classifiers and 1 for others; else 0 (no penalty)."
        },
    )
    hard_example_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of the retain data, those with the largest losses, that later epochs of the repair read. "
            "By default 0.5 with --selection auto if the model classified nearly all correctly, else 1."
        },
    )
    unseen_share_of_eval: float | None = field(
        default=None, metadata={"help": "Take this share of the eval data as unseen data, if there are no others."}
    )
    max_repair_rounds: int = field(
        default=3, metadata={"help": "The repair is repeated up to this often in all, if the retained data need it."}
    )
    gamma_sweep: list[float] | None = field(
        default=None, metadata={"help": "Also try these thresholds: reset, evaluate without a repair, undo."}
    )
    relearning_steps: int = field(
        default=0, metadata={"help": "Fine-tune a copy for this many steps, to see how fast the forget data return."}
    )
    relearning_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the relearning. By default a tenth of --learning_rate."}
    )
    relearning_data: list[str] = field(
        default_factory=lambda: ["forget"],
        metadata={
            "help": "What the relearning trains on: forget data, retain data, or a few forget data and retain data.",
            "choices": list(RELEARNING_DATA),
        },
    )
    relearning_num_examples: int = field(
        default=10,
        metadata={"help": "At most this many forget examples are trained on with --relearning_data few_forget."},
    )
    quantization_bits: list[int] | None = field(
        default=None,
        metadata={"help": "Also evaluate the result with weights rounded to 4 or 8 bits.", "choices": [4, 8]},
    )

    dress_rehearsal: bool = field(
        default=True, metadata={"help": "Try every step on two rows of every data set before the run."}
    )

    forget_disclosure: str = field(
        default="withheld",
        metadata={
            "help": "What the published card tells of the forget data: nothing, their number, or a description too.",
            "choices": list(FORGET_DISCLOSURES),
        },
    )
    forget_description: str | None = field(
        default=None, metadata={"help": "The forget data in your words, for --forget_disclosure description."}
    )

    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that a model comes with. Read it first."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if str(self.resume_from_checkpoint).lower() in ("true", "false"):
            # The command line gives a string.
            self.resume_from_checkpoint = str(self.resume_from_checkpoint).lower() == "true"
        self.selection = check_selection_rule(self.selection, self.gamma, self.reset_fraction, by_trials=True)
        if self.forget_penalty is None and self.selection != "auto":
            self.forget_penalty = 0.0
        if self.gamma_sweep is not None:
            self.gamma_sweep = check_gammas(self.gamma_sweep)
        check_options(self)

    def reported_settings(self) -> dict[str, Any]:
        """The settings that enter the report: all of unlearning, and those that determine the repair."""
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
        """Number of warm-up steps, rounded down, because the first one has a learning rate of 0."""
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return math.floor(num_training_steps * self.warmup_steps)

    @classmethod
    def from_training_arguments(cls, args: TrainingArguments, **overrides: Any) -> "FisherUnlearningConfig":
        """
        Makes a configuration from training arguments.

        Args:
            args ([`~transformers.TrainingArguments`]):
                The arguments to take over, except those of the Hub and a warm-up of 0.
            overrides:
                Fields that get another value.
        """
        return cls(**(values_taken_over(args, cls._names()) | overrides))

    @classmethod
    def beside_training(cls, args: TrainingArguments, **overrides: Any) -> "FisherUnlearningConfig":
        """
        Makes the configuration of a run on the model that a training made.

        Taken over is what memory, loss and data need: batch sizes, accumulation, precision, weight decay, clipping,
        betas, label smoothing, seeds, loaders and logging. Not taken over is what belongs to the training alone: its
        length (`num_train_epochs`, `max_steps`), schedule and warm-up, optimizer, noise (`neftune_noise_alpha`), its
        evaluations, checkpoints and best model, and what it was continued from. These get the defaults of this class.

        Args:
            args ([`~transformers.TrainingArguments`]):
                The arguments of the training.
            overrides:
                Fields that get another value. By default the output directory is that of the training, followed by
                `-unlearned`, and the learning rate is five times that of the training.
        """
        return cls(**(values_beside_training(args, cls._names()) | overrides))

    @classmethod
    def _names(cls) -> set[str]:
        return {item.name for item in fields(cls) if item.init}
