"""What lies between two plans: money, access, models, outages, data, and the resources below it all. Pure.

Works on what `ops plan --format json` prints, so that a plan of another revision, made by that revision's own code,
compares with one of this. What a side does not tell is claimed of neither. Secrets are masked in both: a changed value
does not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ops.plan.diff.access import AccessDifference, access
from ops.plan.diff.models import ModelDifference, models
from ops.plan.diff.money import MoneyDifference, money
from ops.plan.diff.outages import Outage, outages
from ops.plan.diff.resources import (
    Difference,
    Operation,
    PlanData,
    Unguarded,
    differences,
    resources,
    unguarded,
)
from ops.plan.diff.steps import held_slots, moved_data, moves, other_classes, shrinks
from stacks.problems import Notice, Problem


@dataclass(frozen=True, kw_only=True)
class PlanDiff:
    """Two plans of one stack, compared."""

    money: MoneyDifference
    access: tuple[AccessDifference, ...] | None  # None: a side does not tell
    models: tuple[ModelDifference, ...]
    outages: tuple[Outage, ...]
    unguarded: tuple[Unguarded, ...]
    notices: tuple[Notice, ...]  # of the new side that the old side did not have; all, where it does not tell
    standing: tuple[Notice, ...]  # of both
    differences: tuple[Difference, ...]  # the gravest first
    problems: tuple[Problem, ...]  # of the step between the two; each plan alone may be fine

    @property
    def at_risk(self) -> tuple[Difference, ...]:
        """Those whose data is concerned."""
        return tuple(d for d in self.differences if d.fate)

    def count(self, operation: Operation) -> int:
        """Resources that this happens to."""
        return sum(d.operation is operation for d in self.differences)


def compare(old: PlanData, new: PlanData) -> PlanDiff:
    """What goes from one plan to another does. Both are of one project and stack."""
    olds, news = resources(old), resources(new)
    found = differences(olds, news)
    order = list(Operation)
    known = {notice.message for notice in notices(old)}
    aliases = [model["alias"] for model in new["models"]]
    return PlanDiff(
        money=money(old, new),
        access=access(old, new),
        models=tuple(models(old, new)),
        outages=outages(found, olds, news, new),
        unguarded=tuple(unguarded(olds, news)),
        notices=tuple(n for n in notices(new) if n.message not in known),
        standing=tuple(n for n in notices(new) if n.message in known),
        differences=tuple(sorted(found, key=lambda d: (not d.fate, order.index(d.operation), d.kind, d.where, d.urn))),
        problems=(
            *_data_problems(old, new, [*shrinks(olds, news, aliases)]),
            *other_classes(olds, news),
            *held_slots(old, new),
            *moves(old, new),
        ),
    )


def _data_problems(old: PlanData, new: PlanData, shrinking: list[Problem]) -> list[Problem]:
    """A database that shrinks is both a smaller disk and a loss: it is told once."""
    told = {problem.remedy for problem in shrinking}
    return [*shrinking, *(problem for problem in moved_data(old, new) if problem.remedy not in told)]


def notices(plan: PlanData) -> list[Notice]:
    """What a plan says is worth knowing."""
    told = cast("list[Mapping[str, Any]]", plan.get("notices", []))
    return [Notice(str(n["message"]), n.get("remedy")) for n in told]


def nothing(stack: str) -> PlanData:
    """The plan of a revision that has no program: all that comes is new."""
    empty: dict[str, Any] = {"teams": {}, "keys": {}}
    return {"project": "", "stack": stack, "resources": [], "models": [], "access": empty, "notices": []}
