# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest
import torch

from hf_deepclean import UnlearningReport

from .running import FOLDER, ROOT, arguments_of


ACCELERATE_CONFIGS = {"single_process": 1, "cpu_two_processes": 2, "multi_gpu": 2}


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
    done = launch("cpu_two_processes", tmp_path / "clean", "--use_cpu", "true", "--train_reference", "false")
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
