# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTForImageClassification,
)

from hf_deepclean import FisherDiagonal, UnlearningReport, accumulate_fisher_diagonal, parameters_in_scope
from hf_deepclean.cli.commands import main
from tests import tiny
from tests.tokenizers import byte_tokenizer


WORDS = ["red", "green", "blue", "black"]
BERT = {"vocab_size": 300, "max_position_embeddings": 24, "num_labels": 4, "pad_token_id": 0}
NAMED = {"id2label": dict(enumerate(WORDS)), "label2id": {word: number for number, word in enumerate(WORDS)}}


def text_rows():
    return [
        {"text": f"{WORDS[number % 4]} {number}", "label": WORDS[number % 4], "delete": number % 5 == 0}
        for number in range(40)
    ]


def word_rows():
    return [
        {"tokens": [WORDS[number % 4], f"x{number}"], "tags": [number % 4, 0], "person": number % 3}
        for number in range(40)
    ]


def image_rows():
    digits = tiny.digits().select(range(60)).with_format(None)
    return [{"pixel_values": row["pixel_values"], "label": row["labels"]} for row in digits]


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=24, bos_token_id=None)
    )


TASKS = {
    "text-classification": (
        lambda: BertForSequenceClassification(BertConfig(**(tiny.TEXT | BERT), **NAMED)),
        text_rows,
        ["--forget_column", "delete"],
        AutoModelForSequenceClassification,
    ),
    "token-classification": (
        lambda: BertForTokenClassification(BertConfig(**(tiny.TEXT | BERT))),
        word_rows,
        ["--forget_filter", "person == 1"],
        AutoModelForTokenClassification,
    ),
    "causal-lm": (gpt2, text_rows, ["--forget_filter", 'text.startswith("red")'], AutoModelForCausalLM),
    "image-classification": (
        lambda: tiny.vit(num_labels=10),
        image_rows,
        ["--forget_filter", "label == 3"],
        ViTForImageClassification,
    ),
}


@pytest.fixture
def source(tmp_path):
    """Makes the folder of a model with its tokenizer, and a file of data."""

    def make(task):
        build, rows, _, _ = TASKS[task]
        build().save_pretrained(tmp_path / "model")
        byte_tokenizer(model_max_length=24).save_pretrained(tmp_path / "model")
        datasets.Dataset.from_list(rows()).to_parquet(tmp_path / "data.parquet")
        return [
            *("--task", task, "--model_name_or_path", str(tmp_path / "model")),
            *("--dataset_name", str(tmp_path / "data.parquet")),
        ]

    return make


RUN = ("--reset_fraction", "0.1", "--num_train_epochs", "1", "--disable_tqdm", "true", "--use_cpu", "true")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_unlearned_from_files(source, tmp_path, capsys, task):
    arguments = ["unlearn", *source(task), *TASKS[task][2], *RUN, "--output_dir", str(tmp_path / "clean")]
    assert main(arguments) == 0
    assert "weights selected by the rule 'reset_fraction'" in capsys.readouterr().out
    report = UnlearningReport.load(tmp_path / "clean" / "report.json")
    before = tiny.parameters_and_buffers(TASKS[task][3].from_pretrained(tmp_path / "model"))
    after = tiny.parameters_and_buffers(TASKS[task][3].from_pretrained(tmp_path / "clean"))
    assert sum(int((before[name] != after[name]).sum()) for name in before) == report.integrity.num_selected_changed
    if task != "image-classification":
        assert (tmp_path / "clean" / "tokenizer.json").exists()

    # Nothing is overwritten.
    assert main(arguments) == 1
    assert "Nothing is ever overwritten" in capsys.readouterr().err


def test_an_adapter_is_cleaned_alone(source, tmp_path, capsys):
    arguments = [*source("causal-lm"), "--forget_column", "delete"]
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    )
    torch.nn.init.normal_(model.base_model.model.transformer.h[0].attn.c_attn.lora_B.default.weight)
    model.save_pretrained(tmp_path / "adapter")
    arguments += ["--model_name_or_path", str(tmp_path / "adapter"), *RUN, "--reset_scope", "adapter"]
    arguments += ["--output_dir", str(tmp_path / "clean")]
    assert main(["unlearn", *arguments, "--dry_run"]) == 0
    assert "Dry run of GPT2LMHeadModel" in capsys.readouterr().out
    assert main(["unlearn", *arguments]) == 0
    assert (tmp_path / "clean" / "adapter_model.safetensors").exists()
    assert main(["card", str(tmp_path / "clean")]) == 0
    card = capsys.readouterr().out
    assert "library_name: peft" in card
    assert "Of the base 0 of " in card


