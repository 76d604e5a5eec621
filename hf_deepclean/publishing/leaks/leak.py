# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What was found where, in words that do not repeat it."""

from dataclasses import dataclass


_NUM_SHOWN = 20


@dataclass(frozen=True)
class Leak:
    """
    A trace, without what it is a trace of.

    Args:
        file (`str`):
            Path in the folder; where a part of it is itself a trace, there is a `*` in its place.
        field (`str`):
            Where in the file: `"settings.run_name"`, `"line 12"`, `"metadata.format"`, `"tensor.head.weight"`,
            `"tEXt chunk"`, `"file name"`, `"bytes"` and the like, with a `*` in the place of a trace.
        kind (`str`):
            What it is a trace of, such as `"a name in the data to forget"`.
    """

    file: str
    field: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, {self.field}: {self.kind}"


class LeakError(ValueError):
    """
    There are traces in a folder that was to be published; names files, fields and kinds, never a value.

    Args:
        leaks (`list[Leak]`):
            The traces.
    """

    def __init__(self, leaks: list[Leak]) -> None:
        shown = [f"- {leak}" for leak in leaks[:_NUM_SHOWN]]
        if len(leaks) > _NUM_SHOWN:
            shown.append(f"- and {len(leaks) - _NUM_SHOWN} more")
        super().__init__(
            "\n".join(
                [
                    f"Nothing may be published: in {len(leaks)} places there are traces of the data to forget or of "
                    "this machine. Their values are not shown; a * stands for one in a name.",
                    *shown,
                    "Remove them from the files, or rename these. What is public anyway can be allowed by a text that "
                    "holds it: `allowed` of a push, `--allow` on the command line, `ignore` of `find_leaks`.",
                ]
            )
        )
        self.leaks = leaks
