"""`ops`: the operator's commands. Each is imported when it is called, since some need Pulumi and some must not."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple


class _Command(NamedTuple):
    module: str  # with add_arguments(parser) and run(args) -> int
    summary: str


_COMMANDS = {
    "plan": _Command("ops.plan.command", "show what `pulumi up` would create, without account, cluster or CLI"),
    "pin": _Command("ops.pin", "look up missing revisions and image digests (needs the network)"),
    "up": _Command("ops.up.command", "deploy a stack to the embedded cluster or any context, with or without pulumi"),
    "cluster": _Command("ops.cluster.command", "start, stop and show the embedded cluster"),
    "fit": _Command("ops.fit", "show whether a model fits a GPU, and where its memory goes"),
    "smoke": _Command(
        "ops.smoke.command", "ask models what they are for, directly and through the gateway, with a key"
    ),
    "keys": _Command("ops.keys", "list teams and keys: spent, budget, left (no values)"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its number is the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and arguments[:1] == ["plan"]:
        # Before anything imports an SDK, and only in a process of its own.
        from ops.plan import fast_imports  # noqa: PLC0415

        fast_imports.install()
    parser = argparse.ArgumentParser(prog="ops", description="Operate the ai-platform.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=command.summary, description=command.summary)
        if arguments[:1] == [name]:
            importlib.import_module(command.module).add_arguments(sub)
    args = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(_COMMANDS[args.command].module).run(args))
    except BrokenPipeError:
        # `ops plan | head`: the reader has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
