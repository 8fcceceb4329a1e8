from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from models.prices import PriceTable, list_prices
from stacks.admission import Admission, admit
from stacks.costs import costs
from stacks.problems import Problem
from stacks.settings import RawConfig

GROUPS = json.dumps({"baseline": True, "coding-assistant": True, "retrieval": True})
BASE = {"gcp:project": "my-project", "gcp:zone": "us-central1-a", "ai-platform:groups": GROUPS}
UP = {"coder-chat:replicas": "1"}
NOW, IDLE, WORST = 1.0263, 0.1575, 749.18  # $/h with coder-chat up, $/h idle, $/month at worst: test_costs.py


def judge(settings: Mapping[str, str]) -> Admission:
    return admit(RawConfig(project="ai-platform", stack="ai-dev", values={**BASE, **settings}), rehearsal=True)


def alternatives(problem: Problem) -> list[str]:
    return [part.strip() for part in problem.remedy.split("# or:")]


def follow(settings: Mapping[str, str], command: str) -> dict[str, str]:
    """The settings after commands as an operator types them."""
    changed = dict(settings)
    for one in command.split("&&"):
        words = shlex.split(one)
        assert words[:3] == ["pulumi", "config", "set"], one
        key, value = words[-2:]
        full = key if ":" in key else f"ai-platform:{key}"
        if "--path" not in words:
            changed[full] = value
            continue
        head, *path = full.split(".")
        tree: dict[str, Any] = json.loads(changed.get(head, "{}"))
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
        changed[head] = json.dumps(tree)
    return changed


def only_problem(settings: Mapping[str, str]) -> Problem:
    (problem,) = judge(settings).problems
    return problem


@pytest.mark.parametrize(
    ("settings", "admitted"),
    [
        ({**UP, "ai-platform:maxHourlyUsd": f"{NOW:.4f}"}, True),
        ({**UP, "ai-platform:maxHourlyUsd": f"{NOW - 0.0001:.4f}"}, False),
        ({"ai-platform:maxHourlyUsd": f"{IDLE:.4f}"}, True),
        ({"ai-platform:maxHourlyUsd": f"{IDLE - 0.0001:.4f}"}, False),
        ({"ai-platform:maxMonthlyUsd": f"{WORST:.2f}"}, True),
        ({"ai-platform:maxMonthlyUsd": f"{WORST - 0.01:.2f}"}, False),
        # What runs now is not what the monthly budget asks about, and the other way round.
        ({**UP, "ai-platform:maxMonthlyUsd": f"{WORST:.2f}"}, True),
        ({"ai-platform:gpuQuota": "2", "ai-platform:maxHourlyUsd": f"{IDLE:.4f}"}, True),
        ({"ai-platform:gpuQuota": "2", "ai-platform:maxMonthlyUsd": f"{WORST:.2f}"}, False),
    ],
)
def test_a_budget_holds_up_to_its_last_cent(settings: dict[str, str], admitted: bool):
    assert (not judge(settings).problems) is admitted


def test_both_budgets_are_reported_at_once():
    problems = judge({**UP, "ai-platform:maxHourlyUsd": "0.5", "ai-platform:maxMonthlyUsd": "500"}).problems
    assert ["maxHourlyUsd" in p.message or "maxMonthlyUsd" in p.message for p in problems] == [True, True]


def test_a_refusal_gives_the_value_the_consequence_and_the_date_of_the_prices():
    hourly = only_problem({**UP, "ai-platform:maxHourlyUsd": "0.9"})
    assert "maxHourlyUsd is 0.9" in hourly.message
    assert "with coder-chat up" in hourly.message
    assert "$1.0263 an hour (prices of 2026-08-20)" in hourly.message
    monthly = only_problem({"ai-platform:maxMonthlyUsd": "700"})
    assert "$749.18 would be billed for a month of 1 GPU node" in monthly.message
    assert "(prices of 2026-08-20)" in monthly.message