def test_a_dry_run_writes_nothing(source, tmp_path, capsys):
    arguments = source("causal-lm")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "x.yaml").write_text("reset_fraction: 0.1\nforget_filter: label == 'red'\ndry_run: true\n")
    assert (
        main(["unlearn", *arguments, "--config", str(tmp_path / "x.yaml"), "--output_dir", str(tmp_path / "a")]) == 0
    )
    assert capsys.readouterr().out.startswith("Dry run of GPT2LMHeadModel: nothing was changed or written.")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "x.yaml"])


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("causal-lm", ["--forget_column", "gone"], "'gone', and the columns are text, label, delete"),
        ("causal-lm", ["--forget_filter", "label == 'pink'"], "selects none of the 40 rows"),
        ("causal-lm", ["--forget_split", "a", "--retain_split", "train"], "has no split 'a'; it has train"),
        ("causal-lm", ["--forget_column", "delete", "--eval_split", "test"], "has no split 'test'; it has train"),
        ("causal-lm", ["--forget_column", "delete", "--dataset_name", "nobody/nothing"], "could not be loaded"),
        ("causal-lm", ["--forget_column", "delete", "--dataset_name", "gone.csv"], "no such file or folder"),
        ("causal-lm", ["--forget_column", "delete", "--model_name_or_path", "nobody/nothing"], "offline mode is on"),
        ("causal-lm", ["--forget_column", "delete", "--model_name_or_path", "."], "config.json"),
        ("causal-lm", ["--forget_column", "delete", "--task", "text-classification"], "but of 'causal-lm'"),
        ("causal-lm", ["--forget_column", "delete", "--text_column", "x", "--output_dir", "."], "already holds"),
        ("image-classification", ["--forget_filter", "label == 77"], "selects none of the 60 rows"),
        ("text-classification", ["--forget_column", "delete", "--text_column", "x"], "No column 'x' holds the text"),
    ],
)
def test_bad_input_is_an_error_with_what_to_do_and_nothing_is_written(
    source, tmp_path, capsys, monkeypatch, task, arguments, message
):
    command = ["unlearn", *source(task), *RUN, "--output_dir", str(tmp_path / "clean"), *arguments]
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    start = time.perf_counter()
    assert main(command) == 1
    assert time.perf_counter() - start < 10
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_long_texts_and_a_tokenizer_that_cannot_pad_are_refused_before_any_work(source, tmp_path, capsys):
    arguments = ["unlearn", *source("causal-lm"), *RUN, "--forget_column", "delete"]
    arguments += ["--output_dir", str(tmp_path / "clean")]
    rows = text_rows()
    rows[3]["text"] = "long" * 10
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    assert main(arguments) == 1
    assert "1 of 32 rows have more than the 24 tokens" in capsys.readouterr().err
    byte_tokenizer(pad_token=None).save_pretrained(tmp_path / "model")
    assert main(arguments) == 1
    assert "tokenizer.pad_token = tokenizer.eos_token" in capsys.readouterr().err
    byte_tokenizer().save_pretrained(tmp_path / "model")
    assert main(arguments) == 1
    assert "1 of 32 rows of `retain_dataset` have more than the 24 tokens" in capsys.readouterr().err
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("command", ["unlearn", "fisher"])
def test_unknown_and_missing_options_are_errors(command, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main([command, "--task", "causal-lm", "--model_name_or_path", "x", "--exclude_module", "y"])
    assert exit_status.value.code == 2
    assert "did you mean --exclude_modules?" in capsys.readouterr().err or command == "fisher"
    with pytest.raises(SystemExit) as exit_status:
        main([command])
    assert exit_status.value.code == 2
    assert "--task" in capsys.readouterr().err


def test_the_fisher_diagonal_of_a_split_is_that_of_the_library(source, tmp_path, capsys):
    arguments = ["fisher", *source("image-classification"), "--split", "train[:20]", "--use_cpu"]
    assert main([*arguments, "--output", str(tmp_path / "fisher.safetensors")]) == 0
    assert "on 20 examples" in capsys.readouterr().out
    fisher = FisherDiagonal.load(tmp_path / "fisher.safetensors")
    assert fisher.num_examples == 20
    model = ViTForImageClassification.from_pretrained(tmp_path / "model")
    rows = tiny.digits()[:20]
    expected = accumulate_fisher_diagonal(model, [rows], parameters=parameters_in_scope(model))
    for name, total in expected.sums.items():
        assert torch.allclose(fisher.sums[name], total, rtol=1e-4, atol=1e-12)
    assert main([*arguments, "--output", str(tmp_path / "fisher.safetensors")]) == 1
    assert "Nothing is ever overwritten" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "gone" / "f.safetensors")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_a_fisher_that_the_command_keeps_answers_a_request_and_then_is_stale(source, tmp_path, capsys):
    arguments = source("text-classification")
    kept = ["--kept_fisher", str(tmp_path / "fisher.safetensors")]
    assert main(["fisher", *arguments, "--use_cpu", "--output", kept[1]]) == 0
    request = ["unlearn", *arguments, *TASKS["text-classification"][2], *RUN, *kept]
    assert main([*request, "--output_dir", str(tmp_path / "clean")]) == 0
    assert "The kept Fisher is stale now; a refresh costs one pass over" in capsys.readouterr().out
    report = UnlearningReport.load(tmp_path / "clean" / "report.json")
    assert report.kept_fisher.num_examples == sum(report.num_fisher_examples.values())
    again = [argument.replace(str(tmp_path / "model"), str(tmp_path / "clean")) for argument in request]
    assert main([*again, "--output_dir", str(tmp_path / "again")]) == 1
    assert "The kept Fisher is stale" in capsys.readouterr().err


