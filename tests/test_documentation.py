# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The pages: links lead somewhere, and every command is run by a make target or by a test."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part == "outputs" or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
# Cards are made by `make model-cards`, and templates are rendered by tests of the card.
WRITTEN = [path for path in PAGES if path.parent.parent != ROOT / "model_cards" and path.parent.name != "templates"]

LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL = re.compile(r"```(?:shell|bash|sh)\n(.*?)```", re.S)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)

# What runs the commands that no make target does.
RUN_BY = {
    "hf-deepclean unlearn": "tests/cli/test_unlearn.py::test_every_task_is_unlearned_from_files",
    "hf-deepclean fisher": "tests/cli/test_fisher.py::test_the_fisher_diagonal_of_a_split_is_that_of_the_library",
    "hf-deepclean push": "tests/cli/test_publish.py::test_a_run_is_published_by_the_command_line",
    "hf-deepclean squash-history": "tests/cli/test_publish.py::test_a_run_is_published_by_the_command_line",
    "hf-deepclean check-card": "tests/cli/test_publish.py::test_traces_in_a_folder_are_named_and_not_shown",
    "hf-deepclean card": "tests/cli/test_publish.py::test_reports_are_shown_and_rendered_as_cards",
    "hf-deepclean report": "tests/cli/test_publish.py::test_reports_are_shown_and_rendered_as_cards",
    "hf-deepclean estimate": (
        "tests/planning/test_formulas.py::test_every_number_on_the_page_is_what_its_command_prints"
    ),
    "accelerate launch": "tests/recipes/test_launch.py::test_two_launched_processes_do_one_run",
    "torchrun": "tests/recipes/test_launch.py::test_two_launched_processes_do_one_run",
    "python recipes/": "tests/recipes/test_recipes.py::test_every_config_runs_and_leaves_three_models",
}


def name_of(path):
    return str(path.relative_to(ROOT))


@cache
def slugs(path):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    found = []
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_relative_links_lead_to_files_and_headings_that_exist(path):
    for link in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path if not target else (path.parent / target).resolve()
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in slugs(file), link


def commands_of(path):
    """The commands of a page, one per line, without comments."""
    for block in SHELL.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield " ".join(words)


@cache
def make_lines():
    """The commands of all make targets, with the names of programs in the place of paths."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = makefile.replace("$(VENV)/bin/", "").splitlines()
    return {" ".join(line.split()) for line in lines if line.startswith("\t")}


@cache
def make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split())


def is_run(command):
    if command in make_lines():
        return True
    if command.startswith("make "):
        return set(command.split()[1:]) <= make_targets()
    return any(command.startswith(prefix) for prefix in RUN_BY) or command == "pip install ."


@pytest.mark.parametrize("path", [path for path in WRITTEN if list(commands_of(path))], ids=name_of)
def test_every_command_on_a_page_is_run_by_a_make_target_or_a_test(path):
    assert not [command for command in commands_of(path) if not is_run(command)]


@pytest.mark.parametrize("test", sorted(set(RUN_BY.values())))
def test_the_tests_that_run_commands_exist(test):
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M)


def test_make_knows_every_target_that_a_page_names():
    named = {
        target for path in WRITTEN for target in re.findall(r"`make ([a-z-]+)`", path.read_text(encoding="utf-8"))
    }
    assert named <= make_targets()
    for target in make_targets():
        subprocess.run(["make", "--dry-run", "--silent", target], cwd=ROOT, check=True, capture_output=True)


def test_the_fast_tests_exist_and_cover_every_phase():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    named = re.search(r"^FAST_TESTS := (.+)$", makefile, re.M)[1].split()
    assert not [name for name in named if not (ROOT / name).exists()]
    phases = "data models fisher evaluation selection reset repair report publishing planning unlearner cli"
    assert {name.split("/")[1] for name in named} >= set(phases.split())


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140
    assert len(text.split()) <= 1200
