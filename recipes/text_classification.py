# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make a text classifier forget some of its training data.

The example: definitions from WordNet, told apart into eight classes by a small transformer trained from scratch,
offline and on a CPU. Forget a random tenth of them, or the class `plant`:

```shell
python recipes/text_classification.py --config recipes/configs/text_classification_random.yaml \
    --output_dir outputs/glosses-random
python recipes/text_classification.py --config recipes/configs/text_classification_class.yaml \
    --output_dir outputs/glosses-class
```

Your own classifier and data (a Hub id, or files), here the rows with a mark in the column `delete`:

```shell
python recipes/text_classification.py --model_name_or_path my-model --dataset_name data/train.csv \
    --forget_column delete --output_dir clean-model --reset_fraction 0.3 --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```

Fine-tune a pretrained checkpoint on the example, then rewind weights to it:

```shell
python recipes/text_classification.py --base_model_name_or_path my-checkpoint --forget_filter "tenth == 0" \
    --num_example_rows 2000 --original_num_train_epochs 3 --original_learning_rate 1e-4 --train_reference \
    --reset_value pretrained --pretrained_model my-checkpoint --exclude_modules --reset_fraction 0.3 \
    --num_train_epochs 1 --learning_rate 1e-4 --output_dir outputs/glosses-pretrained
```
"""

from common import (
    RecipeArguments,
    class_names,
    label_mappings,
    load_classifier,
    load_data,
    run,
    small_encoder_config,
    split_held_out_by_class,
    train_encoder_tokenizer,
)
from example_data import load_wordnet_glosses
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_deepclean import (
    DataArguments,
    FisherUnlearningConfig,
    UnlearningParser,
    check_tokenizer,
    tokenize_text_classification,
)


MAX_LENGTH = 128


def make_parser() -> UnlearningParser:
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: RecipeArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    data = load_data(recipe, data_arguments, load_wordnet_glosses, args.seed)
    label_column = "label" if "label" in data["retain"].column_names else "labels"
    names = class_names(data, label_column)
    data = split_held_out_by_class(data, label_column)

    checkpoint = recipe.model_name_or_path or recipe.base_model_name_or_path
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    else:
        text_column = "text" if "text" in data["retain"].column_names else "sentence"
        texts = [text for part in ("forget", "retain") for text in data[part][text_column]]
        tokenizer = train_encoder_tokenizer(texts, vocab_size=4000, model_max_length=MAX_LENGTH)

    def load_model(path: str | None) -> PreTrainedModel:
        if path is None:
            model = new_classifier(tokenizer, names)
        else:
            model = load_classifier(AutoModelForSequenceClassification, path, recipe, names)
        check_tokenizer(tokenizer, model)
        return model

    splits = {
        name: tokenize_text_classification(
            part, tokenizer, recipe.max_length, label2id=label_mappings(names)["label2id"]
        )
        for name, part in data.items()
    }
    run(recipe, args, splits, load_model, DataCollatorWithPadding(tokenizer), tokenizer)


def new_classifier(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> PreTrainedModel:
    """A transformer that averages over the tokens, which small ones learn from little data."""
    return ModernBertForSequenceClassification(
        small_encoder_config(tokenizer, names, num_hidden_layers=1, classifier_pooling="mean")
    )


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