BIG = {"ai-platform:machineType": "g2-standard-16"}  # where g2-standard-8 would do
TWO = {"ai-platform:gpuQuota": "2"}
OVER = {
    "one model up": ({**UP, "ai-platform:maxHourlyUsd": "0.9"}, ["replicas", "spot", "machineType", "maxHourlyUsd"]),
    "a dime over": (
        {**UP, **BIG, "ai-platform:maxHourlyUsd": "1.2"},
        ["replicas", "spot", "machineType", "maxHourlyUsd"],
    ),
    "two up": (
        {**UP, **TWO, "coder-fim:replicas": "1", "ai-platform:maxHourlyUsd": "1.1"},
        ["replicas", "maxHourlyUsd"],
    ),
    "two up, far over": (
        {**UP, **TWO, "coder-fim:replicas": "1", "ai-platform:maxHourlyUsd": "0.2"},
        ["replicas", "maxHourlyUsd"],
    ),
    "idle": ({"ai-platform:maxHourlyUsd": "0.1"}, ["maxHourlyUsd"]),
    "idle, no GPU": ({"ai-platform:gpuQuota": "0", "ai-platform:maxHourlyUsd": "0.1"}, ["maxHourlyUsd"]),
    "spot helps": ({"ai-platform:maxMonthlyUsd": "700"}, ["spot", "maxMonthlyUsd"]),
    "spot is on": ({"ai-platform:spot": "true", "ai-platform:maxMonthlyUsd": "300"}, ["maxMonthlyUsd"]),
    "a smaller machine helps": (
        {**BIG, "ai-platform:maxMonthlyUsd": "800"},
        ["spot", "machineType", "maxMonthlyUsd"],
    ),
    "a smaller quota helps": ({**TWO, "ai-platform:maxMonthlyUsd": "800"}, ["gpuQuota", "maxMonthlyUsd"]),
    "several GPUs a machine": (
        {"ai-platform:machineType": "g2-standard-24", "ai-platform:gpuQuota": "4", "ai-platform:maxMonthlyUsd": "2000"},
        ["spot", "gpuQuota", "maxMonthlyUsd"],
    ),
    "nothing helps": ({"ai-platform:maxMonthlyUsd": "50"}, ["maxMonthlyUsd"]),
    "a stack of thousands": (
        {"ai-platform:gpuQuota": "40", "ai-platform:machineType": "g2-standard-96", "ai-platform:maxMonthlyUsd": "900"},
        ["maxMonthlyUsd"],
    ),
    "a decimal budget": ({"ai-platform:maxMonthlyUsd": "115.009"}, ["maxMonthlyUsd"]),
}


@pytest.mark.parametrize(("settings", "keys"), OVER.values(), ids=OVER)
def test_every_remedy_of_a_budget_alone_leads_to_a_plan_that_is_admitted(settings: dict[str, str], keys: list[str]):
    commands = alternatives(only_problem(settings))
    assert [re.search(r"set (?:\S*:)?(\w+)", command).group(1) for command in commands] == keys  # pyright: ignore[reportOptionalMemberAccess]
    for command in commands:
        assert not judge(follow(settings, command)).problems, command


def test_a_smaller_machine_must_hold_what_the_budget_is_about():
    # coder-agent needs g2-standard-8: by the hour only coder-chat counts, by the month all that is enabled.
    assert "machineType g2-standard-4" in only_problem({**UP, "ai-platform:maxHourlyUsd": "0.9"}).remedy
    assert "machineType" not in only_problem({"ai-platform:maxMonthlyUsd": "700"}).remedy


def test_a_smaller_machine_has_as_many_gpus():
    # g2-standard-24 would be the next smaller one, has two L4s, and would halve the number of nodes.
    settings = {**TWO, "ai-platform:machineType": "g2-standard-32", "ai-platform:maxMonthlyUsd": "2000"}
    assert "machineType g2-standard-16" in only_problem(settings).remedy


def test_a_remedy_that_meets_the_budget_to_the_cent_is_offered():
    exact = 115.01 + 730 * 0.512012 + 10 + 730 * 0.0014
    assert "spot true" in only_problem({"ai-platform:maxMonthlyUsd": f"{exact:.2f}"}).remedy


def test_a_remedy_is_not_offered_if_it_breaks_something_else():
    # With time-sharing two small models share the GPU; with a quota of 1 and no sharing a second one is refused.
    settings = {**UP, **TWO, "coder-fim:replicas": "1", "ai-platform:maxMonthlyUsd": "800"}
    assert "gpuQuota" not in only_problem(settings).remedy


def test_a_budget_that_cannot_be_judged_is_a_problem_until_the_price_is_given():
    settings = {
        "gcp:zone": "europe-west4-a",
        "ai-platform:gateway": json.dumps({"database": "cloud-sql"}),
        "ai-platform:maxMonthlyUsd": "2000",
    }
    problems = judge(settings).problems
    assert [p.message.split(", so")[0] for p in problems] == [
        "no price is known for cloud-sql-db-g1-small in europe-west4",
        "no price is known for cloud-sql-ssd in europe-west4",
    ]
    mended = settings
    for problem in problems:
        mended = follow(mended, problem.remedy.replace("<US dollars>", "0.05"))
    assert not judge(mended).problems


def test_an_unknown_machine_price_is_mended_by_the_command_that_is_shown(monkeypatch: pytest.MonkeyPatch):
    full = list_prices()
    gap = PriceTable(
        full.as_of, {key: price for key, price in full.prices.items() if key[0] != "g2-standard-8"}, full.units
    )
    monkeypatch.setattr("stacks.costs.list_prices", lambda: gap)
    settings = {**UP, "ai-platform:maxHourlyUsd": "2"}
    problem = only_problem(settings)
    assert "g2-standard-8 in us-central1" in problem.message
    bill = costs(judge(follow(settings, problem.remedy.replace("<US dollars>", "1"))).plan)
    assert bill is not None
    assert bill.usd_per_hour_now == round(IDLE + 1 + 10 / 730 + 0.0014, 4)
