"""A comparison of two plans for people: as text, as a comment on a pull request, and as data for programs."""

from __future__ import annotations

import difflib
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, cast

from ops.engine import UNKNOWN_TEXT
from ops.plan.diff import Change, Difference, Operation, PlanData, PlanDiff
from stacks.costs import CENTS, HOURLY_DIGITS
from stacks.problems import Problem

COMMENT_LIMIT = 60_000  # characters; GitHub takes 65,536 in a comment
_VALUE_LIMIT = 160
_COSTS = {
    "usdPerHourNow": ("an hour, with what is up", HOURLY_DIGITS),
    "idleUsdPerMonth": ("a month, idle", CENTS),
    "worstCaseUsdPerMonth": ("a month, everything up", CENTS),
}
_FACTS: Mapping[str, tuple[str, str]] = {  # of a model: label and unit
    "state": ("state", ""),
    "replicas": ("replicas", ""),
    "modelId": ("model", ""),
    "revision": ("revision", ""),
    "context": ("context", " tokens"),
    "claimGib": ("claim", " GiB"),
    "memoryGib": ("host memory", " GiB"),
    "coldStartSeconds": ("cold start", " s"),
    "fits": ("fits its GPU", ""),
    "kvCacheTokens": ("KV cache", " tokens"),
    "maxModelLen": ("longest context that fits", " tokens"),
}
_UNSEEN = "Another value of a secret does not show: a plan cannot decrypt."

Row = tuple[str, str, str, str]


# --- text ----------------------------------------------------------------------------------------------------


def as_text(diff: PlanDiff | None, label: str, note: str | None, new: PlanData) -> str:
    """For a terminal. `diff` is None where the old side cannot be compared with; `note` says why."""
    lines = [f"{new['stack']} against {label}: {_headline(diff, new)}"]
    lines += [note] if note else []
    if diff is not None:
        lines += _text_of(diff)
    return "\n".join(lines) + "\n"


def _text_of(diff: PlanDiff) -> Iterator[str]:
    if diff.at_risk:
        yield "\ndata:"
        for found in diff.at_risk:
            yield f"! {found.shown} {found.fate}"
    if rows := [*_cost_rows(diff), *_machine_rows(diff), *_model_rows(diff)]:
        yield ""
        for what, before, after, change in rows:
            yield f"{what}: {before} -> {after}{f'  ({change})' if change else ''}"
    for operation in Operation:
        members = [d for d in diff.differences if d.operation is operation]
        if not members:
            continue
        yield f"\n{operation}:"
        if operation is Operation.CREATED:
            yield from (f"  {line}" for line in _by_kind(members))
            continue
        for found in members:
            yield f"  {found.shown}"
            for change in found.changes:
                yield from (f"    {line}" for line in property_lines(change))


# --- markdown ------------------------------------------------------------------------------------------------


def as_markdown(diff: PlanDiff | None, label: str, note: str | None, new: PlanData) -> str:
    """For a comment on a pull request: what matters in sight, the properties folded away, no longer than allowed."""
    parts = [f"### {_code(new['stack'])}: {_headline(diff, new)}"]
    if note:
        parts.append(f"> [!NOTE]\n> {_line(note)}")
    if diff is not None:
        if diff.problems:
            parts.append(_problems(diff.problems))
        if diff.at_risk:
            told = [f"> - **{d.operation}** {d.kind} {_code(d.where)} {d.fate}" for d in diff.at_risk]
            parts.append("\n".join(["> [!CAUTION]", "> **Data is concerned:**", *told]))
        parts += _table(("cost", "before", "after", "change"), _cost_rows(diff))
        parts += _table(("model or machine", "before", "after", ""), [*_machine_rows(diff), *_model_rows(diff)])
    end = f"<sub>Against {html.escape(label)}. {_UNSEEN}</sub>"
    room = COMMENT_LIMIT - sum(len(part) + 2 for part in (*parts, end))
    parts += _details(diff, room) if diff is not None else []
    return "\n\n".join([*parts, end]) + "\n"


