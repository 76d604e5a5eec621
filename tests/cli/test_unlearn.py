# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import time

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hf_deepclean import UnlearningReport
from hf_deepclean.cli.commands import main
from tests import tiny
from tests.tokenizers import byte_tokenizer

from .tasks import RUN, TASKS, text_rows


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


def test_unseen_data_are_taken_from_the_evaluation_data_if_asked_for(source, tmp_path, capsys):
    arguments = source("causal-lm")
    rows = datasets.Dataset.from_list(text_rows())
    parts = {"train": rows.select(range(30)), "test": rows.select(range(30, 40))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "parts")
    arguments += ["--forget_column", "delete", "--eval_split", "test", "--dataset_name", str(tmp_path / "parts")]
    arguments += [*RUN, "--unseen_share_of_eval", "0.4", "--output_dir", str(tmp_path / "clean")]
    assert main(["unlearn", *arguments, "--dry_run"]) == 0
    assert "4 unseen examples are taken from the evaluation data" in capsys.readouterr().out
    assert main(["unlearn", *arguments]) == 0
    assert "The 4 unseen examples were taken from the evaluation data" in capsys.readouterr().out
    splits = UnlearningReport.load(tmp_path / "clean" / "report.json").stages["before"].splits
    assert [splits[name].num_examples for name in ("unseen", "eval")] == [4, 6]


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


def test_a_finished_run_is_said_to_be_finished_when_it_is_resumed(source, tmp_path, capsys):
    arguments = [*source("image-classification"), "--forget_filter", "label == 3", *RUN]
    request = ["unlearn", *arguments, "--output_dir", str(tmp_path / "clean"), "--resume_from_checkpoint", "true"]
    assert main(request) == 0
    assert main(request) == 1
    assert "The run there is finished" in capsys.readouterr().err


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
