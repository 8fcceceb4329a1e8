"""What a remedy of an `ops` command says, tried on the parser that will read it."""

from __future__ import annotations

import shlex
from unittest.mock import patch

from ops import cli


def parses_as_ops(line: str) -> bool:
    """Whether `ops` takes a line as it stands; the command itself is not run. What it complains of goes to stderr."""
    program, command, *arguments = shlex.split(line, comments=True)
    if program != "ops":
        return False
    module = cli._module(command)  # pyright: ignore[reportPrivateUsage]
    try:
        with patch.object(module, "run", return_value=0):
            return cli.main([command, *arguments]) == 0
    except SystemExit:
        return False
