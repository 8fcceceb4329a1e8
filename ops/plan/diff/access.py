"""Who may use what, for how much, before and after. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.plan.diff.lines import LOUD_FACTOR, Line, dollars, grouped, listed, times
from ops.plan.diff.resources import PlanData, mapping

_HOLDERS = {"team": "teams", "key": "keys"}
_RATES = {"tokensPerMinute": "tokens a minute", "requestsPerMinute": "requests a minute"}
_DAYS = {"h": 1 / 24, "d": 1, "mo": 30}


@dataclass(frozen=True, kw_only=True)
class AccessDifference:
    """A team or a key by what the plan tells of it. None on a side that has no such one."""

    who: str  # "key editor"
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    teams: tuple[Mapping[str, Any], Mapping[str, Any]]  # of a key, on each side; empty where it has none


def access(old: PlanData, new: PlanData) -> tuple[AccessDifference, ...] | None:
    """Teams and keys that differ; None where a side does not tell."""
    before, after = _told(old), _told(new)
    return None if before is None or after is None else tuple(_differences(before, after))


def _told(plan: PlanData) -> Mapping[str, Any] | None:
    """What a plan says of access. One of an older version says it only by what it hands the gateway."""
    if "access" in plan:
        return mapping(plan, "access")
    files = (mapping(r["inputs"], "data") for r in plan["resources"] if r["urn"].endswith("::litellm-keys"))
    text = next((file["keys.json"] for file in files if "keys.json" in file), None)
    try:
        return None if text is None else _handed(json.loads(text))
    except (ValueError, TypeError, KeyError):
        return None  # of a version that hands it over in another form


def _handed(desired: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """In the words of today's plan: a key reaches what it lists and its team does as well."""
    listed = {team["alias"]: team["models"] for team in desired["teams"]}
    found: dict[str, dict[str, Any]] = {"teams": {}, "keys": {}}
    for section, entries in found.items():
        for entry in desired[section]:
            allowed = listed.get(entry.get("team"), entry["models"])
            entries[entry["alias"]] = {
                "models": [alias for alias in entry["models"] if alias in allowed],
                "maxBudgetUsd": entry["max_budget"],
                "budgetPeriod": entry["budget_duration"],
                "tokensPerMinute": entry["tpm_limit"],
                "requestsPerMinute": entry["rpm_limit"],
                **({"team": entry["team"]} if "team" in entry else {}),
            }
    return found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[AccessDifference]:
    for kind, section in _HOLDERS.items():
        before, after = mapping(old, section), mapping(new, section)
        for alias in dict.fromkeys([*after, *before]):
            one, other = before.get(alias), after.get(alias)
            if one != other:
                teams = _team(one, old), _team(other, new)
                yield AccessDifference(who=f"{kind} {alias}", old=one, new=other, teams=teams)


def _team(holder: Mapping[str, Any] | None, told: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(told, "teams"), (holder or {}).get("team") or "")


# --- lines ---------------------------------------------------------------------------------------------------


def access_lines(found: tuple[AccessDifference, ...]) -> list[Line]:
    """A line for each thing that changes, not for each that it changes for."""
    return grouped(line for difference in found for line in _lines(difference))


def _lines(found: AccessDifference) -> Iterator[Line]:
    old, new = found.old, found.new
    if new is None:
        yield Line(subject=found.who, text="is gone: calls with it are refused")
        return
    if old is None:
        yield Line(subject=found.who, text=f"new: {_all_of(new)}")
        return
    yield from _budget(found.who, old, new)
    for key, unit in _RATES.items():
        yield from _rate(found.who, unit, old.get(key), new.get(key))
    if old.get("team") != new.get("team"):
        yield Line(subject=found.who, text=_moved(found, old, new), loud=_binds_less(found, new))
    before, after = dict.fromkeys(old["models"]), dict.fromkeys(new["models"])
    gained = [alias for alias in after if alias not in before]
    lost = [alias for alias in before if alias not in after]
    if gained:
        yield Line(subject=found.who, text=f"may now use {listed(gained)}")
    if lost:
        yield Line(subject=found.who, text=f"may no longer use {listed(lost)}")


def _moved(found: AccessDifference, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`team platform ($50 a 30d) -> rich ($100,000 a 30d)`, with what each lets its keys use together."""
    rates = [key for key in _RATES if len({team.get(key) for team in found.teams}) > 1]
    sides: list[str] = []
    for holder, team in zip((old, new), found.teams, strict=True):
        told = ", ".join([_sum(team), *(_rate_of(team.get(key), _RATES[key]) for key in rates)])
        sides.append(f"{holder.get('team') or 'none'}{f' ({told})' if team else ''}")
    return f"team {' -> '.join(sides)}"


def _binds_less(found: AccessDifference, new: Mapping[str, Any]) -> bool:
    """Whether the new team bounds less than the old one did, by budget or by rate; no team bounds nothing."""
    one, other = found.teams
    if new.get("team") is None:
        return True
    if not one or not other:
        return False  # none before, so no bound goes; or a plan does not tell of it
    bounds = [(one.get(key), other.get(key)) for key in _RATES]
    bounds.append(
        (one.get("maxBudgetUsd"), None) if other.get("maxBudgetUsd") is None else (_a_day(one), _a_day(other))
    )
    return any(old is not None and (new_one is None or new_one > old) for old, new_one in bounds)


def _all_of(entry: Mapping[str, Any]) -> str:
    team = f"in team {entry['team']}, " if entry.get("team") else ""
    parts = [f"{team}may use {listed(entry['models']) or 'nothing'}", _sum(entry)]
    parts += [f"{entry[key]:,} {unit}" for key, unit in _RATES.items() if entry.get(key)]
    return "; ".join(parts)


def _sum(entry: Mapping[str, Any]) -> str:
    if entry.get("maxBudgetUsd") is None:
        return "no budget of its own"
    return f"{dollars(entry['maxBudgetUsd'])} a {entry['budgetPeriod']}"


def _budget(who: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Line]:
    before, after = _sum(old), _sum(new)
    if before == after:
        return
    if new.get("maxBudgetUsd") is None:
        yield Line(subject=who, text=f"budget {before} -> {after}", loud=True)
        return
    if old.get("budgetPeriod") == new["budgetPeriod"]:
        before = dollars(old["maxBudgetUsd"])  # the period is told once
    one, other = _a_day(old), _a_day(new)
    grows = one is not None and other is not None and other > one
    factor = times(one, other) if grows and one is not None and other is not None else ""
    loud = one is not None and other is not None and other >= one * LOUD_FACTOR
    yield Line(subject=who, text=f"budget {before} -> {after}{factor}", loud=loud)


def _a_day(entry: Mapping[str, Any]) -> float | None:
    """US dollars a day, so that budgets of two periods compare."""
    match = re.fullmatch(r"(\d+)(h|d|mo)", str(entry.get("budgetPeriod")))
    if match is None or entry.get("maxBudgetUsd") is None:
        return None
    return float(entry["maxBudgetUsd"]) / (int(match[1]) * _DAYS[match[2]])


def _rate(who: str, unit: str, old: int | None, new: int | None) -> Iterator[Line]:
    if old == new:
        return
    sides = [_rate_of(side) for side in (old, new)]
    factor = times(old, new) if old and new and new > old else ""
    loud = old is not None and (new is None or new >= old * LOUD_FACTOR)
    yield Line(subject=who, text=f"{sides[0]} -> {sides[1]} {unit}{factor}", loud=loud)


def _rate_of(rate: int | None, unit: str = "") -> str:
    return f"{'no limit' if rate is None else f'{rate:,}'} {unit}".rstrip()
