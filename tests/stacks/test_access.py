"""Teams, keys and fallbacks: what is refused, what is warned of, what the gateway is told, and whatever is typed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest

from components.gateway import model_state as hook
from components.gateway import reconcile_keys as job
from components.gateway.admin_api import Actual
from models.engines.external import ExternalProvider
from models.tasks import Task
from ops.engine import run_main
from stacks.access import desired_access, model_state
from stacks.admission import Admission, admit
from stacks.settings import RawConfig
from tests.catalog import CATALOG
from tests.stacks.remedies import GROUPS, alternatives, follow, with_values
from tests.support import PROJECT_DIR

P = "ai-platform:"
Json = dict[str, Any]
BUDGET: Json = {"maxBudgetUsd": 10}
ALL = list(GROUPS)
VALUE = "sk-canary-of-a-key-0123456789"


def stack(keys: Json, teams: Json | None = None, /, **values: str) -> RawConfig:
    """A config with these keys, each of which has its value."""
    config = with_values({f"{P}teams": json.dumps(teams or {}), f"{P}keys": json.dumps(keys), **values})
    key_values = json.dumps({alias: f"{VALUE}-{number}" for number, alias in enumerate(keys)})
    return replace(config, secrets={**config.secrets, f"{P}keyValues": key_values})


def key(*models: str, **fields: Any) -> Json:
    return {"models": list(models), **BUDGET, **fields}


def fallback(alias: str, target: str) -> dict[str, str]:
    return {f"{alias}:fallback": target}


# Config that is refused, and what has to be said of it.
REFUSED: dict[str, tuple[RawConfig, str]] = {
    "a model that does not exist": (stack({"a": key("coder-chatt")}), "did you mean 'coder-chat'?"),
    "a group that does not exist": (stack({"a": key("retrievall")}), "did you mean 'retrieval'?"),
    "a team that does not exist": (stack({"a": key(*ALL, team="core")}, {"cores": key(*ALL)}), "no such team"),
    "a team where there are none": (stack({"a": key(*ALL, team="core")}), "there are no teams"),
    "no model at all": (stack({"a": {"models": [], **BUDGET}}), "is empty, so nothing may be used"),
    "one model and no list": (stack({"a": {"models": "coder-chat", **BUDGET}}), "must be a list"),
    "a key without a budget": (stack({"a": {"models": ALL}}), "spend without end"),
    "a key whose team has no budget either": (
        stack({"a": {"models": ALL, "team": "t"}}, {"t": {"models": ALL}}),
        "spend without end",
    ),
    "a budget of nothing": (stack({"a": key(*ALL, maxBudgetUsd=0)}), "greater than 0"),
    "a limit that the database cannot hold": (stack({"a": key(*ALL, tokensPerMinute=2**63)}), "less than or equal to"),
    "a period that is none": (stack({"a": key(*ALL, budgetPeriod="monthly")}), "must be a period such as"),
    "hours that are no day": (stack({"a": key(*ALL, budgetPeriod="48h")}), "did you mean '2d'?"),
    "hours that do not divide a day": (stack({"a": key(*ALL, budgetPeriod="5h")}), "did you mean '4h'?"),
    "minutes": (stack({"a": key(*ALL, budgetPeriod="90m")}), "did you mean '1h'?"),
    "two months": (stack({"a": key(*ALL)}, {"t": key(*ALL, budgetPeriod="2mo")}), "did you mean '60d'?"),
    "an alias that is no name": (stack({"No Name": key(*ALL)}), "must"),
    "an unknown field": (stack({"a": key(*ALL, maxBudget=3)}), "did you mean 'maxBudgetUsd'?"),
    "a fallback that does not exist": (stack({}, **fallback("coder-chat", "coder-mni")), "did you mean 'coder-mini'?"),
    "a fallback to itself": (stack({}, **fallback("coder-chat", "coder-chat")), "leads back"),
    "chat by embeddings": (stack({}, **fallback("coder-chat", "embeddings")), "cannot answer in place of"),
    "embeddings by chat": (stack({}, **fallback("embeddings", "coder-chat")), "cannot answer in place of"),
    "an agent by a model without tools": (stack({}, **fallback("coder-agent", "qwen-local")), "cannot answer in place"),
    "fill-in-the-middle by chat": (stack({}, **fallback("coder-fim", "coder-chat")), "cannot answer in place of"),
    "a fallback whose group is off": (
        stack({}, **fallback("coder-chat", "qwen-local"), **{f"{P}groups": '{"coding-assistant": true}'}),
        "is enabled, so it can serve nothing",
    ),
    "a loop of two": (
        stack({}, **fallback("coder-chat", "coder-mini"), **fallback("coder-mini", "coder-chat")),
        "leads back",
    ),
}


@pytest.mark.parametrize(("config", "said"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_refused_with_a_way_out_that_mends_it(config: RawConfig, said: str) -> None:
    found = admit(config).problems
    assert any(said in problem.message for problem in found), [str(problem) for problem in found]
    assert VALUE not in " ".join(map(str, found))
    mended, steps = config, 0
    while remaining := admit(mended).problems:
        mended, steps = follow(mended, alternatives(remaining[0].remedy)[0]), steps + 1
        assert steps < 6, [str(problem) for problem in remaining]


def test_a_value_for_a_key_that_is_gone_is_refused_and_never_shown() -> None:
    config = stack({"a": key(*ALL), "b": key(*ALL)})
    config = replace(config, values={**config.values, f"{P}keys": json.dumps({"a": key(*ALL)})})
    (problem,) = admit(config).problems
    assert "keyValues.b" in problem.message
    assert VALUE not in str(problem)


def test_a_key_without_its_value_stops_an_update_and_is_a_reminder_to_a_plan() -> None:
    config = stack({"a": key(*ALL)})
    config = replace(config, secrets={k: v for k, v in config.secrets.items() if k != f"{P}keyValues"})
    (problem,) = admit(config).problems
    assert "keyValues.a" in problem.message
    assert "pulumi config set --secret --path keyValues.a" in problem.remedy
    assert not admit(config, rehearsal=True).problems


CAN_REPLACE = {
    (Task.CHAT, Task.CHAT): True,
    (Task.CHAT, Task.AGENT): True,
    (Task.AGENT, Task.AGENT): True,
    (Task.AGENT, Task.CHAT): False,
    (Task.FIM, Task.FIM): True,
    (Task.EMBEDDING, Task.EMBEDDING): False,  # of another model; nothing could be compared
}


@pytest.mark.parametrize("alias", [a for a, spec in CATALOG.items() if not isinstance(spec.engine, ExternalProvider)])
def test_a_model_is_replaced_only_by_one_that_can_do_the_same(alias: str) -> None:
    for target, spec in CATALOG.items():
        if target != alias and not isinstance(spec.engine, ExternalProvider):
            refused = any("in place of" in p.message for p in admit(stack({}, **fallback(alias, target))).problems)
            assert refused is not CAN_REPLACE.get((CATALOG[alias].task, spec.task), False), target


# --- what is warned of -------------------------------------------------------------------------------------------


def warned(config: RawConfig) -> list[tuple[str, str | None]]:
    """What is said of keys: message and remedy."""
    admission = admit(config)
    assert not admission.problems
    return [(n.message, n.remedy) for n in admission.notices if "key" in n.message or "rate" in n.message]


def mended(config: RawConfig, said: str) -> Admission:
    """The verdict after the remedy of the one warning that says it."""
    (remedy,) = (remedy for message, remedy in warned(config) if said in message)
    assert remedy
    after = follow(config, remedy)
    assert not [message for message, _ in warned(after) if said in message]
    return admit(after)


def test_a_model_that_no_key_lists_is_warned_of_with_the_command_that_lists_it() -> None:
    plan = mended(stack({"a": key("baseline", "coding-assistant")}), "embeddings is registered, but no key may use it")
    assert "embeddings" in desired_access(plan.plan)["keys"][0]["models"]


def test_a_model_that_a_key_lists_and_its_team_does_not_is_warned_of() -> None:
    config = stack({"a": key(*ALL, team="t"), "b": key(*ALL)}, {"t": key("baseline", "coding-assistant")})
    plan = mended(config, "key a lists embeddings, and its team t does not")
    assert "embeddings" in desired_access(plan.plan)["teams"][0]["models"]


def test_a_fallback_that_a_key_does_not_list_is_warned_of() -> None:
    config = stack({"a": key("coder-chat"), "b": key(*ALL)}, **fallback("coder-chat", "qwen-local"))
    plan = mended(config, "key a may use coder-chat but not its fallback qwen-local")
    assert desired_access(plan.plan)["keys"][0]["models"] == ["qwen-local", "coder-chat"]


def test_a_key_to_a_group_that_is_off_is_warned_of() -> None:
    groups = {f"{P}groups": '{"baseline": true}'}
    said = [message for message, _ in warned(stack({"a": key("retrieval"), "b": key("baseline")}, **groups))]
    assert said == ["key a reaches nothing: no model that it lists is enabled"]


def test_rates_that_several_replicas_count_are_warned_of() -> None:
    keys = {"a": key(*ALL, requestsPerMinute=60, team="t"), "b": key(*ALL, team="t")}
    config = stack(keys, {"t": key(*ALL, tokensPerMinute=1000)}, **{f"{P}gateway": '{"replicas": 2}'})
    ((message, remedy),) = warned(config)
    assert remedy is None  # fewer replicas may carry too little
    assert f"{P}teams.t up to 2,000 tokens, {P}keys.a up to 120 requests" in message
    assert "half" in message
    assert warned(follow(config, "pulumi config set --path 'ai-platform:gateway.replicas' 1")) == []


def test_keys_that_reach_everything_are_not_warned_of() -> None:
    assert warned(stack({"a": key(*ALL, team="t")}, {"t": key(*ALL)})) == []


# --- what the gateway is told ------------------------------------------------------------------------------------


def test_groups_stand_for_their_models_and_a_budget_has_its_period() -> None:
    unlimited = dict.fromkeys(("max_budget", "budget_duration", "tpm_limit", "rpm_limit"))
    coding = [alias for alias, spec in CATALOG.items() if spec.group == "coding-assistant"]
    all_models = [alias for alias, spec in CATALOG.items() if spec.group in GROUPS]
    keys = {"a": key("coding-assistant", team="t", budgetPeriod="1d", requestsPerMinute=60), "b": key("embeddings")}
    told = desired_access(admit(stack(keys, {"t": {"models": ALL}})).plan)
    assert told["teams"] == [{**unlimited, "alias": "t", "models": all_models}]
    budgets = [{"max_budget": 10.0, "budget_duration": period} for period in ("1d", "30d")]
    assert told["keys"] == [
        {**unlimited, **budgets[0], "alias": "a", "team": "t", "models": coding, "rpm_limit": 60},
        {**unlimited, **budgets[1], "alias": "b", "team": None, "models": ["embeddings"]},
    ]


def test_a_model_that_is_off_answers_with_the_command_that_brings_it_up_and_one_that_is_up_is_not_named() -> None:
    config = stack({}, **{"coder-chat:replicas": "1"}, **fallback("coder-mini", "coder-chat"))
    state = model_state(admit(config).plan)
    off = hook.parse(json.dumps(state))
    assert off.keys() == {a for a, spec in CATALOG.items() if spec.group in GROUPS} - {"coder-chat"}
    for alias, said in off.items():
        assert f"pulumi config set {alias}:replicas 1 && pulumi up" in said["message"]
    assert off["coder-mini"].get("fallback") == "coder-chat"
    assert "fallback" not in off["coder-fim"]


# --- whatever is typed -------------------------------------------------------------------------------------------

TEAMS: Json = {"core": key(*ALL, tokensPerMinute=10_000), "guests": {"models": ["baseline"], "maxBudgetUsd": 1}}
KEYS: Json = {
    "editor": key("coding-assistant", "embeddings", team="core", budgetPeriod="7d"),
    "ci": key("coder-chat", requestsPerMinute=60),
    "guest": {"models": ["qwen-local"], "team": "guests"},
}
JUNK: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**63, 1e308, 0.5, "", " ", "x", "x" * 300, "é漢", "\x00", [], {}, [None], [[]]),
    *(["baseline"], ["coder-chat", "coder-chat"], ["nothing"], {"models": ["baseline"]}, {"a": {"b": [1]}}, [1, "x"]),
    *("30d", "1mo", "48h", "7w", "0d", "-1d", "9" * 40 + "d", "core", "guests", "editor", VALUE),
]


def _junk(dice: random.Random) -> Any:
    return copy.deepcopy(dice.choice(JUNK))


NAMES = ["models", "team", "maxBudgetUsd", "budgetPeriod", "tokensPerMinute", "", "UPPER", "a.b", "x"]


def _spoil(dice: random.Random, value: Any) -> Any:
    """A value with one place of it set, removed or added."""
    if dice.random() < 0.1 or not isinstance(value, dict | list):
        return _junk(dice)
    if isinstance(value, list):
        return [*cast("list[Any]", value), _junk(dice)]
    entry = dict(cast("Json", value))
    name = dice.choice([*entry, *NAMES])
    if dice.random() < 0.2:
        entry.pop(name, None)
    else:
        entry[name] = _spoil(dice, entry.get(name))
    return entry


def mutated(dice: random.Random) -> list[Any]:
    """Teams, keys and values of keys, wrong in up to four places."""
    parts: list[Any] = [TEAMS, KEYS, {alias: VALUE + alias for alias in KEYS}]
    for _ in range(dice.randint(0, 4)):
        index = dice.randrange(3)
        parts[index] = _spoil(dice, parts[index])
    return parts


@pytest.mark.parametrize("seed", range(20))
def test_any_config_of_keys_ends_in_clear_errors_or_in_what_the_job_accepts(seed: int, tmp_path: Path) -> None:
    dice, admitted = random.Random(seed), 0  # noqa: S311
    for _ in range(50):
        teams, keys, values = mutated(dice)
        config = with_values({f"{P}teams": json.dumps(teams), f"{P}keys": json.dumps(keys)})
        config = replace(config, secrets={**config.secrets, f"{P}keyValues": json.dumps(values)})
        try:
            admission = admit(config)
        except Exception as error:
            raise AssertionError(f"{error!r}\n{teams}\n{keys}\n{values}") from error
        for problem in admission.problems:
            assert problem.message
            assert problem.remedy.count("pulumi config"), problem
            assert VALUE not in str(problem), problem
        if admission.problems:
            continue
        admitted += 1
        desired, problems = job.parse(json.dumps(desired_access(admission.plan)))
        assert not problems, (teams, keys)
        _write(tmp_path, {entry["alias"]: values[entry["alias"]] for entry in desired["keys"]})
        found, problems = job.read_values(tmp_path, [entry["alias"] for entry in desired["keys"]])
        assert not problems, values
        job.plan(desired, found, Actual([], [], []))
    assert admitted  # the mutations are not all hopeless


def _write(directory: Path, values: Mapping[str, str]) -> None:
    for alias, value in values.items():
        (directory / alias).write_text(value)


def test_what_a_key_costs_to_plan_does_not_grow_with_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped, from_input = [0], pulumi.Output.from_input

    def counted(value: object) -> pulumi.Output[Any]:
        wrapped[0] += 1
        return from_input(value)

    monkeypatch.setattr(pulumi.Output, "from_input", staticmethod(counted))

    def of(many: int) -> int:
        wrapped[0] = 0
        run_main(stack({f"k{number}": key(*ALL) for number in range(many)}), PROJECT_DIR)
        return wrapped[0]

    few, more, most = of(10), of(30), of(50)
    assert most - more <= (more - few) * 1.1
