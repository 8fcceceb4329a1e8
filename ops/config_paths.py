"""Paths into config, read and followed as `pulumi config set --path` does: `keys.ci.models[0]`, `keys["odd key"].team`.

After ParsePropertyPathStrict (sdk/go/common/resource/properties_path.go), Map.Set and object.Set
(sdk/go/common/resource/config) of pulumi 3.259. The tests compare with the real CLI where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from stacks.problems import written_path

# A list that is new is filled up with nulls. The CLI has no limit; a mistyped index shall not eat the memory.
_LONGEST_NEW_LIST = 1000


class PathError(ValueError):
    """A path that leads nowhere: why, and the path that was probably meant."""

    def __init__(self, reason: str, meant: str) -> None:
        super().__init__(reason)
        self.meant = meant


def split_assignment(text: str) -> tuple[str, str] | None:
    """Key and value at the first `=` outside of a quoted name; None without one."""
    found = re.match(r'(?:\["(?:\\"|[^"])*"\]|[^=])*?=', text, re.DOTALL)
    return (text[: found.end() - 1], text[found.end() :]) if found else None


def parse_path(text: str) -> list[str | int]:
    """The names and indices of a path."""
    if text.startswith("."):
        raise PathError("a path begins with a name", text.lstrip("."))
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        if text.startswith('["', at):
            name, at = _quoted(text, at)
            parts.append(name)
        elif text[at] == "[":
            part, at = _bracketed(text, at)
            parts.append(part)
        elif text[at] == ".":
            if at + 1 == len(text):
                raise PathError("a path ends with a name or an index", text.rstrip("."))
            if text[at + 1] == "[":
                raise PathError("a dot leads to a name, not to a bracket", text[:at] + text[at + 1 :])
            at += 1
        else:
            end = next((i for i in range(at, len(text)) if text[i] in ".["), len(text))
            parts.append(text[at:end])
            at = end
    return parts


def _quoted(text: str, at: int) -> tuple[str, int]:
    """A name in brackets and quotes, and where the path goes on."""
    end = at + 2
    while end < len(text) and text[end] != '"':
        end += 2 if text.startswith('\\"', end) else 1
    if text[end : end + 2] != '"]':
        lacks, closed = ("bracket", f"{text[: end + 1]}]{text[end + 1 :]}") if text[end:] else ("quote", f'{text}"]')
        raise PathError(f"the closing {lacks} is missing", closed)
    return text[at + 2 : end].replace('\\"', '"'), end + 2


def _bracketed(text: str, at: int) -> tuple[str | int, int]:
    """An index in brackets, or the CLI's `*`, and where the path goes on."""
    end = text.find("]", at)
    if end < 0:
        inner = re.split(r"[.\[]", text[at + 1 :], maxsplit=1)[0]
        rest = text[at + 1 + len(inner) :]
        raise PathError("the closing bracket is missing", f"{text[: at + 1]}{_index_or_name(inner)}]{rest}")
    inner = text[at + 1 : end]
    if inner == "*":
        return inner, end + 1
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", inner):
        reason = f"{inner!r} in brackets is neither an index nor a quoted name"
        raise PathError(reason, f"{text[: at + 1]}{_index_or_name(inner)}{text[end:]}")
    return int(inner), end + 1


def _index_or_name(inner: str) -> str:
    """What was probably meant between brackets."""
    if not inner or re.fullmatch(r"[0-9]{1,18}", inner):
        return inner or "0"
    escaped = inner.replace('"', '\\"')
    return f'"{escaped}"'


def put(old: object, path: Sequence[str | int], value: object) -> object:
    """What is under the first part of a path, with a value set at the rest of it. `old` is left as it is."""
    return _put(old, path, 1, value)


def _put(old: object, path: Sequence[str | int], done: int, value: object) -> object:
    if done == len(path):
        return value
    part, here = path[done], written_path(path[:done])
    if not is_container(old):
        # At its first level the CLI overwrites what cannot be entered; further down that is an error.
        if old is not None and done > 1:
            raise PathError(f"{here} has a value, so nothing can be set inside it", here)
        old = _new_container(path, done)
    if isinstance(old, dict):
        mapping = cast("dict[str, object]", old)
        if isinstance(part, int):
            known = next(iter(mapping), str(part))
            raise PathError(f"{here} is a mapping, which has names and no index", _with(path, done, known))
        if part == "secure" and not mapping and done + 1 == len(path) and isinstance(value, str):
            raise PathError(f"{written_path(path)} alone would make {here} an encrypted value", here)
        return {**mapping, part: _put(mapping.get(part), path, done + 1, value)}
    items = cast("list[object]", old)
    if isinstance(part, str):
        raise PathError(f"{here} is a list, which has indices and no names", _with(path, done, len(items)))
    if not 0 <= part <= len(items):
        raise PathError(
            f"{here} has no place [{part}]; its next free one is [{len(items)}]", _with(path, done, len(items))
        )
    grown = [*items, None] if part == len(items) else list(items)
    grown[part] = _put(grown[part], path, done + 1, value)
    return grown


def is_container(value: object) -> bool:
    """Whether a value has parts; an encrypted one is written as a mapping and has none."""
    return isinstance(value, list) or (isinstance(value, dict) and not is_encrypted(cast("object", value)))


def is_encrypted(value: object) -> bool:
    """Whether a value is `{secure: ciphertext}`."""
    return isinstance(value, dict) and set(cast("dict[str, object]", value)) == {"secure"}


def _new_container(path: Sequence[str | int], done: int) -> object:
    part = path[done]
    if isinstance(part, str):
        return {}
    if part >= _LONGEST_NEW_LIST:
        raise PathError(
            f"{written_path(path[:done])} is a new list, and [{part}] would be far out", _with(path, done, 0)
        )
    return [None] * (part + 1)


def _with(path: Sequence[str | int], at: int, part: str | int) -> str:
    return written_path([*path[:at], part, *path[at + 1 :]])
