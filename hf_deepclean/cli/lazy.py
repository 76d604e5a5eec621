# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Commands whose options are fields of dataclasses that take seconds to import."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def add_lazy_parser(commands: Any, name: str, text: str, run: Callable[[Sequence[str]], None]) -> None:
    """
    Adds a command that parses its own options, so that `hf-deepclean --help` imports neither torch nor transformers.

    Args:
        commands:
            From [`~argparse.ArgumentParser.add_subparsers`].
        name (`str`):
            Name of the command.
        text (`str`):
            What the command does, for `hf-deepclean --help`.
        run (`Callable`):
            Called with the words after the name of the command; parses them and runs the command.
    """
    # Without a prefix character no word is an option here, so `options` takes all words unchanged, `--help` too.
    parser = commands.add_parser(name, help=text, add_help=False, prefix_chars="\0")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    parser.set_defaults(run=lambda parsed: run(parsed.options))
