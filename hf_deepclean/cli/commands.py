# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The command `hf-deepclean`: the same code as the recipes, for a model and data of your own."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..version import __version__
from .estimate import run_estimate
from .fisher import run_fisher
from .models import COMMANDS
from .publish import (
    add_forget_arguments,
    add_publication_arguments,
    run_card,
    run_check_card,
    run_push,
    run_report,
    run_squash_history,
)
from .unlearn import run_unlearn


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Runs `hf-deepclean`.

    Args:
        arguments (`Sequence[str]`, *optional*):
            The command line, by default that of the process.

    Returns:
        `int`: The exit status: 0, or 1 after an error that the message on the error stream explains. Bad options end
        the process with status 2, as always with [`~argparse.ArgumentParser`].
    """
    parser = argparse.ArgumentParser(
        prog="hf-deepclean",
        description="Make a trained Hugging Face model forget chosen training data, and measure what that did.",
        epilog="`hf-deepclean COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in ("unlearn", "fisher", "estimate"):
        # Their options are those of dataclasses, and importing these takes seconds.
        commands.add_parser(name, help=COMMANDS[name], add_help=False)
    report = commands.add_parser("report", help=COMMANDS["report"], description=COMMANDS["report"])
    report.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="output directory of a run, or its report.json; of several runs a summary is shown",
    )
    report.add_argument("--json", action="store_true", help="print the whole report as JSON")
    card = commands.add_parser("card", help=COMMANDS["card"], description=COMMANDS["card"])
    card.add_argument("path", type=Path, metavar="DIR", help="output directory of a run")
    card.add_argument("--output", type=Path, metavar="README.md", help="file to write; without it, print the card")
    card.add_argument("--repo_id", help="repository that the model is for")
    add_publication_arguments(card)
    push = commands.add_parser("push", help=COMMANDS["push"], description=COMMANDS["push"])
    push.add_argument("path", type=Path, metavar="DIR", help="output directory of a run")
    push.add_argument("repo_id", metavar="REPO", help="repository, such as me/clean-model")
    add_forget_arguments(push)
    add_publication_arguments(push)
    push.add_argument("--gated_prompt", help="what people are asked who request access")
    push.add_argument("--gated", choices=["auto", "manual"], help="access must be requested")
    push.add_argument("--public", action="store_true", help="everyone may see it; by default it is private")
    push.add_argument("--exist_ok", action="store_true", help="push to a repository that holds something")
    push.add_argument("--create_pr", action="store_true", help="open a pull request")
    push.add_argument("--revision", help="branch, by default main")
    push.add_argument("--commit_message", default="Add the cleaned model", help="title of the commit")
    push.add_argument("--dry_run", type=Path, metavar="FOLDER", help="write what would be published there instead")
    check = commands.add_parser("check-card", help=COMMANDS["check-card"], description=COMMANDS["check-card"])
    check.add_argument("path", type=Path, metavar="DIR", help="the folder")
    add_forget_arguments(check)
    squash = commands.add_parser(
        "squash-history", help=COMMANDS["squash-history"], description=COMMANDS["squash-history"]
    )
    squash.add_argument("repo_id", metavar="REPO", help="the repository")
    squash.add_argument("--branch", default="main", help="the branch")
    squash.add_argument("--yes", action="store_true", help="squash; without it nothing changes. It cannot be undone.")

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["unlearn"]:
            run_unlearn(arguments[1:])
        elif arguments[:1] == ["fisher"]:
            run_fisher(arguments[1:])
        elif arguments[:1] == ["estimate"]:
            run_estimate(arguments[1:])
        else:
            parsed = parser.parse_args(arguments)
            return {
                "report": run_report,
                "card": run_card,
                "push": run_push,
                "check-card": run_check_card,
                "squash-history": run_squash_history,
            }[parsed.command](parsed)
    except (ValueError, TypeError, OSError) as error:
        print(f"hf-deepclean: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
