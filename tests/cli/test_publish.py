# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from huggingface_hub import ModelCard

from hf_deepclean import UnlearningReport
from hf_deepclean.cli.commands import main

from .tasks import RUN, WORDS


@pytest.fixture
def finished(source, tmp_path):
    """The output directory of a run on rows about people, and the options that name these rows."""
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


def test_reports_are_shown_and_rendered_as_cards(source, tmp_path, capsys):
    arguments = [*source("image-classification"), "--forget_filter", "label == 3", *RUN]
    assert main(["unlearn", *arguments, "--output_dir", str(tmp_path / "clean")]) == 0
    shown = capsys.readouterr().out
    assert main(["report", str(tmp_path / "clean")]) == 0
    ending = f"The cleaned model and report.json are in {tmp_path / 'clean'}.\n"
    assert shown.endswith(capsys.readouterr().out + ending)
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
