# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has to do, and how it does it."""

from dataclasses import dataclass, field, replace
from typing import Literal


_BATCH_SIZES = ("fisher_batch_size", "train_batch_size", "eval_batch_size")


@dataclass(frozen=True)
class Job:
    """What a run has to do: examples, epochs, batches and the reset."""

    _argument_group_name = "job"

    num_forget_examples: int = field(metadata={"help": "Number of examples to forget in one request."})
    num_retain_examples: int = field(metadata={"help": "Number of examples to keep."})
    tokens_per_example: int = field(metadata={"help": "Number of tokens of an example, including padding."})
    num_eval_examples: int = field(default=0, metadata={"help": "Number of test examples."})
    num_unseen_examples: int = field(default=0, metadata={"help": "Number of examples that no model was trained on."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the retain data in the repair."})
    max_steps: int = field(
        default=-1, metadata={"help": "Optimizer steps of the repair; above 0 they replace the epochs."}
    )
    reset_fraction: float = field(default=0.1, metadata={"help": "Share of the weights in scope that is reset."})
    reset_value: Literal["zero", "init", "pretrained"] = field(
        default="init", metadata={"help": "Value that the weights are reset to."}
    )
    fisher_batch_size: int = field(default=8, metadata={"help": "Examples per batch and process in the Fisher pass."})
    train_batch_size: int = field(default=8, metadata={"help": "Examples per batch and process in the repair."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per optimizer step of the repair."})
    eval_batch_size: int = field(default=8, metadata={"help": "Examples per batch and process in the evaluation."})
    kept_fisher: bool = field(
        default=False,
        metadata={"help": "The Fisher of all training data was kept, so there is no pass over the retain data."},
    )
    with_reference: bool = field(default=False, metadata={"help": "A reference model is evaluated too."})
    random_mask_control: bool = field(default=False, metadata={"help": "A random mask is reset and repaired too."})

    def __post_init__(self) -> None:
        for name in ("num_forget_examples", "num_retain_examples", "tokens_per_example", *_BATCH_SIZES):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)} but must be at least 1.")
        if not 0 < self.reset_fraction <= 1:
            raise ValueError(f"`reset_fraction` is {self.reset_fraction} but must be above 0 and at most 1.")

    def in_single_examples(self) -> "Job":
        """The same job with batches of one example; gradient accumulation keeps the size of a repair step."""
        accumulated = self.gradient_accumulation_steps * self.train_batch_size
        return replace(self, **dict.fromkeys(_BATCH_SIZES, 1), gradient_accumulation_steps=accumulated)

    @property
    def num_evaluated(self) -> int:
        """Number of examples in one evaluation."""
        evaluated = self.num_eval_examples + self.num_unseen_examples
        return self.num_forget_examples + self.num_retain_examples + evaluated


@dataclass(frozen=True)
class Setting:
    """How a run does its job: precision, processes, and where the tensors are kept."""

    _argument_group_name = "setting"

    dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "Precision of the model's weights."}
    )
    num_processes: int = field(
        default=1, metadata={"help": "Number of processes, each with its own device and share of the data."}
    )
    sharded: bool = field(
        default=False, metadata={"help": "Shard the weights and the Fisher sums over the processes (FSDP2)."}
    )
    accumulator_device: Literal["device", "cpu"] = field(
        default="device", metadata={"help": "Where the Fisher sums are kept."}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Keep only the input of every layer, and compute its activations twice."}
    )
    fisher_products: Literal["float32", "tf32", "bfloat16"] = field(
        default="float32", metadata={"help": "Precision of the squared products in the Fisher pass."}
    )

    def __post_init__(self) -> None:
        if self.num_processes < 1:
            raise ValueError(f"`num_processes` is {self.num_processes} but must be at least 1.")
        if self.sharded and self.num_processes == 1:
            raise ValueError("`sharded` shards the weights over processes, but `num_processes` is 1. Raise it.")
