"""What the pages show: a catalog, and a stack of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from models.catalog import Group
from models.engines import ENGINES
from models.spec import ModelSpec
from models.tasks import TASKS
from stacks.admission import admit
from stacks.plan import Plan
from stacks.settings import RawConfig


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A catalog, and the config of a stack with every model at zero or not: pages show it at zero."""

    catalog: Mapping[str, ModelSpec]
    groups: Mapping[str, Group]
    raw: RawConfig

    def plan(self, replicas: Mapping[str, int], *, spot: bool | None = None) -> Plan:
        """The stack with these models up and all others at zero; its nodes on spot or not where that is said.

        Without its own budgets, which would refuse some of what is shown.
        """
        budgets = {f"{self.raw.project}:{key}" for key in ("maxHourlyUsd", "maxMonthlyUsd")}
        values = {k: v for k, v in self.raw.values.items() if not k.endswith(":replicas") and k not in budgets}
        values |= {f"{alias}:replicas": str(count) for alias, count in replicas.items()}
        if spot is not None:
            values[f"{self.raw.project}:spot"] = str(spot).lower()
        return admit(replace(self.raw, values=values), self.catalog, self.groups, rehearsal=True).plan

    @property
    def mark(self) -> str:
        """Other pages are no mistake where somebody has other models, another stack or another engine."""
        whole = {
            "catalog": {alias: spec.model_dump(mode="json") for alias, spec in self.catalog.items()},
            "groups": {name: group.model_dump(mode="json") for name, group in self.groups.items()},
            "stack": dict(sorted(self.raw.values.items())),
            "engines": [engine.name() for engine in ENGINES],
            "tasks": list(TASKS),
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]
