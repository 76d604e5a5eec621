# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_deepclean


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_deepclean"


def test_importing_the_package_does_not_import_torch():
    code = "import sys, hf_deepclean; sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_optional_is_imported_only_where_it_is_used():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            # The modules that evaluate itself loads, one in each folder of metrics.
            allowed = {"evaluate"} if path.parent.parent == PACKAGE / "metrics" else set()
            optional = {"matplotlib", "peft", "evaluate", "sklearn"} - allowed
            assert not {name.split(".")[0] for name in names} & optional, path


def test_every_public_name_resolves_and_has_a_docstring():
    for name in hf_deepclean.__all__:
        assert getattr(hf_deepclean, name).__doc__
    assert set(hf_deepclean.__all__) <= set(dir(hf_deepclean))
    with pytest.raises(AttributeError, match="hf_deepclean attribute nothing"):
        _ = hf_deepclean.nothing


def test_every_file_carries_the_licence():
    for folder in (PACKAGE, ROOT / "tests", ROOT / "recipes"):
        for path in folder.rglob("*.py"):
            assert not path.read_text() or "# SPDX-License-Identifier: Apache-2.0" in path.read_text(), path


def test_the_readme_example_runs(tmp_path, monkeypatch):
    """The ten lines of the README, on a small model and the digits."""
    from . import tiny

    example = next(
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        if "unlearn()" in block
    )
    assert len(example.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    tiny.trained().save_pretrained(tmp_path / "my-model")
    digits = tiny.digits()
    names = {
        "forget": digits.select(range(30)),
        "retain": digits.select(range(30, 120)),
        "test": digits.select(range(120, 150)),
        "holdout": digits.select(range(150, 180)),
    }
    exec(example, names)
    assert (tmp_path / "clean-model" / "model.safetensors").exists()
