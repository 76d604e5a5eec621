# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tables for the console and in Markdown."""

from collections.abc import Collection, Iterable, Sequence

from ..evaluation.measures import ALL_TOKENS_RIGHT, EXTRACTION_STRENGTH, VERBATIM, measure_of_figure


# A metric of the caller is shown in percent if its name ends like this or contains "accuracy".
_SHARE_ENDINGS = ("TPR at 1 % FPR", EXTRACTION_STRENGTH.name, VERBATIM.name, ALL_TOKENS_RIGHT.name)


def format_figure(name: str, value: float, *, signed: bool = False) -> str:
    """
    Formats a figure of [`StageResult.figures`]: shares in percent, everything else as a number.

    Args:
        name (`str`): Name of the figure.
        value (`float`): Its value, or a difference of two.
        signed (`bool`, *optional*, defaults to `False`): Whether to show the sign of a positive value.
    """
    sign = "+" if signed else ""
    measure = measure_of_figure(name)
    in_percent = name.endswith(_SHARE_ENDINGS) or "accuracy" in name if measure is None else measure.is_share
    if in_percent:
        return f"{100 * value:{sign}.1f} %"
    # An unlearned language model may well have a perplexity of millions.
    return f"{value:{sign}.3f}" if abs(value) < 10_000 else f"{value:{sign}.3g}"


def format_markdown_table(columns: Collection[str], rows: Iterable[Sequence[str]]) -> str:
    """Formats a table in Markdown. The first cell of every row is its name, which has no column heading."""
    head = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads the cells of a console table: the first column is flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def format_console_table(rows: list[list[str]]) -> str:
    """Formats a table for the console; the first row is the head."""
    head, *body = align_columns(rows)
    return "\n".join([head.rstrip(), "-" * len(head), *(line.rstrip() for line in body)])