def test_a_finished_run_is_said_to_be_finished_when_it_is_resumed(source, tmp_path, capsys):
    arguments = [*source("image-classification"), "--forget_filter", "label == 3", *RUN]
    request = ["unlearn", *arguments, "--output_dir", str(tmp_path / "clean"), "--resume_from_checkpoint", "true"]
    assert main(request) == 0
    assert main(request) == 1
    assert "The run there is finished" in capsys.readouterr().err


def test_reports_are_shown_and_rendered_as_cards(source, tmp_path, capsys):
    arguments = [*source("image-classification"), "--forget_filter", "label == 3", *RUN]
    assert main(["unlearn", *arguments, "--output_dir", str(tmp_path / "clean")]) == 0
    shown = capsys.readouterr().out
    assert main(["report", str(tmp_path / "clean")]) == 0
    assert shown.endswith(capsys.readouterr().out)
    assert main(["report", str(tmp_path / "clean" / "report.json"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert UnlearningReport.from_dict(record) == UnlearningReport.load(tmp_path / "clean" / "report.json")

    readme = tmp_path / "clean" / "README.md"
    assert main(["card", str(tmp_path / "clean"), "--output", str(readme)]) == 0
    assert "machine-unlearning" in ModelCard.load(readme).data.tags
    assert main(["card", str(tmp_path / "clean")]) == 0
    assert capsys.readouterr().out.strip() == readme.read_text().strip()
    assert main(["card", str(tmp_path / "clean"), "--output", str(readme)]) == 1
    assert "Nothing is ever overwritten" in capsys.readouterr().err


def test_what_is_no_report_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "There is no" in capsys.readouterr().err
    for content in ("{", "[]", '{"a": 1}', "{}"):
        (tmp_path / "report.json").write_text(content)
        assert main(["card", str(tmp_path)]) == 1
        assert "report" in capsys.readouterr().err


@pytest.fixture
def finished(source, tmp_path):
    """The output directory of a run on rows of people, and the file with these."""
    arguments = source("text-classification")
    rows = tmp_path / "patients-2026.jsonl"
    people = [
        {"patient": f"PX{77_310_400 + number}", "text": f"Ottilie Zweifelsfrei has {number} red.", "label": "red"}
        for number in range(55)
    ]
    others = [
        {"patient": f"PX{88_310_400 + number}", "text": f"{WORDS[number % 4]} {number}", "label": WORDS[number % 4]}
        for number in range(60)
    ]
    rows.write_text("\n".join(map(json.dumps, people + others)))
    arguments[arguments.index("--dataset_name") + 1] = str(rows)
    request = ["--forget_filter", "text.startswith('Ottilie')"]
    arguments += ["--max_length", "20"]
    output = tmp_path / "clean-for-ottilie"
    assert main(["unlearn", *arguments, *request, *RUN, "--output_dir", str(output)]) == 0
    return output, ["--forget-file", str(rows), *request]


def test_a_run_is_published_by_the_command_line(finished, hub, monkeypatch, tmp_path, capsys):
    output, request = finished
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert main(["push", str(output), "tester/clean", *request, "--dry_run", str(tmp_path / "public")]) == 0
    assert "README.md" in capsys.readouterr().out
    assert hub.requests == []
    assert main(["push", str(output), "tester/clean", *request, "--forget_disclosure", "size"]) == 0
    printed = capsys.readouterr().out
    assert "files in one commit" in printed and "old revisions" in printed
    assert hub.repo("tester/clean").private
    assert b"disclosure: size" in hub.files("tester/clean")["README.md"]
    for canary in (b"Ottilie", b"Zweifelsfrei", b"PX77310400", b"patients-2026", str(tmp_path).encode()):
        assert canary not in hub.received_bytes()
    assert main(["push", str(output), "tester/clean", *request]) == 1
    assert "exist_ok" in capsys.readouterr().err
    assert main(["squash-history", "tester/clean"]) == 0
    assert "no revision holds other weights" in capsys.readouterr().out
    assert main(["squash-history", "tester/clean", "--yes"]) == 0
    assert len(hub.commits("tester/clean")) == 1


def test_the_run_itself_pushes_with_a_repository_and_knows_the_rows_before_they_were_tokenized(
    source, hub, tmp_path, capsys
):
    arguments = [*source("text-classification"), "--forget_column", "delete", *RUN, "--hub_token", hub.token]
    arguments += ["--hub_model_id", "tester/clean", "--output_dir", str(tmp_path / "clean")]
    assert main(["unlearn", *arguments]) == 0
    assert "files in one commit" in capsys.readouterr().out
    assert hub.repo("tester/clean").private


def test_traces_in_a_folder_are_named_and_not_shown(finished, tmp_path, capsys):
    output, request = finished
    folder = tmp_path / "any"
    folder.mkdir()
    (folder / "notes.md").write_text("All is well.\n")
    assert main(["check-card", str(folder), *request]) == 0
    assert "no traces" in capsys.readouterr().out
    (folder / "notes.md").write_text("All is well.\nAsk Ottilie Zweifelsfrei, PX77310412.\n")
    assert main(["check-card", str(folder), *request]) == 1
    printed = capsys.readouterr().out
    assert "notes.md, line 2" in printed
    assert "Ottilie" not in printed and "PX77310412" not in printed
    assert main(["check-card", str(folder), *request, "--allow", "Ottilie Zweifelsfrei", "PX77310412"]) == 0
    assert main(["check-card", str(tmp_path / "gone"), *request]) == 1
    assert "There is no folder" in capsys.readouterr().err
    (output / "config.json").write_text(json.dumps({"note": "PX77310412"}))
    assert main(["push", str(output), "tester/clean", *request, "--dry_run", str(tmp_path / "public")]) == 1
    assert "config.json, note" in capsys.readouterr().err
    assert not (tmp_path / "public").exists()


COMMANDS = ["unlearn", "fisher", "estimate", "report", "card", "push", "check-card", "squash-history"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "--help_all"])
def test_every_command_has_help(command, option, capsys):
    if command not in ("unlearn", "fisher", "estimate") and option == "--help_all":
        option = "-h"
    with pytest.raises(SystemExit) as exit_status:
        main([command, option])
    assert exit_status.value.code == 0
    assert f"hf-deepclean {command}" in capsys.readouterr().out


def test_help_does_not_wait_for_heavy_imports():
    code = "import sys; from hf_deepclean.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "unlearn" in result.stdout


def test_the_console_script_is_the_main_function():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    module, function = re.search(r'^hf-deepclean = "([\w.]+):(\w+)"$', project, re.M).groups()
    assert getattr(importlib.import_module(module), function) is main


def test_every_long_phase_shows_its_progress_on_the_main_process_alone(source, tmp_path, capsys, monkeypatch):
    arguments = ["unlearn", *source("causal-lm"), "--forget_filter", "label == 'red'", *RUN, "--disable_tqdm", "false"]
    datasets.enable_progress_bars()
    try:
        assert main([*arguments, "--output_dir", str(tmp_path / "a")]) == 0
        shown = capsys.readouterr().err
        monkeypatch.setenv("RANK", "1")
        assert main([*arguments, "--output_dir", str(tmp_path / "b"), "--disable_tqdm", "true"]) == 0
        hidden = capsys.readouterr().err
    finally:
        datasets.disable_progress_bars()
    phases = ["Generating train split", "filtering", "tokenising"]
    for phase in [*phases, "forget Fisher", "retain Fisher", "evaluate forget", "evaluate retain", "10/10"]:
        assert phase in shown, phase
    for phase in phases:
        assert phase not in hidden, phase
