# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass, field, fields

import pytest
from transformers import TrainingArguments

from hf_deepclean import DataArguments, FisherUnlearningConfig, UnlearningParser
from hf_deepclean.cli.parser import REPAIR_OPTIONS


@dataclass
class RecipeArguments:
    """Options of a recipe."""

    num_people: int = field(default=60, metadata={"help": "How many people there are; 10 %% of them are forgotten."})
    train_reference: bool = field(default=False, metadata={"help": "Also train a reference."})


def make_parser():
    return UnlearningParser((RecipeArguments, DataArguments, FisherUnlearningConfig), prog="recipe")


def parse(tmp_path, yaml=None, *args):
    arguments = ["--output_dir", str(tmp_path / "out"), *args]
    if yaml is not None:
        (tmp_path / "x.yaml").write_text(yaml)
        arguments += ["--config", str(tmp_path / "x.yaml")]
    return make_parser().parse_args_and_config(arguments)


def error_of(capsys, call, *args):
    with pytest.raises(SystemExit) as exit_status:
        call(*args)
    assert exit_status.value.code == 2
    return capsys.readouterr().err


def test_gives_one_instance_per_dataclass_with_the_defaults_of_each(tmp_path):
    recipe, data, config = parse(tmp_path)
    assert recipe == RecipeArguments()
    assert data == DataArguments()
    assert type(config) is FisherUnlearningConfig
    assert config.output_dir == str(tmp_path / "out")


def test_values_of_a_yaml_file_are_read_as_on_the_command_line(tmp_path):
    yaml = """
        # Numbers in every spelling, words that YAML reads as booleans, lists and mappings.
        learning_rate: 3e-3
        gamma: 1
        num_train_epochs: 2
        save_strategy: no
        random_mask_control: yes
        dataloader_pin_memory: false
        exclude_modules: [classifier, embeddings]
        lr_scheduler_kwargs: {num_cycles: 2}
        forget_filter: 'person in ("Ada", "Bob")'
        fisher_max_examples: null
        num_people: 7
    """
    recipe, data, config = parse(tmp_path, yaml)
    assert (config.learning_rate, config.gamma, config.num_train_epochs) == (3e-3, 1.0, 2.0)
    assert config.save_strategy.value == "no"
    assert (config.random_mask_control, config.dataloader_pin_memory) == (True, False)
    assert config.exclude_modules == ["classifier", "embeddings"]
    assert config.lr_scheduler_kwargs == {"num_cycles": 2}
    assert config.fisher_max_examples is None
    assert data.forget_filter == 'person in ("Ada", "Bob")'
    assert recipe.num_people == 7


def test_the_command_line_wins_over_the_file(tmp_path):
    yaml = "reset_fraction: 0.5\nseed: 1\nexclude_modules: [a, b]\ntrain_reference: true\n"
    recipe, _, config = parse(
        tmp_path, yaml, "--reset_fraction=0.25", "--exclude-modules", "c", "--train_reference", "false"
    )
    assert (config.reset_fraction, config.seed, config.exclude_modules) == (0.25, 1, ["c"])
    assert not recipe.train_reference


@pytest.mark.parametrize("yaml", ["exclude_modules: []", None])
def test_an_empty_list_is_a_value(tmp_path, yaml):
    _, _, config = parse(tmp_path, yaml, *([] if yaml else ["--exclude_modules"]))
    assert config.exclude_modules == []


def test_an_unknown_option_is_an_error_that_names_the_nearest(tmp_path, capsys):
    message = error_of(capsys, parse, tmp_path, None, "--reset_fracton", "0.1")
    assert "no option --reset_fracton; did you mean --reset_fraction?" in message
    assert len(message.splitlines()) == 2
    assert "did you mean --forget-filter?" in error_of(capsys, parse, tmp_path, None, "--forget-fliter=x")
    assert "no option --zzzzzz." in error_of(capsys, parse, tmp_path, None, "--zzzzzz")
    assert "'stray' belongs to no option" in error_of(capsys, parse, tmp_path, None, "--gamma", "1", "stray")


def test_an_option_cannot_be_abbreviated(tmp_path, capsys):
    assert "did you mean --reset_fraction?" in error_of(capsys, parse, tmp_path, None, "--reset_frac", "0.1")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("seed: 1\nreset_fracton: 0.1", "line 2: there is no option `reset_fracton`; did you mean reset_fraction?"),
        ("unlearning:\n  gamma: 1", "line 1: there is no option `unlearning`"),
        ("gamma:\n  value: 1", "`gamma` takes one value; options are not nested"),
        ("gamma: [1, 2]", "`gamma` takes one value"),
        ("exclude_modules: [[a]]", "`exclude_modules` takes one value or a list of values"),
        ("gamma: 1\ngamma: 2", "line 2: the option `gamma` is given twice"),
        ("gamma: high", "invalid float value: 'high'"),
        ("reset_value: noise", "invalid choice: 'noise'"),
        ("gamma: 1\nreset_fraction: 0.1", "Both `gamma` (1.0) and `reset_fraction` (0.1)"),
        ("- gamma", "must hold lines `option: value`"),
        ("gamma: [", "is not YAML"),
        ("config: x.yaml", "there is no option `config`"),
        ("dataset_name: x", "Nothing says what to forget"),
    ],
)
def test_a_bad_file_is_an_error_that_says_what_is_wrong_and_where(tmp_path, capsys, yaml, message):
    assert message in error_of(capsys, parse, tmp_path, yaml)
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_a_missing_file_and_a_missing_output_directory_are_errors(tmp_path, capsys):
    parser = make_parser()
    assert "nowhere.yaml" in error_of(capsys, parser.parse_args_and_config, ["--config", "nowhere.yaml"])
    assert "--output_dir is missing" in error_of(capsys, parser.parse_args_and_config, [])
    parser.set_defaults(output_dir=str(tmp_path / "out"))
    assert parser.parse_args_and_config([])[2].output_dir == str(tmp_path / "out")


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert parse(tmp_path, "# nothing\n")[0] == RecipeArguments()


def help_of(capsys, option):
    with pytest.raises(SystemExit) as exit_status:
        make_parser().parse_args_and_config([option, "--config", "nowhere.yaml"])
    assert exit_status.value.code == 0
    return capsys.readouterr().out


def test_help_shows_our_options_and_those_of_the_repair_and_help_all_the_rest(capsys):
    short, long = help_of(capsys, "--help"), help_of(capsys, "--help_all")
    training = {item.name for item in fields(TrainingArguments) if item.init}
    own = {
        item.name for kind in (RecipeArguments, DataArguments, FisherUnlearningConfig) for item in fields(kind)
    } - training
    for name in own | set(REPAIR_OPTIONS):
        assert f"  --{name}" in short
    for name in training - set(REPAIR_OPTIONS):
        assert f"  --{name} " not in short.replace("\n", " ")
        assert f"  --{name}" in long
    assert short.index("--num_people") < short.index("--forget_filter") < short.index("--gamma")
    assert short.index("--gamma") < short.index("--learning_rate")
    assert "10 % of them are forgotten. (default: 60)" in " ".join(short.split())


def test_every_option_of_ours_says_what_it_does():
    for kind in (DataArguments, FisherUnlearningConfig):
        for item in fields(kind):
            if item.init and item.name not in {other.name for other in fields(TrainingArguments)}:
                assert item.metadata["help"].endswith(".")


def test_repair_options_are_those_of_transformers():
    assert set(REPAIR_OPTIONS) <= {item.name for item in fields(TrainingArguments)}
