"""What a remedy says, tried as far as it can be without a cloud: by a shell's eyes, and by the parser of `ops`."""

from __future__ import annotations

import re
import shlex
from unittest.mock import patch

from ops import cli
from tests.stacks.remedies import alternatives, commands

_URL = "http://127.0.0.1:9"
# What a remedy may call that is not tried here.
_OTHERS = {"kind", "kill", "gcloud", "curl", "read", "export", "rm", "make", "cd", "${EDITOR:-vi}"}


def remedies(text: str) -> list[str]:
    """The remedies in what a command printed."""
    return re.findall(r"remedy: (.*)", text)


def filled(line: str) -> str:
    """The line with its blanks filled in: an address, a number of entries, or a name."""
    return re.sub(r"<how many[^<>]*>", "0", re.sub(r"<[a-z][^<>]*>", "x", line.replace("<URL>", _URL)))


def why_not_typable(remedy: str) -> str | None:
    """What a shell, or the program that it calls, would make of a remedy's commands but do; None if it does all."""
    for line in alternatives(remedy):
        for command in filled(line).split(" && "):
            if reason := _why_not(command.strip()):
                return f"{reason}: {command}"
    return None


def _why_not(command: str) -> str | None:
    try:
        words = shlex.split(command, comments=True)
    except ValueError as error:
        return str(error)
    program = words[0] if words else ""
    if program == "ops":
        return None if parses_as_ops(command) else "`ops` does not take it"
    if program.rpartition("/")[2] == "kubectl":
        named = any(re.match("--context", word) for word in words) or words[-2:] == ["config", "get-contexts"]
        return None if named or "get-contexts" in words else "it would go to whatever context is current"
    if program == "pulumi":
        return _why_not_pulumi(command, words)
    return None if program in _OTHERS else "no command"


def _why_not_pulumi(command: str, words: list[str]) -> str | None:
    if words[1:2] == ["up"]:
        return (
            None if words[2:] == [] or (len(words) == 4 and words[2] == "--stack") else "`pulumi up` does not take it"
        )
    return None if len(list(commands(command))) == 1 else "`pulumi config` does not take it"


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
