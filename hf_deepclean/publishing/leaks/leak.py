# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Leaks: traces that were found, described without their value."""

import re
from dataclasses import dataclass


_NUM_SHOWN = 20

_OF_CLASSES = re.compile(r"(?:^|\.)(?:id2label|label2id)\.")
_ASK_ABOUT_CLASSES = (
    "A class of the model is named like a value of the data to forget. May everybody know this name? Then allow it, "
    "as said below. If not, rename the class in `id2label` and `label2id` of `model.config` and of the config.json in "
    "the output directory."
)


@dataclass(frozen=True)
class Leak:
    """
    A trace that was found, without its value.

    Args:
        file (`str`):
            Path in the folder. A `*` replaces every part that is itself a trace.
        field (`str`):
            The place in the file, such as `"settings.run_name"`, `"line 12"`, `"metadata.format"`,
            `"tensor.head.weight"`, `"tEXt chunk"`, `"file name"` or `"bytes"`. A `*` replaces every trace.
        kind (`str`):
            What was found, such as `"a name in the data to forget"`.
    """

    file: str
    field: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, {self.field}: {self.kind}"


class LeakError(ValueError):
    """
    A folder that was to be published holds traces. The message names files, fields and kinds, never a value.

    Args:
        leaks (`list[Leak]`):
            The traces.
    """

    def __init__(self, leaks: list[Leak]) -> None:
        shown = [f"- {leak}" for leak in leaks[:_NUM_SHOWN]]
        if len(leaks) > _NUM_SHOWN:
            shown.append(f"- and {len(leaks) - _NUM_SHOWN} more")
        if any(_OF_CLASSES.search(leak.field) for leak in leaks):
            shown.append(_ASK_ABOUT_CLASSES)
        super().__init__(
            "\n".join(
                [
                    f"Nothing may be published: in {len(leaks)} places there are traces of the data to forget or of "
                    "this machine. Their values are not shown; a * replaces a trace within a name.",
                    *shown,
                    "Remove the traces from the files, or rename the files. To allow a value that is public anyway, "
                    "pass a text that holds it: `allowed` of a push, `--allow` on the command line, `ignore` of "
                    "`find_leaks`.",
                ]
            )
        )
        self.leaks = leaks
