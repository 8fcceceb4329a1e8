"""`ops keys`: what the gateway has of teams and keys, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.gateway.reconcile_keys import NO_MODELS, OWNER
from ops.cli import main
from tests.checkout import PROJECT_DIR
from tests.ops.fakes import Kubectl, Server
from tests.ops.typed import remedies, why_not_typable

MASTER = "sk-master-0123456789abcdef"
TOKEN = "ab12cd34" * 8
Json = dict[str, Any]


def purse(**fields: Any) -> Json:
    limits = {"models": ["coder-chat"], "max_budget": 20.0, "budget_duration": "30d", "spend": 5.5}
    return {**limits, "budget_reset_at": "2026-12-01T00:00:00Z", "metadata": {"managed_by": OWNER}, **fields}


def key(alias: str | None, **fields: Any) -> Json:
    return purse(**{"token": TOKEN, "key_name": "sk-...WXYZ", "key_alias": alias, "team_id": None, **fields})


KEYS = [
    key("editor", team_id="platform"),
    key("spent", spend=20.5),
    key("nothing", models=NO_MODELS, max_budget=None, budget_duration=None, budget_reset_at=None),
    key(None, models=[], metadata={}, blocked=True, expires="2026-12-24T12:30:00Z", team_id="uuid-of-hand"),
]
TEAMS = [
    purse(team_id="platform", team_alias="platform", max_budget=50.0, spend=9.0),
    purse(team_id="uuid-of-hand", team_alias="hand", metadata={}),
]
MODELS = [
    {"model_name": "coder-chat", "model_info": {"db_model": False}},
    {"model_name": "added", "model_info": {"db_model": True}},
]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER)
    with Server() as server:
        server.admin = {
            "/v1/model/info": {"data": MODELS},
            "/v2/team/list": {"teams": TEAMS, "total_pages": 1},
            "/key/list": {"keys": KEYS, "total_pages": 1},
        }
        yield server


def keys(server: Server, *arguments: str) -> int:
    return main(["keys", "--gateway-url", server.url, *arguments])


def listed(server: Server, capsys: pytest.CaptureFixture[str]) -> Json:
    assert keys(server, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def line(out: str, start: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(start))


def test_a_key_shows_what_it_has_spent_and_has_left_and_until_when(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(gateway) == 0
    found = line(capsys.readouterr().out, "editor").split()
    assert found == [
        "editor",
        "platform",
        "coder-chat",
        "5.5000",
        "20.00",
        "30d",
        "14.5000",
        "2026-12-01",
        "00:00Z",
    ]


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_amount_and_no_verdict_is_cut_on_a_small_screen(
    gateway: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = listed(gateway, capsys)
    assert keys(gateway) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "…" not in out
    for purse in (*found["teams"], *found["keys"]):
        assert purse["alias"] in out.split()
        assert f"{purse['spent_usd']:,.4f}" in out.split()
        assert purse["left_usd"] is None or f"{purse['left_usd']:,.4f}" in out.split()
    assert {"over", "budget", "blocked,", "coder-chat"} <= set(out.split())


def test_the_same_is_there_for_programs(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    found = next(key for key in listed(gateway, capsys)["keys"] if key["alias"] == "editor")
    assert found == {
        "alias": "editor",
        "models": ["coder-chat"],
        "spent_usd": 5.5,
        "budget_usd": 20.0,
        "left_usd": 14.5,
        "period": "30d",
        "resets_at": "2026-12-01T00:00:00Z",
        "managed": True,
        "blocked": False,
        "team": "platform",
        "expires_at": None,
    }


def test_what_was_made_by_hand_is_marked(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    keys(gateway)
    out = capsys.readouterr().out
    assert "made by hand" in line(out, "hand")
    assert "made by hand, blocked, expires 2026-12-24 12:30Z" in line(out, f"({TOKEN[:8]})")
    for managed in ("platform", "editor", "spent", "nothing"):
        assert "by hand" not in line(out, managed)


def test_a_key_over_its_budget_says_so(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    keys(gateway)
    out = capsys.readouterr().out
    assert "-0.5000" in line(out, "spent")
    assert "over budget" in line(out, "spent")
    assert "over budget" not in line(out, "editor")


def test_a_key_of_every_model_is_told_from_one_of_none(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    models = {key["alias"]: key["models"] for key in listed(gateway, capsys)["keys"]}
    assert models["nothing"] == []
    assert models[f"({TOKEN[:8]})"] is None


def test_a_team_of_another_id_than_its_name_is_called_by_its_name(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(gateway, capsys)
    assert [team["alias"] for team in found["teams"]] == ["hand", "platform"]
    assert {key["team"] for key in found["keys"]} == {"hand", "platform", None}


def test_models_registered_at_run_time_are_listed(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(gateway, capsys)["models_registered_at_run_time"] == ["added"]
    keys(gateway)
    assert "registered at run time, not by the config: added" in capsys.readouterr().out


def test_every_page_is_read(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.admin["/key/list"] = {"keys": [key("same")], "total_pages": 3}
    assert len(listed(gateway, capsys)["keys"]) == 3


@pytest.mark.parametrize("arguments", [(), ("--format", "json")], ids=["text", "json"])
def test_nothing_of_a_keys_value_is_shown(
    arguments: tuple[str, ...], gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    keys(gateway, *arguments)
    out = capsys.readouterr()
    for part in (MASTER, "sk-", "WXYZ", TOKEN):
        assert part not in out.out + out.err
    assert {asked.key for asked in gateway.seen} == {MASTER}


WRONG: dict[str, tuple[Any, int, str]] = {
    "another admin key": ({"error": {"type": "auth_error", "message": f"not {MASTER}"}}, 401, "the gateway refuses"),
    "a lost database": ({"error": {"message": "no db"}}, 503, "the gateway does not answer"),
    "another server": ({"hello": "world"}, 200, "not LiteLLM's admin API"),
    "a list": ([1], 200, "not LiteLLM's admin API"),
    "HTML": (b"<html>", 200, "not LiteLLM's admin API"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_gateway_that_does_not_tell_is_one_clear_error(
    name: str, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    body, status, reason = WRONG[name]
    gateway.fault = lambda _, answer: replace(answer, body=body, status=status)
    assert keys(gateway) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert [why_not_typable(remedy) for remedy in remedies(err)] == [None]
    assert MASTER not in err


def test_an_unreachable_gateway_and_a_missing_admin_key_are_clear_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["keys", "--gateway-url", "http://127.0.0.1:9"]
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    assert main(nowhere) == 2
    assert "the environment has no LITELLM_MASTER_KEY" in capsys.readouterr().err
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER)
    assert main(nowhere) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_in_a_cluster_the_admin_key_comes_from_its_secret(
    gateway: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "sk-of-the-cluster-0123456789"
    kubectl = Kubectl(
        tmp_path,
        secrets={"gateway/litellm-master-key": {"key": other}},
        forwards={"gateway/svc/litellm": gateway.port},
    )
    kubectl.write()
    monkeypatch.setenv("PATH", kubectl.path)
    assert main(["keys", "--context", "somewhere", "--project-dir", str(PROJECT_DIR)]) == 0
    assert "editor" in capsys.readouterr().out
    assert {asked.key for asked in gateway.seen} == {other}
    assert all("--context=somewhere" in call for _, call in kubectl.calls)
    assert other not in json.dumps(kubectl.calls)
    assert kubectl.running() == []


def test_a_stack_with_other_namespaces_is_asked_for_in_those(
    gateway: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\n")
    (tmp_path / "Pulumi.here.yaml").write_text("config:\n  ai-platform:namespaces:\n    gateway: team-gw\n")
    kubectl = Kubectl(
        tmp_path,
        secrets={"team-gw/litellm-master-key": {"key": MASTER}},
        forwards={"team-gw/svc/litellm": gateway.port},
    )
    kubectl.write()
    monkeypatch.setenv("PATH", kubectl.path)
    here = ["--stack", "here", "--project-dir", str(tmp_path)]
    assert main(["keys", "--context", "somewhere", *here]) == 0
    assert all("--namespace=team-gw" in call for _, call in kubectl.calls)


def test_no_context_is_used_that_nobody_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl = Kubectl(tmp_path)
    kubectl.write()
    monkeypatch.setenv("PATH", kubectl.path)
    monkeypatch.chdir(PROJECT_DIR)
    assert main(["keys", "--stack", "ai-dev"]) == 2
    assert "the current context is never used" in capsys.readouterr().err
    assert kubectl.calls == []
