# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import ast
import contextlib
import io
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_deepclean
from hf_deepclean import UnlearningReport, find_leaks, needles_of_dataset
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in
from tests.hub.client import client_of
from tests.hub.server import LocalHub

from .running import CONFIGS, FOLDER, RECIPES, ROOT, RUN_CONFIGS, TINY, arguments_of, commands_of, recipe_of, run


@pytest.fixture(scope="module")
def pushed(recipes, tmp_path_factory):
    """
    Runs a config once, with canaries in the name of the run and in the path of its output. Returns the folder of the
    results, the printed text, and the Hub that the result was pushed to.
    """

    @cache
    def finish(config):
        folder, printed = tmp_path_factory.mktemp(config) / "Schneewittchen-9921337001", io.StringIO()
        folder.mkdir()
        with LocalHub(tmp_path_factory.mktemp("hub")) as hub, client_of(hub), contextlib.redirect_stdout(printed):
            options = ["--hub_model_id", f"tester/{config}", "--hub_token", hub.token]
            options += ["--run_name", "Rapunzel-7731040042"]
            run(recipes, config, folder / "clean", *options)
        return folder, printed.getvalue(), hub

    return finish


@pytest.fixture
def finished(pushed):
    """The folder of the results and the printed text."""
    return lambda config: pushed(config)[:2]


