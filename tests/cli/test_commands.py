# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_deepclean.cli.commands import main
from hf_deepclean.version import __version__


COMMANDS = ["unlearn", "fisher", "estimate", "report", "card", "push", "check-card", "squash-history"]


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


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "--help_all"])
def test_every_command_has_help(command, option, capsys):
    if command not in ("unlearn", "fisher", "estimate") and option == "--help_all":
        option = "-h"
    with pytest.raises(SystemExit) as exit_status:
        main([command, option])
    assert exit_status.value.code == 0
    assert f"hf-deepclean {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_can_be_abbreviated(command, capsys):
    # `--hel` would be taken for `--help`, as `push --p` for `push --public`.
    with pytest.raises(SystemExit) as exit_status:
        main([command, "--hel"])
    assert exit_status.value.code == 2 and not capsys.readouterr().out


def test_help_does_not_wait_for_heavy_imports():
    code = "import sys; from hf_deepclean.cli.commands import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "unlearn" in result.stdout


def test_the_console_script_is_the_main_function():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    module, function = re.search(r'^hf-deepclean = "([\w.]+):(\w+)"$', project, re.M).groups()
    assert getattr(importlib.import_module(module), function) is main


def test_the_command_line_is_a_module_that_python_runs():
    command = [sys.executable, "-m", "hf_deepclean.cli", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{__version__}\n"
