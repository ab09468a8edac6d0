"""Tables for the terminal without rich, whose import takes a tenth of a short command's time."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

__all__ = ["print_table"]

_GAP = "  "
_LEAST = 20  # characters that a last column of text keeps, whatever the terminal's width


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: range = range(0)
) -> None:
    """Print columns under their names; those in `numbers` end at one edge, as numbers do.

    The last column is wrapped at the terminal's width.
    """
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(head))]
    before = sum(widths[:-1]) + len(_GAP) * (len(head) - 1)
    room = max(_LEAST, shutil.get_terminal_size().columns - before)
    for row in table:
        cells = [
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if len(head) - 1 in numbers:
            print(_GAP.join(cells).rstrip())
            continue
        first, *more = textwrap.wrap(row[-1], room) or [""]
        print(_GAP.join([*cells[:-1], first]).rstrip())
        for line in more:
            print(" " * before + line)
