# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import torch
from transformers import ViTForImageClassification

from hf_deepclean import FisherDiagonal, UnlearningReport, accumulate_fisher_diagonal, parameters_in_scope
from hf_deepclean.cli.commands import main
from tests import tiny

from .tasks import RUN, TASKS


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
