"""How wide what is printed may be, and text that breaks between words only."""

from __future__ import annotations

import os
import textwrap

_WITHOUT_TERMINAL = 100  # a file, a log of CI


def width() -> int:
    """Columns to print in: COLUMNS, else those of the terminal that any standard stream is, else a hundred."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    for stream in (0, 1, 2):  # one that is piped has no size, and `ops plan | less` has the size of its input
        try:
            columns = os.get_terminal_size(stream).columns
        except OSError:
            continue
        if columns:
            return columns
    return _WITHOUT_TERMINAL


def wrapped(text: str, columns: int, first: str = "", rest: str | None = None) -> str:
    """Text in lines of at most so many columns; a longer word has a line of its own.

    `first` is what the first line begins with, `rest` the others: by default as many blanks.
    """
    return textwrap.fill(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def folded(line: str, columns: int) -> str:
    """A line that keeps its indentation, the lines it is broken into two further in."""
    indent = " " * (len(line) - len(line.lstrip()))
    return wrapped(line.strip(), columns, indent, f"{indent}  ")