def contents(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_recipes_use_the_public_api_alone(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(name.startswith("hf_deepclean") for name in names)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("hf_deepclean"):
            assert node.module == "hf_deepclean"
            assert {alias.name for alias in node.names} <= set(hf_deepclean.__all__)


@pytest.mark.parametrize("name", [*RECIPES, "demo_digits"])
def test_recipes_say_what_they_depend_on(name):
    header = re.search(r"^# /// script\n(# .*\n)+# ///$", (FOLDER / f"{name}.py").read_text(), re.M)
    assert re.search(r'^# dependencies = \["hf-deepclean\[.*demo.*\]"\]$', header[0], re.M)


def test_every_recipe_has_a_config_and_every_config_a_recipe():
    assert {recipe_of(config) for config in CONFIGS} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_launch_commands_in_the_docstrings_parse(recipes, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = commands_of(recipes[name])
    assert len(commands) >= 2
    for command in commands:
        _, data, _ = recipes[name].make_parser().parse_args_and_config(command)
        assert data.forget_filter or data.forget_column or data.forget_split
    named = {Path(word).stem for command in commands for word in command if word.endswith(".yaml")}
    assert named == {config for config in CONFIGS if recipe_of(config) == name}


@pytest.mark.parametrize("name", RECIPES)
def test_help_explains_every_option_of_the_recipe(recipes, name, capsys):
    with pytest.raises(SystemExit) as exit:
        recipes[name].make_parser().parse_args_and_config(["--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("model_name_or_path", "train_reference", "forget_filter", "reset_fraction", "output_dir"):
        assert f"--{option}" in text


@pytest.mark.parametrize("config", RUN_CONFIGS)
def test_every_config_runs_and_leaves_three_models(finished, config):
    folder, printed = finished(config)
    base = {"clean-base"} if "causal_lm" in config else set()
    folders = {path.name: path for path in folder.iterdir()}
    assert set(folders) == {"clean", "clean-original", "clean-reference"} | base
    report = UnlearningReport.load(folders["clean"] / "report.json")
    assert {"before", "after_reset", "after_repair", "reference"} <= set(report.stages)
    assert str(report) in printed
    last = report.stages["after_repair"]
    assert last.membership is not None
    if config.endswith("_pretrained"):
        assert report.settings["reset_value"] == "pretrained"
    if config.endswith("_class"):
        classes = {split: result.per_class.keys() for split, result in last.splits.items()}
        (gone,) = classes["forget"] - classes["retain"]
        assert gone in classes["unseen"]
        assert gone not in classes["eval_other_classes"]
    weights = "adapter_model.safetensors" if config.startswith("lora") else "model.safetensors"
    for name in ("clean", "clean-original", "clean-reference"):
        assert (folders[name] / weights).stat().st_size == (folders["clean"] / weights).stat().st_size
        if not config.startswith("image"):
            assert AutoTokenizer.from_pretrained(folders[name]).pad_token is not None


def forgotten_rows(recipes, config):
    """The rows that a tiny run forgets, before they are tokenized."""
    recipe, data, args = recipes[recipe_of(config)].make_parser().parse_args_and_config(arguments_of(config, "clean"))
    load = {
        "image_classification": "load_digits_images",
        "text_classification": "load_wordnet_glosses",
        "token_classification": "load_wordnet_examples",
    }.get(recipe_of(config), "load_people")
    load = "load_wordnet_verbs" if recipe.example == "verbs" else load
    return recipes["common"].load_data(recipe, data, getattr(recipes["example_data"], load), args.seed)["forget"]


@pytest.mark.parametrize("config", RUN_CONFIGS)
def test_nothing_of_what_a_recipe_forgets_is_received_by_the_hub(recipes, pushed, config):
    folder, printed, hub = pushed(config)
    received, repo = hub.received_bytes(), f"tester/{config}"
    assert len(hub.commits(repo)) == 2 and hub.repo(repo).private
    assert "files in one commit" in printed
    rows = forgotten_rows(recipes, config)
    canaries = {"Schneewittchen", "9921337001", "Rapunzel", "7731040042"}
    canaries |= {str(folder), str(Path.home()), rows._fingerprint}
    for values in rows.with_format(None).to_dict().values():
        if isinstance(values[0], list) and isinstance(values[0][0], str):
            values = [" ".join(words) for words in values]
        canaries |= {value for value in values if isinstance(value, str) and len(value) > 20}
    canaries |= set(rows["person"]) if "person" in rows.column_names else set()
    assert [canary for canary in canaries if canary.encode() in received] == []
    # The search finds something where there is something to find.
    assert b"machine-unlearning" in received
    leaks = find_leaks(folder / "clean", needles_of_dataset(rows), ignore=class_labels(folder / "clean"))
    assert {leak.file for leak in leaks} <= {"report.json"}


def class_labels(folder):
    config = folder / "config.json"
    return list(json.loads(config.read_text()).get("id2label", {}).values()) if config.exists() else []


@pytest.mark.parametrize("config", RUN_CONFIGS)
def test_the_card_of_every_recipe_is_valid_and_its_numbers_are_in_the_report(pushed, config):
    _, _, hub = pushed(config)
    files = hub.files(f"tester/{config}")
    card = files["README.md"].decode()
    assert_is_a_valid_card(card)
    assert numbers_missing_in(card, json.loads(files["report.json"])) == set()
    for picture in re.findall(r"!\[[^]]+\]\((\S+)\)", card):
        assert picture in files


@pytest.mark.parametrize("config", ["image_classification_random", "lora_causal_lm"])
def test_a_dry_run_prints_an_estimate_and_writes_nothing(recipes, config, tmp_path, capsys):
    run(recipes, config, tmp_path / "clean", "--dry_run")
    assert list(tmp_path.iterdir()) == []
    text = capsys.readouterr().out
    assert "A dry run trains no model" in text
    assert "would reset" in text


def test_nothing_is_trained_where_a_result_would_be_overwritten(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes["common"], "train", lambda *args: pytest.fail("trained"))
    for name in ("clean", "clean-original", "clean-reference"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").touch()
        with pytest.raises(FileExistsError, match=f"{name} "):
            run(recipes, "image_classification_random", tmp_path / "clean")
        (tmp_path / name / "mine.txt").unlink()
        (tmp_path / name).rmdir()


def test_models_and_data_of_the_user_are_cleaned(recipes, finished, tmp_path):
    """The rows are in a file with a column that marks the rows to forget; the models are those of an earlier run."""
    folder, _ = finished("text_classification_random")
    before = contents(folder / "clean-original")
    data = recipes["example_data"].load_wordnet_glosses(40)
    rows = [{"text": row["text"], "label": row["label"], "gone": row["tenth"] == 0} for row in data["train"]]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    command = f"""
        --model_name_or_path {folder}/clean-original --reference_model_name_or_path {folder}/clean-reference
        --dataset_name {file} --forget_column gone --output_dir {tmp_path}/second --reset_fraction 0.2
        --num_train_epochs 1 --disable_tqdm true
    """
    recipe = recipes["text_classification"]
    recipe.main(*recipe.make_parser().parse_args_and_config(command.split()))
    report = UnlearningReport.load(tmp_path / "second" / "report.json")
    assert report.stages["before"].splits["forget"].num_examples == sum(row["gone"] for row in rows)
    assert "reference" in report.stages
    assert contents(folder / "clean-original") == before


def test_a_pretrained_checkpoint_is_fine_tuned_and_rewound_to(recipes, finished, tmp_path):
    folder, _ = finished("text_classification_random")
    options = ["--base_model_name_or_path", folder / "clean-reference", "--reset_value", "pretrained"]
    run(recipes, "text_classification_random", tmp_path / "clean", *options, "--train_reference", "false")
    settings = UnlearningReport.load(tmp_path / "clean" / "report.json").settings
    assert (settings["reset_value"], settings["reset_value_from"]) == ("pretrained", "configuration")
    assert settings["pretrained_model"] == str(folder / "clean-reference")


def test_plain_fine_tuning_is_evaluated_beside_the_cleaned_model_and_not_saved(recipes, tmp_path):
    run(recipes, "image_classification_random", tmp_path / "clean", "--fine_tuning_control", "--train_reference", "no")
    stages = UnlearningReport.load(tmp_path / "clean" / "report.json").stages
    losses = {name: stages[name].splits["retain"].mean_loss for name in ("before", "after_repair", "fine_tuned")}
    assert len(set(losses.values())) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"clean", "clean-original"}


def test_an_adapter_of_the_user_is_cleaned_and_fits_its_base(recipes, finished, tmp_path):
    folder, _ = finished("lora_causal_lm")
    before = contents(folder / "clean-base")
    recipes["example_data"].load_people(60)["train"].to_json(tmp_path / "rows.jsonl")
    command = f"""
        --model_name_or_path {folder}/clean-original --dataset_name {tmp_path}/rows.jsonl --forget_column forget
        --reset_scope adapter --output_dir {tmp_path}/second --reset_fraction 0.2 --num_train_epochs 1
        --disable_tqdm true
    """
    recipe = recipes["lora_causal_lm"]
    recipe.main(*recipe.make_parser().parse_args_and_config(command.split()))
    assert contents(folder / "clean-base") == before
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    assert torch.isfinite(model(torch.tensor([[1, 5, 6]])).logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model_name_or_path m --train_reference", "it trains none"),
        ("--train_reference --reference_model_name_or_path m", "give one"),
        ("--forget_filtre x", "forget_filter"),
    ],
)
def test_options_that_contradict_each_other_end_with_a_message(recipes, options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        recipes["text_classification"].make_parser().parse_args_and_config(
            ["--output_dir", str(tmp_path / "out"), *options.split()]
        )
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_the_adapter_recipe_refuses_the_whole_model(recipes, tmp_path):
    with pytest.raises(ValueError, match="--reset_scope adapter"):
        run(recipes, "lora_causal_lm", tmp_path / "clean", "--reset_scope", "full")
    assert list(tmp_path.iterdir()) == []


def test_without_a_word_on_what_to_forget_a_recipe_refuses(recipes, tmp_path):
    recipe = recipes["text_classification"]
    arguments = recipe.make_parser().parse_args_and_config(["--output_dir", str(tmp_path / "clean"), *TINY])
    with pytest.raises(ValueError, match="forget_filter"):
        recipe.main(*arguments)
