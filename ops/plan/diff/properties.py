"""One changed property of a resource, as the lines of a diff."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

from ops.engine import UNKNOWN_TEXT
from ops.plan.diff.resources import Change, Difference, Operation

_VALUE_LIMIT = 160


def by_kind(members: Sequence[Difference]) -> list[str]:
    """`Service  serving/coder-chat, serving/coder-fim`."""
    kinds = Counter(d.kind for d in members)
    return [f"+ {kind}  {', '.join(d.where for d in members if d.kind == kind)}" for kind in sorted(kinds)]


def property_lines(found: Difference) -> list[str]:
    """What changes of a resource, as the lines of a diff."""
    # That a Job is another Job is said by what happens to it.
    told = found.operation is not Operation.RUN_AGAIN
    return [line for change in found.changes for line in _lines(change, because=told and change.replaces)]


def _lines(change: Change, *, because: bool) -> list[str]:
    because_of_it = "   (this replaces it)" if because else ""
    if change.old == change.new == UNKNOWN_TEXT:
        return [f"! {change.path}: comes from something that is replaced{because_of_it}"]
    shown = _lines_between(change.old, change.new)
    if shown is not None:
        return [f"! {change.path}:{because_of_it}", *shown]
    sides = (("-", change.old, ""), ("+", change.new, because_of_it))
    return [f"{sign} {change.path}: {_value(value)}{end}" for sign, value, end in sides if value is not None] + (
        [f"! {change.path} is gone{because_of_it}"] if change.new is None and because else []
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
