"""Budgets of teams and keys that would surprise who holds the key: told, and not refused."""

from __future__ import annotations

import math
from collections.abc import Iterator

from models.facts import PerToken
from models.spec import ModelSpec
from models.tasks import TASKS
from stacks.access import effective, expand, registered
from stacks.commands import set_command
from stacks.plan import Plan
from stacks.problems import Notice, config_path
from stacks.sections import Access, Key

# What LiteLLM holds for the answer to a call that declares no max_tokens, or the model's context if that is less.
# Source: DEFAULT_MAX_OUTPUT_TOKENS_FALLBACK in proxy/spend_tracking/budget_reservation.py of 1.106.2.
HELD_TOKENS = 16_384
# Calls that a budget should hold at once: an editor and an agent send several, and each holds its part until it ends.
_AT_ONCE = 10
_DAYS = {"h": 1 / 24, "d": 1, "mo": 30}


def held_usd(spec: ModelSpec) -> float:
    """What a call without max_tokens holds of a budget until it ends, US dollars; its prompt comes on top."""
    if not isinstance(spec.price, PerToken) or spec.context is None or not TASKS[spec.task].generates:
        return 0.0
    return min(HELD_TOKENS, spec.context) * spec.price.output_usd_per_mtok / 1_000_000


def small_budgets(plan: Plan) -> Iterator[Notice]:
    """Budgets of which one call without max_tokens holds a good part."""
    platform, project = plan.settings.platform, plan.settings.project
    reached = {("teams", alias): expand(plan, team.models) for alias, team in platform.teams.items()}
    reached |= {("keys", alias): effective(plan, key.models, key.team) for alias, key in platform.keys.items()}
    specs = {model.spec.alias: model.spec for model in registered(plan)}
    for (section, alias), aliases in reached.items():
        entry: Access = (platform.teams if section == "teams" else platform.keys)[alias]
        dearest = max((specs[name] for name in aliases), key=held_usd, default=None)
        if entry.max_budget_usd is None or dearest is None or entry.max_budget_usd >= _AT_ONCE * held_usd(dearest):
            continue
        held = held_usd(dearest)
        place = (section, alias, "maxBudgetUsd")
        yield Notice(
            f"{config_path(project, *place)} is {entry.max_budget_usd:.10g}, and a call to {dearest.alias} that "
            f"declares no max_tokens holds ${held:.4f} of it until it ends: {_at_once(entry.max_budget_usd / held)} "
            "nothing for others meanwhile, which are refused with 422",
            f"{set_command(project, place, f'{math.ceil(_AT_ONCE * held * 100) / 100:.2f}')}"
            "   # or have clients send max_tokens",
        )


def _at_once(calls: float) -> str:
    return "one such call leaves" if calls <= 1 else f"{math.ceil(calls)} such calls at once leave"


def above_the_team(plan: Plan) -> Iterator[Notice]:
    """Limits of a key that its team's never let it reach."""
    platform, project = plan.settings.platform, plan.settings.project
    for alias, key in platform.keys.items():
        team = platform.teams.get(key.team or "")
        if team is None:
            continue
        for name, field, own, bound in _bounds(key, team):
            yield Notice(
                f"{config_path(project, 'keys', alias, field)} is {own:.10g}, and the {name} of its team {key.team} "
                f"lets it have {bound:.10g} at most: calls are refused before the key's own is used up",
                set_command(project, ("keys", alias, field), f"{bound:.10g}"),
            )


def _bounds(key: Key, team: Access) -> Iterator[tuple[str, str, float, float]]:
    """What of a key is above its team: its word, its setting, its value, and what the team allows."""
    if key.max_budget_usd is not None and team.max_budget_usd is not None:
        periods = max(1.0, _days(key.budget_period) / _days(team.budget_period))
        if key.max_budget_usd > (bound := team.max_budget_usd * periods) * (1 + 1e-9):
            yield "budget", "maxBudgetUsd", key.max_budget_usd, bound
    for name, field, own, bound in (
        ("rate", "tokensPerMinute", key.tokens_per_minute, team.tokens_per_minute),
        ("rate", "requestsPerMinute", key.requests_per_minute, team.requests_per_minute),
    ):
        if own is not None and bound is not None and own > bound:
            yield name, field, own, bound


def _days(period: str) -> float:
    unit = period.lstrip("0123456789")
    return int(period.removesuffix(unit)) * _DAYS[unit]
