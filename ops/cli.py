"""`ops`: the operator's commands. Each is imported when it is called, since some need Pulumi and some must not."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from ops.checkout import nearest_project
from ops.errors import OpsError

# Each is a folder with a `command` module: add_arguments(parser) and run(args) -> int.
_COMMANDS = {
    "plan": "show what `pulumi up` would create, without account, cluster or CLI",
    "pin": "look up missing revisions and image digests (needs the network)",
    "up": "deploy a stack to the embedded cluster or any context, with or without pulumi",
    "cluster": "start, stop and show the embedded cluster",
    "fit": "show whether a model fits a GPU, and where its memory goes",
    "smoke": "ask models what they are for, directly and through the gateway, with a key",
    "doctor": "say what is wrong with a deployment, in its own last words, and what to type",
    "keys": "list teams and keys: spent, budget, left (no values)",
    "schema": "print the JSON Schema of stack files or of a catalog entry, for editors",
    "completion": "print the completion script of a shell",
}


def _module(name: str) -> Any:
    return importlib.import_module(f"ops.{name}.command")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its number is the exit code. What stops one is printed here, and nowhere else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and arguments[:1] == ["plan"]:
        # Before anything imports an SDK, and only in a process of its own.
        from ops import fast_imports  # noqa: PLC0415

        fast_imports.install()
    try:
        return _exit_code(arguments)
    except BrokenPipeError:
        return 0
    finally:
        _let_go()


def _let_go() -> None:
    """A reader may have seen enough, as that of `ops plan | head` has: what is left for it is dropped, not told."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed before the start, as by `>&-`
            continue
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except OSError:
            continue  # a full disk: Python tells it as it ends, with an exit code of its own


def _exit_code(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except OpsError as error:
        return _told(error)
    except SyntaxError as error:
        # Of a source that the operator edits: the catalog is one.
        if not error.filename:
            raise
        place = f"+{error.lineno or 1} {shlex.quote(error.filename)}"
        return _told(OpsError(f"{error.filename}:{error.lineno}: {error.msg}", f"${{EDITOR:-vi}} {place}"))
    except OSError as error:
        # A file that a command was told to read or write, or a tool that it needs: the machine's state, not a bug.
        if error.filename is None:
            raise
        place = str(error.filename)
        return _told(OpsError(f"{place}: {error.strerror}", f"ls -ld {shlex.quote(place)}   # is it there, and yours?"))
    except KeyboardInterrupt:
        return 130


class _Version(argparse.Action):
    """Asks the installed package, and only when asked: a plan starts faster without."""

    def __call__(self, *_: object, **__: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        sys.stdout.write(f"ops {version('ai-platform')}\n")
        sys.exit(0)


def parser(whole: Collection[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The command line, with the arguments of those commands that are wanted whole."""
    made = argparse.ArgumentParser(prog="ops", description="Operate the ai-platform.")
    made.add_argument("--version", nargs=0, action=_Version, help="print the version of this project")
    subparsers = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary)
        if name in whole:
            _module(name).add_arguments(sub)
    return made


def _run(arguments: list[str]) -> int:
    args = parser(arguments[:1]).parse_args(arguments)
    if "project_dir" in args:
        args.project_dir = nearest_project(args.project_dir)
    return int(_module(args.command).run(args))


def _told(error: OpsError) -> int:
    text = f"{error.verdict}: {error}"
    if sys.stderr.isatty():
        from ops.wrapping import folded, width  # noqa: PLC0415  only where somebody reads it

        # A remedy stays whole, to be copied.
        lines = text.split("\n")
        text = "\n".join(line if line.startswith("  remedy: ") else folded(line, width()) for line in lines)
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
