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
    "catalog": "list and filter what can be served, and say all that is known of one model",
    "add": "make an entry of a model of the hub, a config.json or a GGUF file, or change the model of an endpoint",
    "fit": "show whether a model fits a GPU, and where its memory goes",
    "stage": "fill a model's claim while no GPU is billed",
    "smoke": "ask models what they are for, directly and through the gateway, with a key",
    "bench": "measure how fast a model is under load, by a Job beside it",
    "eval": "have a model solve problems and run what it writes, by Jobs beside it",
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
    try:
        code = _exit_code(arguments, alone=argv is None)
    except BrokenPipeError:
        code = 0
    except SystemExit as error:  # of the parser: --help, or an argument that there is not
        if (unwritten := _let_go()) and not error.code:
            return unwritten
        raise
    except BaseException as error:
        if not _interrupted(error):
            raise
        code = _INTERRUPTED
    return max(code, _let_go())


_INTERRUPTED = 130


def _let_go() -> int:
    """Flush; 2 where that cannot be written.

    A reader may have seen enough, as that of `ops plan | head` has: what is left for it is dropped, not told.
    """
    code = 0
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed before the start, as by `>&-`
            continue
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError, ValueError):  # without a descriptor of its own there is nothing to tell
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError):
                code = _told(_unwritten(error)) if stream is sys.stdout else 2
    return code


def _unwritten(error: OSError) -> OpsError:
    """A full disk behind `>`, most likely: what was printed is not whole."""
    return OpsError(f"the output cannot be written: {error.strerror or error}", "df -h .   # is the disk full?")


def _exit_code(arguments: list[str], *, alone: bool) -> int:
    try:
        if alone and arguments[:1] == ["plan"]:
            # Before anything imports an SDK, and only in a process of its own.
            from ops import fast_imports  # noqa: PLC0415

            fast_imports.install()
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
        if isinstance(error, BrokenPipeError):
            raise
        if error.filename is None:
            return _told(_unwritten(error))
        place = str(error.filename)
        return _told(OpsError(f"{place}: {error.strerror}", f"ls -ld {shlex.quote(place)}   # is it there, and yours?"))


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: an import that it breaks off may end as an error of its own."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        if isinstance(inner, KeyboardInterrupt):
            return True
        seen.add(id(inner))
        inner = inner.__cause__ or inner.__context__
    return False


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
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
