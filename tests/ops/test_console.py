"""Tables fit any console: figures stay whole, words too, and what has no room is named."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console
from rich.text import Text

from ops.console import Column, Row, print_table
from ops.wrapping import width, wrapped

COLUMNS = [
    Column("MODEL"),
    Column("GROUP", spare=1),
    Column("WHERE IT RUNS", spare=2),
    Column("COST $/MTOK", figure=True),
    Column("$/MONTH", figure=True),
    Column("VERDICT"),
]
ROWS = [
    Row(("coder-chat", "coding-assistant", "GPU pool", "0.092", "1,234,567.89", "fits with 16,384 tokens")),
    Row(("qwen3-coder-30b-a3b-instruct-awq", "coding-assistant", "GPU pool", "12.5", "73.00", Text("does not fit"))),
    Row(("embeddings [bold]x[/bold] :b:", "retrieval", "system pool", "-", "-73.00", "on CPU")),
    Row(("total",), "bold"),
]


def printed(columns: int, rows: list[Row] = ROWS) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=columns, highlight=False, markup=False, emoji=False), COLUMNS, rows)
    return out.getvalue()


@pytest.mark.parametrize("columns", [60, 66, 72, 80, 100, 120, 200])
def test_a_table_fits_and_no_figure_and_no_word_is_cut(columns: int) -> None:
    out = printed(columns)
    assert max(map(len, out.splitlines())) <= columns
    assert "…" not in out
    for word in (
        "0.092",
        "1,234,567.89",
        "-73.00",
        "16,384",
        "qwen3-coder-30b-a3b-instruct-awq",
        "[bold]x[/bold]",
        ":b:",
    ):
        assert word in out.split()


def test_with_room_every_row_is_one_line() -> None:
    assert len(printed(200).splitlines()) == len(ROWS) + 1


def test_headers_and_texts_wrap_before_a_column_is_left_out() -> None:
    out = printed(100)
    assert "not at" not in out
    assert any(line.split()[:1] == ["COST"] or "COST" in line for line in out.splitlines()[:2])


def test_the_most_spare_columns_go_first_and_are_named() -> None:
    assert "(not at 80 columns: WHERE IT RUNS)" in printed(80)
    assert "(not at 66 columns: GROUP, WHERE IT RUNS)" in printed(66)


@pytest.mark.parametrize("columns", [1, 20, 40])
def test_figures_stay_whole_where_nothing_fits(columns: int) -> None:
    for figure in ("0.092", "1,234,567.89", "-73.00"):
        assert figure in printed(columns).split()


def test_wide_characters_count_twice() -> None:
    rows = [Row(("模型模型模型模型模型模型", "g", "w", "1", "2", "好"))]
    assert all(line.rstrip().endswith(("好", "VERDICT")) for line in printed(80, rows).splitlines())


def test_text_breaks_between_words_only() -> None:
    text = "a remark with-a-hyphenated-word and https://example.test/a/very/long/address/that/has/no/blank that ends"
    lines = wrapped(text, 40, "- ").splitlines()
    assert " ".join(line.strip() for line in lines) == f"- {text}"
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_columns_says_how_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert width() == 72


ASK = [sys.executable, "-c", "from ops.wrapping import width; print(width())"]


def test_without_a_terminal_it_is_a_hundred() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = subprocess.run(
        ASK,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert done.stdout.strip() == "100"


def test_a_pipe_into_a_pager_is_as_wide_as_the_terminal_it_was_typed_in() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 91, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = subprocess.run(ASK, env=environment, stdin=theirs, capture_output=True, text=True, check=True)
    os.close(ours)
    os.close(theirs)
    assert done.stdout.strip() == "91"
