"""Consoles, refusals, and tables that fit: figures stay whole, text folds between words, what is spare gives way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops.wrapping import width, wrapped
from stacks.problems import Problem

_GAPS = (2, 1)  # columns between two cells
_LEAST_TEXT = 8  # columns that a folded text keeps, where even its words do not fit


class _Console(Console):
    """Whose reader may leave, as that of `ops plan | head` does: the command goes on, and has its own exit code."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def output(*, soft_wrap: bool = False) -> Console:
    """Standard output. What is printed is shown as it is: a name may contain brackets or `:b:`.

    `soft_wrap` is for messages and logs: a line each, however long.
    """
    return _Console(width=width(), soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


def errors() -> Console:
    """Standard error, a message a line, however long."""
    return _Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    header: str
    figure: bool = False  # to the right, and never broken
    spare: int = 0  # what is left out first where not all fits: the highest; 0 is never left out


@dataclass(frozen=True)
class Row:
    """A row of a table; one of fewer cells than there are columns leaves the rest empty."""

    cells: Sequence[str | Text]
    style: str = ""


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print a table as wide as it need be and at most as wide as the console; name the columns it has no room for."""
    shown = list(range(len(columns)))
    texts = [[_plain(row, i) for row in rows] for i in shown]
    while True:
        fitting = _fit([columns[i] for i in shown], [texts[i] for i in shown], console.width)
        spare = max(shown, key=lambda i: (columns[i].spare, i))
        if fitting or not columns[spare].spare:
            break
        shown.remove(spare)
    gap, widths = fitting or _squeezed([columns[i] for i in shown], [texts[i] for i in shown], console.width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for i, columns_of_it in zip(shown, widths, strict=True):
        justify = "right" if columns[i].figure else "left"
        table.add_column(columns[i].header, width=columns_of_it, justify=justify, overflow="fold", vertical="top")
    for row in rows:
        table.add_row(*(row.cells[i] if i < len(row.cells) else "" for i in shown), style=row.style)
    available = console.width
    console.width = max(available, sum(widths) + gap * (len(widths) - 1))  # rich would cut figures to fit
    console.print(table, soft_wrap=False, crop=False)
    console.width = available
    if left_out := [column.header for i, column in enumerate(columns) if i not in shown]:
        note = f"(not at {console.width} columns: {', '.join(left_out)})"
        console.print(Text(wrapped(note, console.width), style="dim"), soft_wrap=True)


def _plain(row: Row, column: int) -> str:
    cell = row.cells[column] if column < len(row.cells) else ""
    return cell.plain if isinstance(cell, Text) else cell


def _needs(column: Column, texts: Sequence[str]) -> tuple[int, int]:
    """Columns that a column of a table takes at least, and at most."""
    whole = max(map(cell_len, texts), default=0)
    words = max((cell_len(word) for text in texts for word in text.split()), default=0)
    header = max(cell_len(word) for word in column.header.split())
    return max(header, whole if column.figure else words), max(cell_len(column.header), whole)


def _fit(columns: Sequence[Column], texts: Sequence[Sequence[str]], available: int) -> tuple[int, list[int]] | None:
    """The gap and the widths, with whole words and figures; None where they do not fit."""
    needs = [_needs(column, of_it) for column, of_it in zip(columns, texts, strict=True)]
    for gap in _GAPS:
        room = available - gap * (len(columns) - 1)
        if sum(least for least, _ in needs) <= room:
            widths = [least for least, _ in needs]
            wanted = [most for _, most in needs]
            for _ in range(min(room, sum(wanted)) - sum(widths)):
                # To the column that lacks most.
                widths[max(range(len(widths)), key=lambda i: wanted[i] - widths[i])] += 1
            return gap, widths
    return None


def _squeezed(columns: Sequence[Column], texts: Sequence[Sequence[str]], available: int) -> tuple[int, list[int]]:
    """Words break where there is no other way, the longest first; figures do not."""
    gap = _GAPS[-1]
    widths = [_needs(column, of_it)[0] for column, of_it in zip(columns, texts, strict=True)]
    least = [w if column.figure else min(w, _LEAST_TEXT) for column, w in zip(columns, widths, strict=True)]
    while sum(widths) + gap * (len(widths) - 1) > available and widths != least:
        widest = max((i for i, w in enumerate(widths) if w > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return gap, widths


def refusal(problems: Sequence[Problem]) -> Group:
    """All problems, for standard error: broken between words on a terminal, whole lines in a log."""
    columns = width() if sys.stderr.isatty() else None
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines: list[RenderableType] = [Text(f"refused: {count}, nothing would be deployed", style="bold red")]
    for problem in problems:
        message = f"- {problem.message}"
        lines.append(Text(wrapped(problem.message, columns, "- ") if columns else message))
        lines.append(Text(f"    {problem.remedy}", style="bold"))
    return Group(*lines)
