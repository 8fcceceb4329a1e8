"""One changed property of a resource, as the lines of a diff."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

from ops.engine import UNKNOWN_TEXT
from ops.plan.diff.resources import Change, Difference

_VALUE_LIMIT = 160


def by_kind(members: Sequence[Difference]) -> list[str]:
    """`Service  serving/coder-chat, serving/coder-fim`."""
    kinds = Counter(d.kind for d in members)
    return [f"+ {kind}  {', '.join(d.where for d in members if d.kind == kind)}" for kind in sorted(kinds)]


def property_lines(change: Change) -> list[str]:
    """One property as the lines of a diff."""
    because = "   (this replaces it)" if change.replaces else ""
    if change.old == change.new == UNKNOWN_TEXT:
        return [f"! {change.path}: comes from something that is replaced{because}"]
    shown = _lines_between(change.old, change.new)
    if shown is not None:
        return [f"! {change.path}:{because}", *shown]
    sides = (("-", change.old, ""), ("+", change.new, because))
    return [f"{sign} {change.path}: {_value(value)}{end}" for sign, value, end in sides if value is not None] + (
        [f"! {change.path} is gone{because}"] if change.new is None and because else []
    )


def _lines_between(old: Any, new: Any) -> list[str] | None:
    """What differs inside a text of several lines or a list of plain values; None for anything else."""
    if isinstance(old, str) and isinstance(new, str) and ("\n" in old or "\n" in new):
        before, after = old.splitlines(), new.splitlines()
    elif isinstance(old, list) and isinstance(new, list):
        sides = cast("tuple[list[Any], list[Any]]", (old, new))
        before, after = ([_value(item) for item in side] for side in sides)
    else:
        return None
    between = islice(difflib.unified_diff(before, after, lineterm="", n=0), 2, None)  # without the names of files
    return [f"{line[0]}   {_short(line[1:])}" for line in between if not line.startswith("@@")]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"  # 0.5 / 10 ** 6 has digits that nobody wrote
    return _short(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= _VALUE_LIMIT else f"{text[: _VALUE_LIMIT - 3]}..."
