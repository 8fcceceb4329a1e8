"""The commands of remedies: `pulumi config`, as a shell takes it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from stacks.problems import config_path

Place = Sequence[str | int]  # a key of a namespace, and the way into its value
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_PLAIN = r"[\w-]+"  # a key that needs no quoting, and means the same with and without --path


def set_command(namespace: str, place: Place, value: object) -> str:
    """Sets one value; `<...>` is left for the reader to fill in."""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"pulumi config set {_key(namespace, place)} {shown if shown.startswith('<') else shlex.quote(shown)}"


def remove_command(namespace: str, place: Place) -> str:
    """Removes a value, and whatever is in it."""
    return f"pulumi config rm {_key(namespace, place)}"


def set_commands(namespace: str, place: Place, value: object) -> str | None:
    """Sets a value with all that is in it; None for what the CLI cannot set so, or nobody would type."""
    leaves = list(_leaves(place, value))
    typable = all(_arrives(leaf, within=len(path) > 1) for path, leaf in leaves)
    if not leaves or len(leaves) > _MANY or not typable:
        return None
    return " && ".join(set_command(namespace, path, leaf) for path, leaf in leaves)


_MANY = 12


def _leaves(place: Place, value: object) -> Iterator[tuple[Place, object]]:
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[str, object]", value).items():
            yield from _leaves((*place, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[object]", value)):
            yield from _leaves((*place, index), inner)
    else:
        yield place, value


def _arrives(value: object, *, within: bool) -> bool:
    """Whether the CLI takes it, and makes the same of it: within an object, what looks like a number becomes one."""
    text = str(value)
    if value is None or text.startswith(("-", "<")) or not text.isprintable():
        return False
    return not within or not isinstance(value, str) or typed(text) == text


def typed(text: str) -> bool | int | str:
    """The CLI's reading of a value at a path: true, false and whole numbers of 64 bits are typed, the rest is text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"0|[-+][0-9]{1,20}|[1-9][0-9]{0,19}", text):
        number = int(text)
        # ParseUint, which reads what is too large for ParseInt, takes no sign.
        if _INT64_MIN <= number < 2**63 or (number <= _UINT64_MAX and text[0].isdigit()):
            return number
    return text


def _key(namespace: str, place: Place) -> str:
    if len(place) == 1:
        # Never with --path: `gateway.replicas` would then be a place in `gateway`, and not the key that is there.
        return shlex.quote(config_path(namespace, place[0]))
    key = config_path(namespace, *place)
    return f"--path '{key}'" if "'" not in key else f"--path {shlex.quote(key)}"


def place_of(path: str) -> list[str | int]:
    """The other way round: what `keys.ci.models[0]` means at a path. Empty if it is no path."""
    if not re.fullmatch(rf"{_PLAIN}(?:\.{_PLAIN}|\[\d{{1,6}}\])*", path):
        return []
    return [int(index) if index else name for name, index in re.findall(r"([\w-]+)|\[(\d+)\]", path)]
