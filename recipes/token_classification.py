# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make a token classifier, such as a tagger, forget some of its training sentences.

The example: example sentences from WordNet with parts of speech, and a small transformer trained from scratch, offline
and on a CPU. Forget a random tenth of them, or all that hold an adverb:

```shell
python recipes/token_classification.py --config recipes/configs/token_classification_random.yaml \
    --output_dir outputs/tags-random
python recipes/token_classification.py --config recipes/configs/token_classification_class.yaml \
    --output_dir outputs/tags-class
```

Your own tagger and data, with the columns `tokens` and `tags` (or `ner_tags`), here with files for each side:

```shell
python recipes/token_classification.py --model_name_or_path my-model --dataset_name data --forget_split forget \
    --retain_split retain --output_dir clean-model --reset_fraction 0.3 --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
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
from example_data import load_wordnet_examples
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    ModernBertForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_deepclean import (
    DataArguments,
    FisherUnlearningConfig,
    UnlearningParser,
    check_tokenizer,
    tokenize_token_classification,
)


MAX_LENGTH = 128


def make_parser() -> UnlearningParser:
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: RecipeArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    data = load_data(recipe, data_arguments, load_wordnet_examples, args.seed)
    columns = data["retain"].column_names
    label_column = next((name for name in ("tags", "ner_tags") if name in columns), "labels")
    names = class_names(data, label_column)
    data = split_held_out_by_class(data, label_column)

    checkpoint = recipe.model_name_or_path or recipe.base_model_name_or_path
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    else:
        texts = [" ".join(words) for part in ("forget", "retain") for words in data[part]["tokens"]]
        tokenizer = train_encoder_tokenizer(texts, vocab_size=2000, model_max_length=MAX_LENGTH)

    def load_model(path: str | None) -> PreTrainedModel:
        if path is None:
            model = new_tagger(tokenizer, names)
        else:
            model = load_classifier(AutoModelForTokenClassification, path, recipe, names)
        check_tokenizer(tokenizer, model)
        return model

    label2id = label_mappings(names)["label2id"]
    splits = {
        name: tokenize_token_classification(part, tokenizer, recipe.max_length, label2id=label2id)
        for name, part in data.items()
    }
    run(recipe, args, splits, load_model, DataCollatorForTokenClassification(tokenizer), tokenizer)


def new_tagger(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> PreTrainedModel:
    """A transformer of 210,000 weights."""
    return ModernBertForTokenClassification(small_encoder_config(tokenizer, names, num_hidden_layers=2))


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
