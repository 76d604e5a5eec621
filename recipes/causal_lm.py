# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make a language model forget some of the texts it was trained on.

The example: a small model learns facts about sixty fictitious people beside ordinary English, offline and on a CPU.
Forget ten of the people:

```shell
python recipes/causal_lm.py --config recipes/configs/causal_lm.yaml --output_dir outputs/people
```

Your own model and data, with the column `text`, or the columns `prompt` and `completion`:

```shell
python recipes/causal_lm.py --model_name_or_path my-model --dataset_name data/train.jsonl \
    --forget_filter 'person in ("Ada Smith", "Bob Jones")' --output_dir clean-model --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from common import RecipeArguments, RecipeRun, load_data, new_folder, save, train
from datasets import Dataset, concatenate_datasets
from example_data import fictitious_people, load_ordinary_text, load_people, sentences
from example_tokenizers import train_byte_pair_tokenizer
from torch.utils.data import ConcatDataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    set_seed,
)

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser, check_tokenizer, tokenize_causal_lm


MAX_LENGTH = 128


@dataclass
class LanguageModelArguments(RecipeArguments):
    """
    [`RecipeArguments`], and how the recipe trains a base on ordinary text if none is named.

    Args:
        num_ordinary_rows (`int`, *optional*, defaults to `4000`):
            Number of ordinary texts to train the base on.
        num_mixed_rows (`int`, *optional*, defaults to `500`):
            Number of these texts in the retain data, for the Fisher and the repair.
        num_repetitions (`int`, *optional*, defaults to `20`):
            How often the original reads each sentence about a person while it reads each ordinary text once more.
        num_base_people (`int`, *optional*, defaults to `0`):
            Number of other people whose facts the base learns by heart, with the same repetitions.
        base_num_train_epochs (`int`, *optional*, defaults to `3`):
            How often the base reads the ordinary texts.
        base_learning_rate (`float`, *optional*, defaults to `1e-3`):
            Peak learning rate of the base's training.
    """

    num_ordinary_rows: int = field(default=4000, metadata={"help": "Number of ordinary texts to train the base on."})
    num_mixed_rows: int = field(default=500, metadata={"help": "Number of these texts in the retain data."})
    num_repetitions: int = field(
        default=20, metadata={"help": "How often the original reads each sentence about a person."}
    )
    num_base_people: int = field(
        default=0, metadata={"help": "Number of other people whose facts the base learns by heart."}
    )
    base_num_train_epochs: int = field(default=3, metadata={"help": "How often the base reads the ordinary texts."})
    base_learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of the base's training."})


def make_parser() -> UnlearningParser:
    return UnlearningParser((LanguageModelArguments, DataArguments, FisherUnlearningConfig))


def main(
    recipe: LanguageModelArguments,
    data_arguments: DataArguments,
    args: FisherUnlearningConfig,
    add_adapter: Callable[[PreTrainedModel], Any] | None = None,
) -> None:
    """Runs the recipe. `add_adapter` turns the base into the model that is trained and cleaned."""
    data = load_data(recipe, data_arguments, load_people, args.seed)
    trains_base = recipe.model_name_or_path is None and recipe.base_model_name_or_path is None
    is_example = data_arguments.dataset_name is None
    ordinary = load_ordinary_text(recipe.num_ordinary_rows, args.seed) if trains_base or is_example else {}

    if trains_base:
        columns = [name for name in ("text", "prompt", "completion") if name in data["retain"].column_names]
        texts = [text for part in ("forget", "retain") for name in columns for text in data[part][name]]
        tokenizer = train_byte_pair_tokenizer([*ordinary["train"]["text"], *texts], 4000, MAX_LENGTH)
    else:
        checkpoint = recipe.model_name_or_path or recipe.base_model_name_or_path
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=args.trust_remote_code)
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
    splits = {name: tokenize_causal_lm(part, tokenizer, recipe.max_length) for name, part in data.items()}
    ordinary = {name: tokenize_causal_lm(part, tokenizer, MAX_LENGTH) for name, part in ordinary.items()}
    training_data = None
    if is_example:
        kept = splits["retain"]
        training_data = {
            "original": ConcatDataset([splits["forget"], kept] * recipe.num_repetitions + [ordinary["train"]]),
            "reference": ConcatDataset([kept] * recipe.num_repetitions + [ordinary["train"]]),
        }
        splits["eval_kept"] = kept
        splits["eval_ordinary"] = ordinary["eval"]
        mixed = ordinary["train"].select(range(min(recipe.num_mixed_rows, len(ordinary["train"]))))
        splits["retain"] = concatenate_datasets([kept, mixed])

    base_folder = new_folder(args, "base") if trains_base else None

    def load_model(path: str | None) -> Any:
        if add_adapter is not None and path is not None and path != recipe.base_model_name_or_path:
            check_tokenizer_of_adapter(tokenizer, path, args.trust_remote_code)
            return path
        if path is None and base_folder.exists():
            path = base_folder
        if path is None:
            model = new_model(tokenizer)
        else:
            model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=args.trust_remote_code)
        check_tokenizer(tokenizer, model)
        return model if add_adapter is None else add_adapter(model)

    def train_base() -> None:
        if base_folder.exists():
            return
        rows = [ordinary["train"]] * recipe.base_num_train_epochs
        if recipe.num_base_people:
            # Another seed, so that the people of the example are not among them.
            people = fictitious_people(recipe.num_base_people, args.seed + 1000)
            known = Dataset.from_list([row for person in people for row in sentences(person)])
            rows += [tokenize_causal_lm(known, tokenizer, MAX_LENGTH)] * recipe.num_repetitions
        dataset = ConcatDataset(rows)
        if args.process_index == 0:
            print(f"Training on {len(dataset):,} rows, for {base_folder}")
        set_seed(args.seed)
        model = train(new_model(tokenizer), dataset, recipe, args, collator, 1, recipe.base_learning_rate)
        save(model, base_folder, tokenizer, args)

    train_base = train_base if trains_base else None
    RecipeRun(recipe, args, splits, load_model, collator, tokenizer, train_base, training_data).run()


def check_tokenizer_of_adapter(tokenizer: Any, path: str, trust_remote_code: bool) -> None:
    """Checks that a tokenizer fits the base of an adapter, which is built on the meta device only."""
    from peft import PeftConfig

    base, trust = PeftConfig.from_pretrained(path).base_model_name_or_path, {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(base, **trust)
    with torch.device("meta"):
        check_tokenizer(tokenizer, AutoModelForCausalLM.from_config(config, **trust))


def new_model(tokenizer: Any) -> PreTrainedModel:
    """A Llama with 2.6 million weights and random initial values."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            # With the usual 0.02 such a small model takes several times as long to learn a fact by heart.
            initializer_range=0.06,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
