"""YAML as go-yaml v3 decodes it for the Pulumi CLI, within bounds. Nothing of the text is in a message.

Duplicate keys are refused, `<<` merges, `010` is eight, `yes` is text and a bare date is a time; the tests compare with
the real CLI where there is one. Aliases are counted as what they stand for, and depth is bounded, so that no small file
costs minutes or the memory.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, cast

import yaml

DEEPEST = 100  # collections in each other; go-yaml itself ends at 10,000, and a stack file needs six
MOST_VALUES = 100_000  # with aliases as what they stand for
_CORE = "tag:yaml.org,2002:"
Lines = dict[int, dict[str | int, int]]  # of each collection, by its id: the line that each of its parts begins in
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of the C library, where PyYAML was built with it


class YamlError(ValueError):
    """What is wrong, and where; without any of the text, which may be a secret."""


@dataclass
class _Open:
    """A collection that is not closed yet."""

    mapping: bool
    anchor: str | None
    line: int
    values: list[Any] = field(default_factory=list[Any])
    keys: list[str] = field(default_factory=list[str])
    lines: list[int] = field(default_factory=list[int])  # of the parts
    written: set[str] = field(default_factory=set[str])  # keys as they stand there
    merges: list[Any] = field(default_factory=list[Any])
    merging: bool = False  # the next value is that of `<<`
    size: int = 1


@dataclass(frozen=True)
class _Anchored:
    value: Any
    size: int


def decode(text: str) -> Any:
    """The first document: dicts with text as keys, lists, text, whole and other numbers, bools, None.

    Raises YamlError.
    """
    return decode_with_lines(text)[0]


def decode_with_lines(text: str) -> tuple[Any, Lines]:
    """The same, and where it stands. The lines hold while the document does. Raises YamlError."""
    builder = _Builder()
    try:
        return builder.build(cast("Iterator[Any]", yaml.parse(text, Loader=_Loader))), builder.lines
    except yaml.MarkedYAMLError as error:
        problem = re.sub(r"(['\"]).{4,}\1", "...", str(error.problem))
        raise YamlError(f"{problem}{_place(error.problem_mark)}") from error
    except yaml.YAMLError as error:
        reason, at = getattr(error, "reason", "unreadable"), getattr(error, "position", 0)
        raise YamlError(f"{reason}, character {at + 1:,}") from error


class _Builder:
    """Makes values of events, without recursion."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}  # None: not closed yet
        self.lines: Lines = {}

    def build(self, events: Iterator[Any]) -> Any:
        for event in events:
            if isinstance(event, yaml.AliasEvent):
                done = self._alias(event)
            elif isinstance(event, yaml.ScalarEvent):
                done = self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._begin(event)
                continue
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = self._end(event)
            else:
                continue  # of streams and documents
            if not self._open:
                return done.value
        return None

    def _alias(self, event: Any) -> _Anchored:
        if event.anchor not in self._anchors:
            raise YamlError(f"an alias of nothing{_place(event.start_mark)}")
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise YamlError(f"an anchor that contains itself{_place(event.start_mark)}")
        return self._put(anchored, event)

    def _scalar(self, event: Any) -> _Anchored:
        top = self._open[-1] if self._open else None
        if top and top.mapping and not top.merging and len(top.keys) == len(top.values):
            return self._key(top, event)
        done = _Anchored(_resolved(event), 1)
        if event.anchor:
            self._anchors[event.anchor] = done
        return self._put(done, event)

    def _key(self, top: _Open, event: Any) -> _Anchored:
        if event.value in top.written:
            raise YamlError(f"a key that is there already{_place(event.start_mark)}")
        top.written.add(event.value)
        if event.value == "<<" and event.tag in (None, "!", f"{_CORE}merge"):
            top.merging = True
            return _Anchored(None, 1)
        value = _resolved(event)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(value, 1)
        top.keys.append(key_text(value))
        top.lines.append(_line(event))
        return _Anchored(value, 1)

    def _begin(self, event: Any) -> None:
        top = self._open[-1] if self._open else None
        if top and top.mapping and not top.merging and len(top.keys) == len(top.values):
            raise YamlError(f"a key that is no text{_place(event.start_mark)}")
        if len(self._open) == DEEPEST:
            raise YamlError(f"more than {DEEPEST} lists and mappings in each other{_place(event.start_mark)}")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor, _line(event)))

    def _end(self, event: Any) -> _Anchored:
        ended = self._open.pop()
        value: Any = _merged(ended) if ended.mapping else ended.values
        done = _Anchored(value, ended.size)
        parts: list[str] | range = ended.keys if ended.mapping else range(len(ended.values))
        self.lines[id(value)] = dict.fromkeys(value if ended.mapping else (), ended.line)  # of what is merged
        self.lines[id(value)] |= dict(zip(parts, ended.lines, strict=True))
        if ended.anchor:
            self._anchors[ended.anchor] = done
        return self._put(done, event, ended.line)

    def _put(self, done: _Anchored, event: Any, line: int | None = None) -> _Anchored:
        """Into what is open; `line` is where it begins, if that is not where the event is."""
        if not self._open:
            return done
        top = self._open[-1]
        top.size += done.size
        if top.size > MOST_VALUES:
            raise YamlError(f"more than {MOST_VALUES:,} values, aliases counted{_place(event.start_mark)}")
        if top.merging:
            given = cast("list[Any]", done.value) if isinstance(done.value, list) else [done.value]
            if not all(isinstance(one, dict) for one in given):
                raise YamlError(f"what is merged is no mapping{_place(event.start_mark)}")
            top.merges += given
            top.merging = False
        elif top.mapping and len(top.keys) == len(top.values):
            # An alias as a key.
            if isinstance(done.value, dict | list) or key_text(done.value) in top.written:
                raise YamlError(f"a key that is no text, or there already{_place(event.start_mark)}")
            top.written.add(key_text(done.value))
            top.keys.append(key_text(done.value))
            top.lines.append(_line(event))
        else:
            if not top.mapping:
                top.lines.append(line or _line(event))
            top.values.append(done.value)
        return done


