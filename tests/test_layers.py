# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The folder list is the algorithm: imports point up it, files and functions stay short, every folder has its page."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_deepclean"

# Ground first. A module may import what stands before it, and modules of its own entry.
LAYERS = [
    "version",
    "runtime",
    "data",
    "models",
    "fisher.engine",
    "fisher",
    "evaluation",
    "metrics",
    "selection",
    "reset",
    "repair",
    "baselines",
    "report",
    "publishing",
    "config_checks",
    "taken_over",
    "config",
    "base_checkpoint",
    "request",
    "run_plan",
    "state",
    "repair_rounds",
    "natural_phase",
    "recovery_phase",
    "phases",
    "rehearsal",
    "planning",
    "trainers",
    "unlearner",
    "deletion_requests",
    "cli",
]
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_MODULES = 14


def module_name(path):
    """The dotted name below the package; that of a folder for its `__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(module):
    """The longest entry of the list that the module belongs to."""
    found = [layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")]
    return max(found, key=len, default=None)


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_modules(path):
    """The modules of the package that a file imports, anywhere in it but for type checkers alone."""
    is_package = path.name == "__init__.py"
    own = module_name(path).split(".") if module_name(path) else []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {child for node in ast.walk(tree) if is_for_type_checkers(node) for child in node.body}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in skipped:
            continue
        if node.level:
            base = own[: len(own) - node.level + is_package]
        elif node.module.split(".")[0] == "hf_deepclean":
            base = []
            node.module = node.module.partition(".")[2]
        else:
            continue
        target = [*base, *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            full = PACKAGE.joinpath(*target, alias.name)
            is_module = full.with_suffix(".py").exists() or full.is_dir()
            found.add(".".join([*target, alias.name] if is_module else target))
    return found - {""}


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if module_name(path)}
IMPORTS = {module: imported_modules(path) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up_the_list_of_layers(module):
    own = LAYERS.index(layer_of(module))
    later = {target: layer_of(target) for target in IMPORTS[module] if LAYERS.index(layer_of(target)) > own}
    assert not later, f"{module} is in layer {LAYERS[own]!r} and imports from later ones: {later}"


def test_every_module_belongs_to_a_layer_and_every_layer_has_modules():
    assert {layer_of(module) for module in MODULES} == set(LAYERS)


def test_no_modules_import_each_other_in_a_circle():
    waiting, done = {module: set(targets) - {module} for module, targets in IMPORTS.items()}, set()
    while ready := [module for module, targets in waiting.items() if not targets & waiting.keys()]:
        done |= set(ready)
        for module in ready:
            del waiting[module]
    assert not waiting, f"in a circle, or above one: {sorted(waiting)}"


def python_files():
    return sorted(path for folder in ("hf_deepclean", "tests", "recipes") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in long.items() if length > MAX_FUNCTION_LINES}


# A metric in the layout of `evaluate` is described by its own docstring.
PAGED = [folder for folder in FOLDERS if folder.parent != PACKAGE / "metrics"]


@pytest.mark.parametrize("folder", PAGED, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_every_folder_has_a_page_that_names_its_modules(folder):
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert len(modules) <= MAX_MODULES
    page = (folder / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)\.py`", page))
    assert modules <= named, f"not named: {sorted(modules - named)}"
    assert named <= modules | {path.stem for path in PACKAGE.rglob("*.py")}
