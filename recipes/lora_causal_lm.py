# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo,peft]"]
# ///
"""
Make a LoRA adapter of a language model forget some of the texts it was trained on. The base model is only read.

The example: an adapter learns facts about sixty fictitious people, on a small model that knows ordinary English and
sixty other people, offline and on a CPU. Forget ten of the people:

```shell
python recipes/lora_causal_lm.py --config recipes/configs/lora_causal_lm.yaml --output_dir outputs/people-adapter
```

Your own adapter and data, with the column `text`, or the columns `prompt` and `completion`:

```shell
python recipes/lora_causal_lm.py --model_name_or_path my-adapter --dataset_name data/train.jsonl \
    --forget_column delete --reset_scope adapter --output_dir clean-adapter --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```
"""

from dataclasses import dataclass, field

from causal_lm import LanguageModelArguments
from causal_lm import main as clean_language_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser


@dataclass
class AdapterArguments(LanguageModelArguments):
    """
    [`LanguageModelArguments`], and the shape of the adapter that the recipe trains if none is named.

    Args:
        lora_rank (`int`, *optional*, defaults to `32`):
            Rank of the adapter.
        lora_alpha (`int`, *optional*, defaults to `32`):
            Scale of the adapter, which is divided by the rank.
    """

    lora_rank: int = field(default=32, metadata={"help": "Rank of the adapter that the recipe trains."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of this adapter, which is divided by the rank."})


def make_parser() -> UnlearningParser:
    return UnlearningParser((AdapterArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: AdapterArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    if args.reset_scope != "adapter":
        raise ValueError(
            f"This recipe cleans adapters, but --reset_scope is {args.reset_scope!r}. Pass --reset_scope adapter, or "
            "use recipes/causal_lm.py."
        )

    def add_adapter(base: PreTrainedModel) -> PeftModel:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            target_modules=target_modules(base),
        )
        return get_peft_model(base, config)

    clean_language_model(recipe, data_arguments, args, add_adapter)


def target_modules(base: PreTrainedModel) -> list[str]:
    """
    Last parts of the names of the token embeddings and of all linear layers except the output layer. The embeddings
    distinguish the people; without them, most of the adapter has to be reset to forget a person.
    """
    output, embeddings = base.get_output_embeddings(), base.get_input_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in base.named_modules()
            if module is embeddings or (isinstance(module, (nn.Linear, Conv1D)) and module is not output)
        }
    )


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
