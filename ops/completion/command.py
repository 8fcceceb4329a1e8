"""`ops completion bash | zsh | fish`: a script for the shell, made by shtab from the command line itself.

eval "$(ops completion bash)"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, cast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """0 with the script on standard output."""
    import shtab  # noqa: PLC0415  only here

    from models.catalog import CATALOG  # noqa: PLC0415
    from ops.cli import parser  # noqa: PLC0415

    whole = parser()
    for action in _actions(whole):
        if action.metavar in ("FILE", "DIR"):
            cast("Any", action).complete = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}[action.metavar]
        elif action.metavar == "ALIAS" or action.dest == "alias":
            action.choices = list(CATALOG)
    sys.stdout.write(shtab.complete(whole, args.shell) + "\n")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a command line, those of its commands too."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        yield action
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for sub in cast("dict[str, argparse.ArgumentParser]", action.choices).values():
                yield from _actions(sub)
