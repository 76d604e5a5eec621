# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The entry point of `hf-deepclean`: collects the commands and runs the one that is asked for."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from ..version import __version__
from . import estimate, fisher, publish, report, unlearn


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Runs `hf-deepclean`.

    Args:
        arguments (`Sequence[str]`, *optional*):
            The command line, by default that of the process.

    Returns:
        `int`: The exit status: 0 for success, 1 after an error, which is printed to stderr. Invalid options exit the
        process with status 2, as [`~argparse.ArgumentParser`] does.
    """
    parser = argparse.ArgumentParser(
        prog="hf-deepclean",
        description="Make a trained Hugging Face model forget chosen training data, and measure the result.",
        epilog="`hf-deepclean COMMAND --help` shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    # Otherwise `push --p`, with or without a typing error, would publish.
    full_names = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=full_names)
    unlearn.add_parser(commands)
    fisher.add_parser(commands)
    estimate.add_parser(commands)
    report.add_parser(commands)
    publish.add_parsers(commands)

    parsed = parser.parse_args(arguments)
    from ..runtime.interruption import unwinding

    try:
        with unwinding():
            return parsed.run(parsed) or 0
    except (ValueError, TypeError, OSError) as error:
        print(f"hf-deepclean: error: {error}", file=sys.stderr)
        return 1
