# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make an image classifier forget some of its training data.

The example: a small vision transformer, trained from scratch on the handwritten digits of scikit-learn, offline and on
a CPU. Forget a random tenth of the digits, or the digit 3:

```shell
python recipes/image_classification.py --config recipes/configs/image_classification_random.yaml \
    --output_dir outputs/digits-random
python recipes/image_classification.py --config recipes/configs/image_classification_class.yaml \
    --output_dir outputs/digits-class
```

Your own classifier and data, for example a folder of images with one subfolder per class:

```shell
python recipes/image_classification.py --model_name_or_path my-model --dataset_name photos \
    --forget_filter "label == 3" --output_dir clean-model --reset_fraction 0.2 --num_train_epochs 3 \
    --learning_rate 1e-4 --dry_run
```
"""

from classifiers import label_mappings, load_classes, load_classifier
from common import RecipeArguments, RecipeRun
from example_data import load_digits_images
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser, prepare_images


def make_parser() -> UnlearningParser:
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig))


def main(recipe: RecipeArguments, data_arguments: DataArguments, args: FisherUnlearningConfig) -> None:
    data, names = load_classes(recipe, data_arguments, load_digits_images, ("label", "labels"), args.seed)
    checkpoint = recipe.model_name_or_path or recipe.base_model_name_or_path
    processor = None
    if checkpoint is not None and "pixel_values" not in data["retain"].column_names:
        processor = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=args.trust_remote_code)
    label2id = label_mappings(names)["label2id"]
    splits = {name: prepare_images(part, processor, label2id=label2id) for name, part in data.items()}

    def load_model(path: str | None) -> PreTrainedModel:
        if path is None:
            return new_classifier(tuple(splits["retain"][0]["pixel_values"].shape), names)
        auto_class, trust = AutoModelForImageClassification, args.trust_remote_code
        return load_classifier(auto_class, path, recipe, names, trust, ignore_mismatched_sizes=True)

    RecipeRun(recipe, args, splits, load_model, processing_class=processor).run()


def new_classifier(shape: tuple[int, ...], names: list[str]) -> PreTrainedModel:
    """A vision transformer with 103,000 weights, for images of the given shape in 4 by 4 patches."""
    channels, height, width = shape
    return ViTForImageClassification(
        ViTConfig(
            image_size=(height, width),
            patch_size=(height // 4, width // 4),
            num_channels=channels,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            **label_mappings(names),
        )
    )


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
