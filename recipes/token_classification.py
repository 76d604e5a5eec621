# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make a token classifier, such as a tagger, forget some of its training sentences.

The example: a small transformer, trained from scratch to tag example sentences of WordNet with parts of speech,
offline and on a CPU. Forget a random tenth of the sentences, or all sentences with an adverb:

```shell
python recipes/token_classification.py --config recipes/configs/token_classification_random.yaml \
    --output_dir outputs/tags-random
python recipes/token_classification.py --config recipes/configs/token_classification_class.yaml \
    --output_dir outputs/tags-class
```

Your own tagger and data with the columns `tokens` and `tags` (or `ner_tags`), for example with a split for each side:

```shell
python recipes/token_classification.py --model_name_or_path my-model --dataset_name data --forget_split forget \
    --retain_split retain --output_dir clean-model --reset_fraction 0.3 --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```
"""

from classifiers import label_mappings, load_classes, load_tokenizer, small_encoder_config, text_model_loader
from common import RecipeArguments, RecipeRun
from example_data import load_wordnet_examples
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    ModernBertForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser, tokenize_token_classification


def make_parser() -> UnlearningParser:
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: RecipeArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    columns = ("tags", "ner_tags", "labels")
    data, names = load_classes(recipe, data_arguments, load_wordnet_examples, columns, args.seed)
    texts = (" ".join(words) for part in ("forget", "retain") for words in data[part]["tokens"])
    tokenizer = load_tokenizer(recipe, texts, 2000, args.trust_remote_code)
    label2id = label_mappings(names)["label2id"]
    splits = {
        name: tokenize_token_classification(part, tokenizer, recipe.max_length, label2id=label2id)
        for name, part in data.items()
    }
    loading = AutoModelForTokenClassification, new_tagger, args.trust_remote_code
    load_model = text_model_loader(recipe, tokenizer, names, *loading)
    RecipeRun(recipe, args, splits, load_model, DataCollatorForTokenClassification(tokenizer), tokenizer).run()


def new_tagger(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> PreTrainedModel:
    """A transformer with 210,000 weights."""
    return ModernBertForTokenClassification(small_encoder_config(tokenizer, names, num_hidden_layers=2))


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