def refused_markdown(stack: str, problems: Sequence[Problem]) -> str:
    """A comment on a config that nothing can be deployed with."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"### {_code(stack)}: refused, {count}\n\n{_problems(problems)}\n"


def _problems(problems: Sequence[Problem]) -> str:
    told = [f"> - {_line(p.message)}<br>{_code(p.remedy)}" for p in problems]
    return "\n".join(["> [!CAUTION]", "> **Refused:**", *told])


def _table(head: Row, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    cells = [" | ".join(_line(cell) for cell in row) for row in rows]
    return ["\n".join([f"| {' | '.join(head)} |", "| --- | --- | --- | --- |", *(f"| {row} |" for row in cells)])]


def _details(diff: PlanDiff, room: int) -> list[str]:
    """A folded section an operation, cut where there is no more room."""
    sections: list[str] = []
    for operation in Operation:
        members = [d for d in diff.differences if d.operation is operation]
        if not members:
            continue
        blocks = _by_kind(members) if operation is Operation.CREATED else [_block(found) for found in members]
        kept: list[str] = []
        for block in blocks:
            room -= len(block) + 1
            kept += [block] if room > 0 else []
        if left := len(blocks) - len(kept):
            kept.append(f"... and {left} more than a comment has room for: ops plan --against shows them")
        body = "\n".join(kept)
        # Longer than any fence inside, or the text of a change could end it.
        fence = "`" * (max((len(run) for run in re.findall(r"`+", body)), default=0) + 3)
        sections.append(
            f"<details><summary>{len(members)} {operation}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>"
        )
    return sections


def _block(found: Difference) -> str:
    return "\n".join([f"@@ {found.shown} @@", *(line for change in found.changes for line in property_lines(change))])


def _line(text: str) -> str:
    """Text of a table cell or a list item: one line, and no HTML of anybody's."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


# --- both ----------------------------------------------------------------------------------------------------


def _headline(diff: PlanDiff | None, new: PlanData) -> str:
    if diff is None:
        return f"not compared; the plan itself stands, with {len(new['resources'])} registrations"
    counted = [f"{n} {operation}" for operation in Operation if (n := diff.count(operation))]
    refused = ["refused"] if diff.problems else []
    cost = next(row[3] for row in [*_cost_rows(diff, "usdPerHourNow"), ("", "", "", "")])
    return ", ".join([*refused, *counted, *([f"{cost}/h"] if cost else [])]) or "no change"


def _cost_rows(diff: PlanDiff, *keys: str) -> list[Row]:
    """Totals that are known on a side, whether or not they differ."""
    rows: list[Row] = []
    for key in keys or _COSTS:
        (label, digits), (old, new) = _COSTS[key], diff.costs[key]
        if old is None and new is None:
            continue
        delta = round(new - old, digits) if old is not None and new is not None else 0
        sign = "+" if delta > 0 else "-"
        rows.append((label, _usd(old, digits), _usd(new, digits), f"{sign}${abs(delta):,.{digits}f}" if delta else ""))
    return rows


def _usd(value: float | None, digits: int) -> str:
    return "-" if value is None else f"${value:,.{digits}f}"


def _machine_rows(diff: PlanDiff) -> list[Row]:
    return [(f"{pool} pool", before, after, "") for pool, (before, after) in diff.machines.items()]


def _model_rows(diff: PlanDiff) -> list[Row]:
    rows: list[Row] = []
    for model in diff.models:
        for key, (old, new) in model.facts.items():
            label, unit = _FACTS[key]
            rows.append((f"{model.alias}: {label}", _fact(old, unit), _fact(new, unit), _growth(old, new)))
    return rows


def _fact(value: Any, unit: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}{unit}" if isinstance(value, int | float) else f"{value}{unit}"


def _growth(old: Any, new: Any) -> str:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (old, new)):
        return ""
    return f"{new - old:+,.1f}" if isinstance(new - old, float) else f"{new - old:+,}"


def _by_kind(members: Sequence[Difference]) -> list[str]:
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
    return _short(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= _VALUE_LIMIT else f"{text[: _VALUE_LIMIT - 3]}..."


# --- data ----------------------------------------------------------------------------------------------------


def as_data(diff: PlanDiff | None, label: str, note: str | None, new: PlanData) -> dict[str, Any]:
    """For programs: what the other forms are made from."""
    found = {"stack": new["stack"], "against": label, "note": note, "compared": diff is not None}
    return found if diff is None else found | _data_of(diff)


def _data_of(diff: PlanDiff) -> dict[str, Any]:
    def sides(old: Any, new: Any) -> dict[str, Any]:
        return {"old": old, "new": new}

    return {
        "resources": [
            {
                "operation": d.operation.value,
                "urn": d.urn,
                "kind": d.kind,
                "where": d.where,
                "fate": d.fate,
                "changes": [asdict(change) for change in d.changes],
            }
            for d in diff.differences
        ],
        "costs": {key: sides(*both) for key, both in diff.costs.items()},
        "machines": {key: sides(*both) for key, both in diff.machines.items()},
        "models": [
            {"alias": m.alias, "facts": {key: sides(*both) for key, both in m.facts.items()}} for m in diff.models
        ],
        "problems": [asdict(p) for p in diff.problems],
    }
