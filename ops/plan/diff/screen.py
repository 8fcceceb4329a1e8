"""The reviewer's first screen: money, access, models, outages, data, then what the plan has to say."""

from __future__ import annotations

from collections.abc import Sequence

from ops.plan.diff.access import access_lines
from ops.plan.diff.compare import PlanDiff
from ops.plan.diff.lines import Line, Section, grouped
from ops.plan.diff.models import model_lines
from ops.plan.diff.money import hourly_difference, limit_lines, money_lines, standing_totals
from ops.plan.diff.outages import outage_lines
from ops.plan.diff.resources import Operation, PlanData
from stacks.problems import Notice

# Lines of a section that stand on the first screen: what moves much comes first, and the rest is told further down.
SCREEN_LINES = 7


def sections(diff: PlanDiff) -> list[Section]:
    """The questions in the order in which they are asked."""
    return [
        Section(title="money", lines=tuple(money_lines(diff.money)), quiet="nothing is billed on this target"),
        Section(
            title="access",
            lines=tuple(access_lines(diff.access or ())),
            quiet="no change" if diff.access is not None else "not compared, the other plan does not tell it",
        ),
        Section(title="models", lines=tuple(model_lines(diff.models)), quiet="no change"),
        Section(title="outages", lines=tuple(outage_lines(diff.outages)), quiet="none"),
        Section(title="data", lines=tuple(_data(diff)), quiet="nothing is replaced or deleted"),
    ]


def _data(diff: PlanDiff) -> list[Line]:
    """Where data goes, and what is less safe than before."""
    lines = [Line(subject=d.shown, text=d.fate or "", loud=True) for d in diff.at_risk]
    lines += [Line(subject=f"{u.kind} {u.where}", text=u.how, loud=True) for u in diff.unguarded]
    return grouped(lines)


def notice_lines(notices: Sequence[Notice]) -> list[Line]:
    """Each with its command."""
    return [Line(subject="", text=n.message, remedy=n.remedy) for n in notices]


def headline(diff: PlanDiff | None, new: PlanData) -> str:
    """In a line: what happens to how many, and what an hour costs more or less."""
    if diff is None:
        return f"not compared; the plan itself stands, with {len(new['resources'])} registrations"
    parts = ["refused"] if diff.problems else []
    parts += [f"{n} {operation}" for operation in Operation if (n := diff.count(operation))] or _beside_objects(diff)
    if cost := hourly_difference(diff.money):
        parts.append(cost)
    if diff.money.price_list and diff.money.price_list.by_config:
        parts.append("prices by config")
    raised = sum(line.loud for line in (*access_lines(diff.access or ()), *limit_lines(diff.money)))
    parts += [f"{raised} limit{'s' if raised > 1 else ''} raised or gone"] if raised else []
    return ", ".join(parts) or "no change"


def _beside_objects(diff: PlanDiff) -> list[str]:
    """`no object changes; 1 line of models, 2 of data at risk`: what changes though every object stays as it is."""
    told = {section.title: len(section.lines) for section in sections(diff)}
    told["money"] -= standing_totals(diff.money)
    names = {"data": "data at risk"}
    counts = [f"{n} line{'s' if n > 1 else ''} of {names.get(title, title)}" for title, n in told.items() if n]
    return [f"no object changes; {', '.join(counts)}"] if counts else []
