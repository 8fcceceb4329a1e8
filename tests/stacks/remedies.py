"""Judges a config, and follows a remedy as its reader would: types the command it prints.

The commands of `pulumi config` are done here as the CLI does them, failures included;
`test_remedies.py` holds that to the real CLI where there is one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from stacks.admission import Admission, admit
from stacks.secrets import SECRETS
from stacks.settings import RawConfig

GROUPS = {"baseline": True, "coding-assistant": True, "retrieval": True}
BASE = {"gcp:project": "my-project", "gcp:zone": "us-central1-a", "ai-platform:groups": json.dumps(GROUPS)}


def raw() -> RawConfig:
    """A config that is admitted, ready for `pulumi up`."""
    secrets = {f"ai-platform:{key}": secret.placeholder for key, secret in SECRETS.items()}
    return RawConfig("ai-platform", "test", BASE, secrets)


def with_values(values: Mapping[str, str]) -> RawConfig:
    """That config with values on top."""
    base = raw()
    return replace(base, values={**base.values, **values})


def judge(values: Mapping[str, str]) -> Admission:
    """The verdict on that config with values on top."""
    return admit(with_values(values))


# What an operator fills in, by the key that it is for.
_BLANKS = {
    "gcp:project": "a-real-project",
    "gcp:zone": "us-central1-a",
    "prices.": "1",
    "tokensPerSecond": "100000",
    "ai-platform:keys.<": "a",
    "Usd": "100000",
}
_BLANK = r"<[a-zA-Z][^<>|&;]*>"


def alternatives(remedy: str) -> list[str]:
    """The ways out that a remedy offers, each a shell line: `to keep a: ...; to keep b: ...`, `...   # or: ...`."""
    found: list[str] = []
    for part in remedy.split("; to keep "):
        line = re.sub(r"^(?:to keep )?[a-z0-9-]+: ", "", part)
        first, *comments = line.split("   # ")
        found.append(first.strip())
        found += [c.partition(": ")[2].strip() for c in comments if re.match(r"or(?:,.*)?: ", c)]
    return found


def filled(line: str) -> str:
    """The line with its blanks filled in."""
    if not re.search(_BLANK, line):
        return line
    value = next(value for key, value in _BLANKS.items() if key in line)
    return re.sub(_BLANK, value, line)


class FailedError(Exception):
    """The CLI would refuse a command."""


@dataclass(frozen=True)
class Command:
    """One `pulumi config` command."""

    action: str  # "set" or "rm"
    key: str
    value: str | None  # None: by standard input
    path: bool
    secret: bool
    piped: str  # what is piped in


def commands(line: str) -> Iterator[Command]:
    """The commands of a shell line. Raises FailedError for what is no such line, or no such command."""
    for whole in _split(filled(line), "&&"):
        *before, words = _split_words(whole, "|")
        if words[:2] != ["pulumi", "config"] or words[2:3] not in (["set"], ["rm"]):
            raise FailedError(f"not a command of pulumi config: {line}")
        action, rest = words[2], [word for word in words[3:] if word != "--"]
        flags = {word for word in rest if word.startswith("-")}
        given = [word for word in rest if not word.startswith("-")]
        secret = "--secret" in flags
        if not flags <= {"--path", "--secret"} or (secret and action == "rm"):
            raise FailedError(f"unknown flags {flags}: {line}")
        if len(given) != (2 if action == "set" and not secret else 1):
            raise FailedError(f"{len(given)} arguments: {line}")
        yield Command(action, given[0], given[1] if len(given) == 2 else None, "--path" in flags, secret, repr(before))


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)


def _split(line: str, operator: str) -> list[list[str]]:
    return _split_words(_words(line), operator)


def _split_words(words: list[str], operator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == operator:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def follow(config: RawConfig, line: str) -> RawConfig:
    """The config after a shell line of `pulumi config` commands. Raises FailedError where the CLI would fail."""
    if renamed := re.fullmatch(
        rf"pulumi stack rename ([\w.-]+)|mv Pulumi\.{config.stack}\.yaml Pulumi\.(.+)\.yaml", line
    ):
        return replace(config, stack=renamed[1] or renamed[2])
    for command in commands(line):
        config = _apply(config, command)
    return config


def _apply(config: RawConfig, command: Command) -> RawConfig:
    full_key = command.key if ":" in command.key else f"{config.project}:{command.key}"
    place: list[str | int] = _parts(full_key) if command.path else [full_key]
    top = str(place[0])
    if command.action == "rm":
        return replace(
            config,
            values=_removed(config.values, place),
            # Without an encrypted part, an object is no secret any more.
            secrets={k: v for k, v in _removed(cast("Any", config.secrets), place).items() if v != "{}"},
        )
    if command.secret:
        prefix = next(iter(re.findall(r"(sk-|hf_)", command.piped)), "hf_" if "huggingFace" in full_key else "")
        value = prefix + "0123456789abcdef" * 3
        if "config.json" in command.piped:  # of docker login
            value = '{"auths": {"registry.example.com": {"auth": "bWU6bWU="}}}'
        return replace(
            config, secrets=_set(cast("Any", config.secrets), place, value), values=_removed(config.values, [top])
        )
    assert command.value is not None
    # As the shell does.
    given = command.value.replace("$(cat ca.pem)", Path(__file__).with_name("ca.pem").read_text())
    return replace(
        config, values=_set(config.values, place, given), secrets=_removed(cast("Any", config.secrets), [top])
    )


def _parts(full_key: str) -> list[str | int]:
    namespace, _, path = full_key.partition(":")
    found = re.findall(r"""\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)""", path)
    first, *rest = [
        re.sub(r"\\(.)", r"\1", quoted) or (int(index) if index else plain) for quoted, index, plain in found
    ]
    return [f"{namespace}:{first}", *rest]


def _removed(values: Mapping[str, str], place: list[str | int]) -> dict[str, str]:
    """Without what is at a place; nothing there is no failure."""
    top, *rest = place
    changed = dict(values)
    if not rest:
        changed.pop(str(top), None)
        return changed
    if str(top) not in changed:
        return changed
    whole = _decoded(changed[str(top)])
    inner = whole
    for part in rest[:-1]:
        if not _holds(inner, part):
            return changed
        inner = inner[part]
    if _holds(inner, rest[-1]):
        del inner[rest[-1]]
        changed[str(top)] = json.dumps(whole)
    return changed


def _holds(inner: Any, part: str | int) -> bool:
    if isinstance(inner, list):
        return isinstance(part, int) and part < len(cast("list[Any]", inner))
    return isinstance(inner, dict) and part in inner


def _set(values: Mapping[str, str], place: list[str | int], value: str) -> dict[str, str]:
    """With a value at a place, along a path into JSON."""
    top, *rest = place
    if not rest:
        return {**values, str(top): value}
    whole = _decoded(values.get(str(top), "null"))
    whole = _put(whole, rest, _typed(value))
    return {**values, str(top): json.dumps(whole)}


def _put(inner: Any, rest: list[str | int], value: Any) -> Any:
    if not rest:
        return value
    part, *after = rest
    # Where nothing is yet, an index makes a list of it.
    inner = ([] if isinstance(part, int) else {}) if inner is None else inner
    if not isinstance(inner, list if isinstance(part, int) else dict):
        raise FailedError(f"expected {'an array' if isinstance(part, int) else 'a map'} for {part}: {inner!r}")
    if isinstance(part, int):
        items = cast("list[Any]", inner)
        if part > len(items):
            raise FailedError(f"array index {part} out of range")
        return [*items[:part], _put(items[part] if part < len(items) else None, after, value), *items[part + 1 :]]
    names = cast("dict[str, Any]", inner)
    return {**names, part: _put(names.get(part), after, value)}


def _decoded(text: str) -> Any:
    """A top-level value as the stack file has it: an object, or text."""
    if text == "null" or text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _typed(text: str) -> Any:
    """How the CLI reads a value at a path."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"0|-?[1-9]\d*", text) else text