def _merged(ended: _Open) -> dict[str, Any]:
    """Own keys win, then what was merged first."""
    made: dict[str, Any] = {}
    for one in reversed(ended.merges):
        made.update(one)
    return {**made, **dict(zip(ended.keys, ended.values, strict=True))}


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _place(mark: Any) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


# --- scalars ---------------------------------------------------------------------------------------------------------


def key_text(value: object) -> str:
    """A key as JSON has it."""
    return "<nil>" if value is None else scalar_text(value)


def scalar_text(value: object) -> str:
    """A scalar as the CLI hands it over."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _float_text(value)
    return "" if value is None else str(value)


def _float_text(value: float) -> str:
    """As Go's encoding/json writes it."""
    if not value:
        return "0"
    if not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e-0(\d)$", r"e-\1", repr(value).replace(".0e", "e"))
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


def _resolved(event: Any) -> Any:
    """The value of a scalar by its tag, or by how it is written."""
    text, tag = str(event.value), event.tag
    if re.search("[\ud800-\udfff]", text):
        raise YamlError(f"half a character{_place(event.start_mark)}")
    if tag is None or tag == "!":
        return _plain(text) if tag is None and event.implicit[0] else text
    kind = tag.removeprefix(_CORE)
    if kind in (tag, "str"):
        return text
    if kind == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
        except ValueError:
            raise YamlError(f"what is tagged as binary is no base64{_place(event.start_mark)}") from None
    value = _plain(text)
    found = {bool: "bool", int: "int", float: "float", type(None): "null", str: "str"}[type(value)]
    if kind == "float" and found == "int":
        return float(value)
    if kind == "timestamp" and _time(text):
        return value
    if kind != found:
        raise YamlError(f"a value is tagged as !!{kind} and is none{_place(event.start_mark)}")
    return value


_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{f"{sign}{word}": math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **{f"-{word}": -math.inf for word in (".inf", ".Inf", ".INF")},
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def _plain(text: str) -> Any:
    """What stands there without quotes and tag, after resolve.go of go-yaml v3."""
    if text in _CONSTANTS:
        value = _CONSTANTS[text]
        if isinstance(value, float):
            raise YamlError("a number is infinite or none, which no setting takes")
        return value
    if text[0] not in "+-.0123456789":
        return text
    if found := _time(text):
        return found
    bare = text.replace("_", "")
    if len(bare) <= _LONGEST_NUMBER and (match := _INTEGER.fullmatch(bare)):
        sign, *digits = match.groups()
        value = next(int(d, base) for d, base in zip(digits, (16, 2, 8, 10), strict=True) if d is not None)
        value = -value if sign == "-" else value
        # ParseUint, which reads what is too large for ParseInt, takes no sign.
        if -(2**63) <= value < 2**63 or (not sign and value < 2**64):
            return value
    if _FLOAT.fullmatch(bare) and math.isfinite(number := float(bare)):
        return number
    return text


_LONGEST_NUMBER = 80  # digits of 64 bits in base two, and a prefix
_TIME = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt](\d\d?):(\d\d?):(\d\d?)(\.\d{1,9})?(Z|[-+]\d\d:\d\d))|"
    r"(?: (\d\d?):(\d\d?):(\d\d?)(\.\d{1,9})?))?"
)


def _time(text: str) -> str | None:
    """A time as Go prints it, since the CLI hands it over so; None for what is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    *day, h1, m1, s1, f1, zone, h2, m2, s2, f2 = match.groups()
    clock = [int(part or 0) for part in (h1 or h2, m1 or m2, s1 or s2)]
    offset = timedelta()
    if zone and zone != "Z":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:])) * (-1 if zone[0] == "-" else 1)
    try:
        time = datetime(*map(int, day), *clock, tzinfo=timezone(offset) if offset else UTC)
    except ValueError:
        return None
    fraction = (f1 or f2 or "").rstrip("0").rstrip(".")
    there = f"{zone[:3]}{zone[4:]}" if zone and offset else "+0000"
    return f"{time:%Y-%m-%d %H:%M:%S}{fraction} {there} {there if offset else 'UTC'}"
