# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields

import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_deepclean import FisherUnlearningConfig


def test_the_rule_follows_from_the_value_that_is_given(tmp_path):
    assert FisherUnlearningConfig(tmp_path / "a").selection == "auto"
    assert FisherUnlearningConfig(tmp_path / "a", selection="adaptive").selection == "adaptive"
    assert FisherUnlearningConfig(tmp_path / "a", gamma=2.0).selection == "gamma"
    assert FisherUnlearningConfig(tmp_path / "a", reset_fraction=0.1).selection == "reset_fraction"


def test_a_target_goes_with_the_rule_by_trials_alone(tmp_path):
    for target in (None, "unseen", "chance"):
        config = FisherUnlearningConfig(tmp_path / "a", target=target)
        assert (config.selection, config.target) == ("auto", target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 1.0, "reset_fraction": 0.1}, "Both `gamma`"),
        ({"gamma": float("nan")}, "`gamma` is nan"),
        ({"reset_fraction": -0.1}, "`reset_fraction` is -0.1"),
        ({"selection": "auto", "gamma": 1.0}, "'adaptive' and 'auto' take neither"),
        ({"selection": "best"}, "`selection` is 'best'"),
        ({"target": "forgotten"}, "`target` is 'forgotten' but must be 'unseen'"),
        ({"target": "chance", "gamma": 1.0}, "`target='chance'` is what `selection='auto'` .* rule is 'gamma'"),
        ({"target": "unseen", "selection": "adaptive"}, "the rule is 'adaptive'. Leave one of them out"),
        ({"num_selection_trials": 0}, "`num_selection_trials` is 0"),
        ({"num_selection_examples": 0}, "`num_selection_examples` is 0"),
        ({"fisher_type": "true"}, "`fisher_type` is 'true'"),
        ({"reset_value": "noise"}, "`reset_value` is 'noise'"),
        ({"reset_value": "zero", "pretrained_model": "base"}, "the other values take none"),
        ({"per_device_fisher_batch_size": 0}, "`per_device_fisher_batch_size` is 0"),
        ({"fisher_max_examples": 0}, "`fisher_max_examples` is 0"),
        ({"unseen_share_of_eval": 0.0}, "`unseen_share_of_eval` is 0.0"),
        ({"unseen_share_of_eval": 1.0}, "`unseen_share_of_eval` is 1.0 but must be a share"),
        ({"push_to_hub": True}, "still holds what it is to forget"),
        ({"optim": "adafactor"}, "`optim` is 'adafactor'"),
        ({"gamma_sweep": [1.0, 0.0]}, "`gamma_sweep` holds 0.0"),
        ({"relearning_steps": -1}, "`relearning_steps` is -1"),
        ({"relearning_learning_rate": 0.0}, "`relearning_learning_rate` is 0.0"),
        ({"relearning_data": ["forget", "all"]}, r"`relearning_data` is \['forget', 'all'\]"),
        ({"relearning_data": []}, r"`relearning_data` is \[\] but must be a list of one or more of 'forget'"),
        ({"relearning_data": "retain"}, "`relearning_data` is 'retain'"),
        ({"relearning_num_examples": 0}, "`relearning_num_examples` is 0"),
        ({"quantization_bits": [4, 5]}, r"`quantization_bits` is \[4, 5\]"),
        ({"gamma_sweep": [float("inf")]}, "`gamma_sweep` holds inf"),
    ],
)
def test_bad_values_are_refused_with_what_to_do(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        FisherUnlearningConfig(tmp_path / "a", **arguments)


def test_parses_from_the_command_line_and_shows_its_help(capsys):
    parser = HfArgumentParser(FisherUnlearningConfig)
    (config,) = parser.parse_args_into_dataclasses(
        ["--output_dir", "x", "--reset_fraction", "0.1", "--exclude_modules", "classifier", "embeddings"]
        + ["--gamma_sweep", "0.5", "2", "--relearning_data", "retain", "few_forget", "--quantization_bits", "4"]
    )
    assert (config.relearning_data, config.quantization_bits) == (["retain", "few_forget"], [4])
    assert config.gamma_sweep == [0.5, 2.0]
    assert config.exclude_modules == ["classifier", "embeddings"]
    with pytest.raises(SystemExit) as exit_status:
        parser.parse_args_into_dataclasses(["--help"])
    assert exit_status.value.code == 0
    assert "--reset_fraction" in capsys.readouterr().out


def test_every_field_has_help_and_a_docstring_entry():
    inherited = {item.name for item in fields(TrainingArguments)}
    for item in fields(FisherUnlearningConfig):
        if item.name not in inherited:
            assert item.metadata["help"]
            assert f"        {item.name} (" in FisherUnlearningConfig.__doc__


def test_training_arguments_are_taken_over_without_what_concerns_the_hub(tmp_path):
    args = TrainingArguments(tmp_path / "a", learning_rate=1e-3, hub_token="secret", save_strategy="epoch", seed=7)
    config = FisherUnlearningConfig.from_training_arguments(args, output_dir=str(tmp_path / "b"), gamma=1.0)
    assert (config.learning_rate, config.seed, config.save_strategy.value) == (1e-3, 7, "epoch")
    assert config.output_dir == str(tmp_path / "b")
    assert config.hub_token is None


def test_a_warm_up_takes_no_step_of_very_few_and_one_of_none_is_not_taken_over(tmp_path):
    args = FisherUnlearningConfig(str(tmp_path))
    assert [args.get_warmup_steps(number) for number in (1, 9, 10, 100)] == [0, 0, 1, 10]
    assert FisherUnlearningConfig(str(tmp_path), warmup_steps=7).get_warmup_steps(100) == 7
    for given, taken_over in ((0, 0.1), (0.2, 0.2), (5, 5)):
        plain = TrainingArguments(str(tmp_path), warmup_steps=given)
        assert FisherUnlearningConfig.from_training_arguments(plain).warmup_steps == taken_over
    assert FisherUnlearningConfig.from_training_arguments(plain, warmup_steps=0).warmup_steps == 0


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": -1e-3},
        {"num_train_epochs": -1},
        {"num_train_epochs": float("inf")},
        {"adam_beta1": 1.0},
        {"label_smoothing_factor": 1.5},
        {"weight_decay": "0.1"},
        {"learning_rate": 0.0},
        {"learning_rate": True},
        {"weight_decay": -0.1},
        {"adam_beta2": -0.1},
        {"adam_epsilon": 0.0},
        {"max_grad_norm": -1.0},
        {"max_grad_norm": float("nan")},
        {"warmup_steps": float("nan")},
        {"max_steps": 0},
        {"max_steps": 1.5},
        {"gradient_accumulation_steps": 0},
        {"per_device_train_batch_size": 2.5},
        {"per_device_eval_batch_size": -1},
        {"dataloader_num_workers": -1},
    ],
)
def test_numbers_of_the_repair_that_are_out_of_range_are_refused_by_name(tmp_path, values):
    ((name, _),) = values.items()
    with pytest.raises((ValueError, TypeError), match=f"`?{name}"):
        FisherUnlearningConfig(str(tmp_path), **values)


def test_the_outermost_numbers_of_the_repair_are_taken(tmp_path):
    for values in ({"max_grad_norm": 0.0}, {"max_grad_norm": None}, {"learning_rate": 0.0, "num_train_epochs": 0}):
        FisherUnlearningConfig(str(tmp_path), **values)


@pytest.mark.parametrize(
    "seeds",
    [
        *({"seed": seed} for seed in (None, -1, 2**32, "42", 1.5, True)),
        *({"data_seed": seed} for seed in (2**63, "42", 1.5)),
    ],
)
def test_a_seed_that_a_random_state_cannot_take_is_refused(tmp_path, seeds):
    ((name, value),) = seeds.items()
    with pytest.raises(ValueError, match=f"`{name}` is {value!r} but must be a whole number from"):
        FisherUnlearningConfig(str(tmp_path), **seeds)


def test_the_outermost_seeds_are_taken(tmp_path):
    for seeds in ({"seed": 0}, {"seed": 2**32 - 1}, {"data_seed": None}, {"data_seed": -1}):
        FisherUnlearningConfig(str(tmp_path), **seeds)
