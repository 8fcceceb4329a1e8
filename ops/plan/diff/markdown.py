"""A comparison of two plans as a comment on a pull request: what matters in sight, the rest folded away."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ops.plan.diff.compare import PlanDiff, notices
from ops.plan.diff.lines import Line, Section
from ops.plan.diff.properties import by_kind, property_lines
from ops.plan.diff.resources import Difference, Operation, PlanData
from ops.plan.diff.screen import SCREEN_LINES, headline, notice_lines, sections
from stacks.problems import Problem

COMMENT_LIMIT = 60_000  # characters; GitHub takes 65,536 in a comment
_UNSEEN = "Another value of a secret does not show: a plan cannot decrypt."
_SEES_ALL = "more than a comment has room for: ops plan --against shows them"


def as_markdown(diff: PlanDiff | None, label: str, note: str | None, new: PlanData) -> str:
    """A comment no longer than GitHub takes. `diff` is None where the old side cannot be compared with."""
    parts = [f"### {_code(new['stack'])}: {_escaped(headline(diff, new))}"]
    if note:
        parts.append(f"> [!NOTE]\n> {_escaped(note)}")
    folded: list[tuple[str, Sequence[Line]]] = []
    if diff is None:
        parts += _list("notices", notice_lines(notices(new)))
    else:
        if diff.problems:
            parts.append(_problems(diff.problems))
        first = sections(diff)
        parts += [_section(section) for section in first]
        parts += _list("new notices", notice_lines(diff.notices))
        folded = [(f"{s.title}, the rest", s.lines[SCREEN_LINES:]) for s in first]
        folded.append(("notices as before", notice_lines(diff.standing)))
    end = f"<sub>Against {_escaped(label)}. {_UNSEEN}</sub>"
    room = COMMENT_LIMIT - len(end)
    kept: list[str] = []
    for part in parts:
        # In sight, cut only where a comment could not be posted at all.
        room -= len(part) + 2
        kept += [part] if room > 0 else []
    if len(kept) < len(parts):
        kept.append(f"... and {_SEES_ALL}")
    for title, lines in folded:
        body = "\n".join(_bullet(line) for line in lines)
        room -= len(body) + 100 if lines else 0
        if lines and room > 0:
            kept.append(f"<details><summary>{title}: {len(lines)}</summary>\n\n{body}\n\n</details>")
    kept += _objects(diff, room) if diff is not None else []
    return "\n\n".join([*kept, end]) + "\n"


def refused_markdown(stack: str, problems: Sequence[Problem]) -> str:
    """A comment on a config that nothing can be deployed with."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"### {_code(stack)}: refused, {count}\n\n{_problems(problems)}\n"


def _problems(problems: Sequence[Problem]) -> str:
    told = [f"> - {_escaped(p.message)}<br>{_code(p.remedy)}" for p in problems]
    return "\n".join(["> [!CAUTION]", "> **Refused:**", *told])


def _section(section: Section) -> str:
    if not section.lines:
        return f"**{section.title}**: {section.quiet}"
    shown = [_bullet(line) for line in section.lines[:SCREEN_LINES]]
    if left := len(section.lines[SCREEN_LINES:]):
        shown.append(f"- ... and {left} more, below")
    if section.title == "data":
        # Lost data is not got back, so nobody may overlook it.
        return "\n".join(["> [!CAUTION]", f"> **{section.title}**", ">", *(f"> {line}" for line in shown)])
    return "\n".join([f"**{section.title}**", "", *shown])


def _list(title: str, lines: Sequence[Line]) -> list[str]:
    return ["\n".join([f"**{title}**", "", *map(_bullet, lines)])] if lines else []


def _bullet(line: Line) -> str:
    text = _escaped(line.text)
    told = f"{_code(line.subject)}: {text}" if line.subject else text
    return f"- {f'**!** {told}' if line.loud else told}{f'<br>{_code(line.remedy)}' if line.remedy else ''}"


def _objects(diff: PlanDiff, room: int) -> list[str]:
    """A folded section an operation, cut where there is no more room."""
    found: list[str] = []
    for operation in Operation:
        members = [d for d in diff.differences if d.operation is operation]
        if not members:
            continue
        blocks = by_kind(members) if operation is Operation.CREATED else [_block(member) for member in members]
        kept: list[str] = []
        for block in blocks:
            room -= len(block) + 1
            kept += [block] if room > 0 else []
        if left := len(blocks) - len(kept):
            kept.append(f"... and {left} {_SEES_ALL}")
        body = "\n".join(kept)
        # Longer than any fence inside, or the text of a change could end it.
        fence = "`" * (max((len(run) for run in re.findall(r"`+", body)), default=0) + 3)
        found.append(
            f"<details><summary>{len(members)} {operation}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>"
        )
    return found


def _block(found: Difference) -> str:
    return "\n".join([f"@@ {found.shown} @@", *property_lines(found)])


def _escaped(text: str) -> str:
    """One line of text with no HTML of anybody's, and nothing that calls a person or a team by name."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("@", "@<!-- -->")


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"
