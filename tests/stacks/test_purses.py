"""Budgets that would surprise: what the plan says of them, and that its remedy silences it."""

from __future__ import annotations

from typing import Any

import pytest

from stacks.access import desired_access
from stacks.admission import admit
from stacks.rules.purses import held_usd
from stacks.settings import RawConfig
from tests.catalog import CATALOG
from tests.stacks.remedies import alternatives, follow
from tests.stacks.test_access import key, stack

Json = dict[str, Any]
CHAT = "coder-chat"
HELD = held_usd(CATALOG[CHAT])


def told(config: RawConfig) -> list[tuple[str, str]]:
    """What is said of budgets and rates: message and remedy."""
    admission = admit(config)
    assert not admission.problems, [str(problem) for problem in admission.problems]
    words = ("holds $", "lets it have")
    return [(n.message, n.remedy or "") for n in admission.notices if any(word in n.message for word in words)]


def pairs(own: Json, teams: Json) -> RawConfig:
    return stack({"a": key(CHAT, team="t", **own)}, {"t": key(CHAT, **teams)})


ABOVE: dict[str, tuple[RawConfig, str]] = {
    "a budget": (pairs({"maxBudgetUsd": 20}, {"maxBudgetUsd": 15}), "keys.a.maxBudgetUsd is 20, and the budget"),
    "a budget of another period": (
        pairs({"maxBudgetUsd": 100, "budgetPeriod": "30d"}, {"maxBudgetUsd": 2, "budgetPeriod": "1d"}),
        "lets it have 60 at most",
    ),
    "a shorter period": (
        pairs({"maxBudgetUsd": 20, "budgetPeriod": "12h"}, {"maxBudgetUsd": 15, "budgetPeriod": "30d"}),
        "lets it have 15 at most",
    ),
    "tokens": (pairs({"tokensPerMinute": 500}, {"tokensPerMinute": 400}), "keys.a.tokensPerMinute is 500"),
    "requests": (pairs({"requestsPerMinute": 50}, {"requestsPerMinute": 40}), "keys.a.requestsPerMinute is 50"),
    "a key near one call": (stack({"a": key(CHAT, maxBudgetUsd=0.02)}), "one such call leaves nothing"),
    "a key of a few calls": (stack({"a": key(CHAT, maxBudgetUsd=HELD * 9.9)}), "10 such calls at once leave"),
    "a team near one call": (
        stack({"a": {"models": [CHAT], "team": "t"}}, {"t": key(CHAT, maxBudgetUsd=0.05)}),
        "ai-platform:teams.t.maxBudgetUsd is 0.05",
    ),
}


@pytest.mark.parametrize(("config", "said"), ABOVE.values(), ids=ABOVE)
def test_a_surprise_is_told_with_the_command_that_ends_it(config: RawConfig, said: str) -> None:
    ((message, remedy),) = told(config)
    assert said in message
    assert told(follow(config, alternatives(remedy)[0])) == []


UNSURPRISING: dict[str, RawConfig] = {
    "as much as the team": pairs({"maxBudgetUsd": 15}, {"maxBudgetUsd": 15}),
    "a day's budget of ten in a month's": pairs(
        {"maxBudgetUsd": 60, "budgetPeriod": "30d"}, {"maxBudgetUsd": 2, "budgetPeriod": "1d"}
    ),
    "no budget of its own": stack({"a": {"models": [CHAT], "team": "t"}}, {"t": key(CHAT)}),
    "ten calls": stack({"a": key(CHAT, maxBudgetUsd=HELD * 10 + 1e-9)}),
    "nothing is generated": stack({"a": key("embeddings", maxBudgetUsd=0.01)}),
}


@pytest.mark.parametrize("config", UNSURPRISING.values(), ids=UNSURPRISING)
def test_what_surprises_nobody_is_not_told(config: RawConfig) -> None:
    assert told(config) == []


def test_the_gateway_is_asked_for_no_more_than_the_team_has() -> None:
    """Else it refuses to move the key into the team."""
    keys = {"a": key("coding-assistant", team="t", tokensPerMinute=500, requestsPerMinute=5), "b": key(CHAT)}
    told = desired_access(admit(stack(keys, {"t": key(CHAT, "embeddings", tokensPerMinute=400)})).plan)["keys"]
    assert [(entry["models"], entry["tpm_limit"], entry["rpm_limit"]) for entry in told] == [
        ([CHAT], 400, 5),
        ([CHAT], None, None),
    ]
