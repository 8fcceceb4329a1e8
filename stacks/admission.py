"""Admission: from config and catalog to a plan, and everything that stands against it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.catalog import CATALOG, FLAWS, GROUPS, OVERLAID, Group
from models.spec import ModelSpec
from stacks.access import access_problems
from stacks.plan import Plan, make_plan
from stacks.problems import Notice, Problem
from stacks.rules import notices, problems
from stacks.rules.prepared import unprepared
from stacks.settings import RawConfig, parse

if TYPE_CHECKING:
    from models.catalog.overlay import Overlaid


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The verdict. Nothing is deployed while there is a problem."""

    plan: Plan
    problems: tuple[Problem, ...]
    unprepared: tuple[Problem, ...] = ()  # of a rehearsal: what has to be done before the first `pulumi up`
    remarks: tuple[Notice, ...] = ()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Everything to know and to do, what is not prepared first."""
        todo = (Notice(f"before `pulumi up`: {p.message}", p.remedy) for p in self.unprepared)
        return (*todo, *self.remarks)


def admit(
    raw: RawConfig,
    catalog: Mapping[str, ModelSpec] = CATALOG,
    groups: Mapping[str, Group] = GROUPS,
    *,
    overlaid: Mapping[str, Overlaid] | None = None,
    rehearsal: bool = False,
) -> Admission:
    """Judge a stack's config. `overlaid` is what of the catalog is this checkout's own.

    `rehearsal` is for `ops plan`, which cannot decrypt and deploys nothing: a missing secret is then something to do
    before `pulumi up`, not a reason to show nothing.
    """
    settings, found = parse(raw, catalog, groups)
    plan = make_plan(settings, catalog, OVERLAID if catalog is CATALOG else overlaid)
    if FLAWS and catalog is CATALOG:
        # Alone: beside a catalog that lacks entries, half of what config says would look wrong.
        flaws = tuple(Problem(flaw.message, flaw.remedy) for flaw in FLAWS)
        return Admission(plan=plan, problems=flaws, unprepared=(), remarks=())
    found += problems(plan)
    found += access_problems(plan)
    missing = tuple(unprepared(plan))
    return Admission(
        plan=plan,
        problems=tuple(found) if rehearsal else (*found, *missing),
        unprepared=missing if rehearsal else (),
        remarks=tuple(notices(plan)),
    )
