"""A comparison of two plans for programs: what the other forms are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ops.plan.diff.compare import PlanDiff, notices
from ops.plan.diff.resources import PlanData


def as_data(diff: PlanDiff | None, label: str, note: str | None, new: PlanData) -> dict[str, Any]:
    """`access` is null where a side does not tell it."""
    found = {"stack": new["stack"], "against": label, "note": note, "compared": diff is not None}
    return found | (_data_of(diff) if diff else {"notices": [asdict(n) for n in notices(new)]})


def _data_of(diff: PlanDiff) -> dict[str, Any]:
    money = diff.money
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
        "costs": _sides(money.costs),
        "limits": _sides(money.limits),
        "prices": [asdict(price) for price in money.prices],
        "machines": _sides(money.machines),
        "access": None if diff.access is None else [asdict(a) for a in diff.access],
        "models": [{"alias": m.alias, "facts": _sides(m.facts)} for m in diff.models],
        "outages": [asdict(o) for o in diff.outages],
        "unguarded": [asdict(u) for u in diff.unguarded],
        "notices": [asdict(n) for n in diff.notices],
        "standingNotices": [asdict(n) for n in diff.standing],
        "problems": [asdict(p) for p in diff.problems],
    }


def _sides(facts: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {key: {"old": old, "new": new} for key, (old, new) in facts.items()}
