"""`ops smoke` and `ops keys` against the real proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from components.gateway.reconcile_keys import OWNER, ROUTES
from models.tasks import Task
from ops.cli import main
from tests.catalog import CATALOG
from tests.gateway.proxy import Proxy
from tests.gateway.rendered import SERVED
from tests.gateway.test_routes import price
from tests.gateway.upstream import Behaviour, Upstream, Usage
from tests.patience import at_least

USAGE = Usage(prompt=1234, completion=56)
STEPS = {Task.CHAT: 2, Task.FIM: 2, Task.AGENT: 3, Task.EMBEDDING: 1}
CHAT, STAND_IN = "coder-chat", "coder-mini"


@pytest.fixture
def key(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As the reconcile job makes one."""
    value = proxy.make_key([*SERVED], max_budget=1, budget_duration="1d", allowed_routes=ROUTES)
    monkeypatch.setenv("SMOKE_KEY", value)
    yield value
    proxy.set_state({})


@pytest.fixture(autouse=True)
def short_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated server's vectors have two numbers."""
    for alias, spec in SERVED.items():
        if spec.task is Task.EMBEDDING and spec.weights:
            architecture = spec.weights.architecture.model_copy(update={"hidden": 2})
            short = spec.model_copy(update={"weights": spec.weights.model_copy(update={"architecture": architecture})})
            monkeypatch.setitem(cast("dict[str, Any]", CATALOG), alias, short)


def smoke(proxy: Proxy, *aliases: str) -> int:
    return main(
        ["smoke", *aliases, "--gateway-url", proxy.url, "--key-env", "SMOKE_KEY", f"--timeout={at_least(20):.0f}"]
    )


@pytest.mark.usefixtures("tool_reader")
def test_every_model_answers_and_its_price_reaches_the_keys_spend(
    proxy: Proxy, upstream: Upstream, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        for spec in SERVED.values():
            stack.enter_context(upstream.behaving(spec.served_name, Behaviour(usage=USAGE)))
        assert smoke(proxy) == 0, capsys.readouterr()
    out, total = capsys.readouterr().out, 0.0
    for alias, spec in SERVED.items():
        found = [line for line in out.splitlines() if line.startswith(f"{alias} ")]
        # LiteLLM tells the price of every answer: in a header, and in a stream with its usage.
        assert [line.split()[-2:] for line in found] == [[f"{price(spec, USAGE):.9f}", "ok"]] * STEPS[spec.task]
        total += price(spec, USAGE) * STEPS[spec.task]
    assert f"spent $0.000000 before, ${total:.6f} after" in out
    assert proxy.spend(key) == pytest.approx(total)


@pytest.mark.usefixtures("tool_reader")
def test_an_agent_whose_calls_no_parser_finds_is_told_apart_from_one_that_calls_nothing(
    proxy: Proxy,
    upstream: Upstream,
    key: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no cell is folded
    agent = next(alias for alias, spec in SERVED.items() if spec.task is Task.AGENT)
    with upstream.behaving(SERVED[agent].served_name, Behaviour(usage=USAGE, parser="hermes")):
        assert smoke(proxy, agent) == 1
    told = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(f"{agent} ")]
    assert [(row[row.index("call,") + 1], row[-1]) for row in told[:2]] == [("auto", "failed"), ("required", "ok")]


def test_a_model_that_is_off_shows_the_answer_that_a_tenant_gets(
    proxy: Proxy, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"{CHAT} is off. Bring it up: pulumi config set {CHAT}:replicas 1 && pulumi up"
    proxy.set_state({CHAT: {"message": message}})
    assert smoke(proxy, CHAT) == 1
    out = capsys.readouterr().out
    assert message in " ".join(out.split())
    assert "503" in out
    assert proxy.spend(key) == 0


def test_a_fallback_that_answers_is_recognised(proxy: Proxy, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    proxy.set_state({CHAT: {"message": f"{CHAT} is off.", "fallback": STAND_IN}})
    assert smoke(proxy, CHAT) == 1
    assert f"{STAND_IN} answered in its place" in " ".join(capsys.readouterr().out.split())


def test_a_key_that_may_not_use_the_model_is_refused_with_what_mends_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMOKE_KEY", proxy.make_key([STAND_IN], allowed_routes=ROUTES))
    assert smoke(proxy, CHAT) == 1
    out = capsys.readouterr().out
    assert "HTTP 403 key_model_access_denied" in " ".join(out.split())
    assert "pulumi config set --path 'ai-platform:keys.<key>.models[" in out


def test_a_price_that_the_gateway_does_not_know_is_found(
    proxy: Proxy, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dearer = SERVED[CHAT].price.model_copy(update={"output_usd_per_mtok": 99.0})
    dear = SERVED[CHAT].model_copy(update={"price": dearer})
    monkeypatch.setitem(cast("dict[str, Any]", CATALOG), CHAT, dear)
    assert smoke(proxy, CHAT) == 1
    assert "budgets do not bind" in " ".join(capsys.readouterr().out.split())


def test_keys_teams_and_models_of_the_real_gateway_are_listed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    team = proxy.admin("/team/new", {"team_alias": "listed-team", "models": [CHAT], "max_budget": 50})["team_id"]
    mark = {"managed_by": OWNER}
    limits: dict[str, Any] = {"max_budget": 2.5, "budget_duration": "1d", "metadata": mark}
    value = proxy.make_key([CHAT], key_alias="listed-key", team_id=team, **limits)
    added = {"model_name": "listed-model", "litellm_params": {"model": "openai/x", "api_key": "x"}, "model_info": {}}
    model = proxy.admin("/model/new", added)["model_id"]
    proxy.client(value).chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "hi"}])
    spent = proxy.spend(value, price(SERVED[CHAT], Usage()))
    assert spent
    monkeypatch.setenv("LITELLM_MASTER_KEY", proxy.master_key)
    assert main(["keys", "--gateway-url", proxy.url, "--format", "json"]) == 0
    proxy.admin("/model/delete", {"id": model})
    out = capsys.readouterr().out
    found = json.loads(out)
    listed = next(key for key in found["keys"] if key["alias"] == "listed-key")
    assert (listed["team"], listed["models"], listed["managed"]) == ("listed-team", [CHAT], True)
    assert (listed["spent_usd"], listed["left_usd"]) == (pytest.approx(spent), pytest.approx(2.5 - spent))
    assert listed["resets_at"]
    hand = next(team for team in found["teams"] if team["alias"] == "listed-team")
    assert (hand["managed"], hand["budget_usd"]) == (False, 50)
    assert "listed-model" in found["models_registered_at_run_time"]
    assert value not in out
    assert proxy.master_key not in out
