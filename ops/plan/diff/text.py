"""A comparison of two plans for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ops.plan.diff.compare import PlanDiff, notices
from ops.plan.diff.lines import Line, Section
from ops.plan.diff.properties import by_kind, property_lines
from ops.plan.diff.resources import Operation, PlanData
from ops.plan.diff.screen import SCREEN_LINES, headline, notice_lines, sections
from ops.wrapping import wrapped


def as_text(diff: PlanDiff | None, label: str, note: str | None, new: PlanData, *, width: int | None = None) -> str:
    """Lines of at most `width`, but for commands, which are copied whole; None breaks none.

    `diff` is None where the old side cannot be compared with; `note` says why.
    """
    lines = _wrapped(f"{new['stack']} against {label}: {headline(diff, new)}", width)
    lines += _wrapped(note, width) if note else []
    if diff is None:
        lines += ["", *_notices("notices", notice_lines(notices(new)), width)]
        return "\n".join(lines).rstrip() + "\n"
    first = sections(diff)
    lines += ["", *_screen(first, width)]
    lines += _notices("new notices", notice_lines(diff.notices), width)
    lines += _rest(first, width)
    lines += _objects(diff, width)
    if diff.standing:
        lines += ["", *_notices("notices as before", notice_lines(diff.standing), width)]
    return "\n".join(lines) + "\n"


def _screen(found: Sequence[Section], width: int | None) -> Iterator[str]:
    for section in found:
        if not section.lines:
            yield f"{section.title}: {section.quiet}"
            continue
        yield section.title
        yield from _told(section.lines[:SCREEN_LINES], width)
        if left := len(section.lines[SCREEN_LINES:]):
            yield f"  ... and {left} more, below"


def _rest(found: Sequence[Section], width: int | None) -> Iterator[str]:
    for section in found:
        if more := section.lines[SCREEN_LINES:]:
            yield f"\n{section.title}, the rest"
            yield from _told(more, width)


def _notices(title: str, lines: Sequence[Line], width: int | None) -> Iterator[str]:
    if lines:
        yield title
        yield from _told(lines, width)


def _told(lines: Iterable[Line], width: int | None) -> Iterator[str]:
    for line in lines:
        mark = "! " if line.loud else "  "
        yield from _wrapped(f"{mark}{line}", width)
        if line.remedy:
            yield f"      {line.remedy}"


def _wrapped(text: str, width: int | None) -> list[str]:
    return [text] if width is None else wrapped(text, width, rest="    ").splitlines()


def _objects(diff: PlanDiff, width: int | None) -> Iterator[str]:
    for operation in Operation:
        members = [d for d in diff.differences if d.operation is operation]
        if not members:
            continue
        yield f"\n{operation}:"
        if operation is Operation.CREATED:
            for line in by_kind(members):
                yield from _wrapped(f"  {line}", width)
            continue
        for found in members:
            yield f"  {found.shown}"
            yield from (f"    {line}" for line in property_lines(found))
