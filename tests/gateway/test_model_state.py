"""A model that is off: answered by configuration, at once, on every route; or served by its fallback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from components.gateway.model_state import ModelState, decide, parse
from tests.gateway.proxy import Proxy, call, mount
from tests.gateway.rendered import SERVED, rendered
from tests.gateway.test_routes import CHAT, USAGE, ask, price
from tests.gateway.upstream import Behaviour, Upstream
from tests.patience import slowness

ALIAS, FALLBACK = "coder-chat", "qwen-local"
OFF = {"message": f"{ALIAS} is off. Bring it up: pulumi config set {ALIAS}:replicas 1 && pulumi up"}


def off(alias: str) -> dict[str, str]:
    return {"message": OFF["message"].replace(ALIAS, alias)}


@pytest.fixture
def state(proxy: Proxy) -> Iterator[Proxy]:
    """The shared proxy, with every model up again afterwards."""
    yield proxy
    proxy.set_state({})


# --- the file ----------------------------------------------------------------------------------------------------


def test_an_alias_that_the_file_does_not_name_is_up(tmp_path: Path) -> None:
    mount(tmp_path, {"state.json": json.dumps({"models": {ALIAS: OFF}})})
    found = ModelState(str(tmp_path / "state.json"))
    assert found.off(ALIAS) == OFF
    assert found.off(FALLBACK) is None


def test_without_a_file_every_alias_is_up(tmp_path: Path) -> None:
    assert ModelState(str(tmp_path / "state.json")).off(ALIAS) is None


def test_a_swapped_file_is_read_without_a_restart(tmp_path: Path) -> None:
    mount(tmp_path, {"state.json": '{"models": {}}'})
    found = ModelState(str(tmp_path / "state.json"))
    assert found.off(ALIAS) is None
    mount(tmp_path, {"state.json": json.dumps({"models": {ALIAS: OFF}})})
    assert found.off(ALIAS) == OFF
    mount(tmp_path, {"state.json": '{"models": {}}'})
    assert found.off(ALIAS) is None


MALFORMED = [
    *("", "{", "[]", "null", '{"models": []}', '{"models": {"a": "off"}}', '{"models": {"a": {"fallback": "b"}}}'),
    '{"models": {"a": {"message": "m", "fallback": 1}}}',
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_file_leaves_the_last_good_state(text: str, tmp_path: Path) -> None:
    mount(tmp_path, {"state.json": json.dumps({"models": {ALIAS: OFF}})})
    found = ModelState(str(tmp_path / "state.json"))
    assert found.off(ALIAS) == OFF
    mount(tmp_path, {"state.json": text})
    assert found.off(ALIAS) == OFF
    (tmp_path / "state.json").unlink()
    assert found.off(ALIAS) == OFF
    with pytest.raises(ValueError):  # noqa: PT011  json's own subclass, or ours
        parse(text)


@pytest.mark.parametrize(
    ("models", "may_use", "serve_by", "refused_for"),
    [
        ({}, True, None, None),
        ({ALIAS: OFF}, True, None, "is off"),
        ({ALIAS: {**OFF, "fallback": FALLBACK}}, True, FALLBACK, None),
        ({ALIAS: {**OFF, "fallback": FALLBACK}}, False, None, "not among the models of this key"),
        ({ALIAS: {**OFF, "fallback": FALLBACK}, FALLBACK: off(FALLBACK)}, True, None, "is off too"),
    ],
)
def test_what_becomes_of_a_request(
    models: dict[str, Any], may_use: bool, serve_by: str | None, refused_for: str | None, tmp_path: Path
) -> None:
    mount(tmp_path, {"state.json": json.dumps({"models": models})})
    verdict = decide(ModelState(str(tmp_path / "state.json")), ALIAS, may_use)
    assert verdict.serve_by == serve_by
    assert (refused_for in verdict.refuse) if refused_for and verdict.refuse else verdict.refuse is refused_for


# --- through the gateway -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", SERVED)
def test_a_model_that_is_off_says_so_at_once_on_its_own_route(alias: str, state: Proxy, upstream: Upstream) -> None:
    key = state.make_key([alias])
    state.set_state({alias: off(alias)})
    # As many retries as the client has by default: none of them may happen.
    client = state.client(key, max_retries=2)
    started = time.monotonic()
    with upstream.recording() as seen, pytest.raises(openai.InternalServerError) as caught:
        ask(client, SERVED[alias])
    assert time.monotonic() - started < 10 * slowness()  # a time-out takes longer
    body: Any = caught.value.body
    assert (caught.value.status_code, body["type"], body["message"]) == (503, "model_off", off(alias)["message"])
    assert not seen
    state.set_state({})
    ask(client, SERVED[alias])  # and no cool-down outlasts it


def test_a_stream_of_a_model_that_is_off_is_refused_before_it_begins(state: Proxy, upstream: Upstream) -> None:
    state.set_state({ALIAS: OFF})
    body = {"model": ALIAS, "messages": CHAT, "stream": True}
    with upstream.recording() as seen:
        answer = call(f"{state.url}/v1/chat/completions", state.make_key([ALIAS]), body)
    assert (answer.status, answer.error["type"]) == (503, "model_off")
    assert not seen


def test_a_model_that_is_off_costs_nothing_and_the_others_serve_on(state: Proxy, upstream: Upstream) -> None:
    key = state.make_key([ALIAS, FALLBACK])
    state.set_state({ALIAS: OFF})
    client = state.client(key)
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            ask(client, SERVED[ALIAS])
    expected = price(SERVED[FALLBACK], USAGE)
    with upstream.behaving(SERVED[FALLBACK].served_name, Behaviour(usage=USAGE)):
        ask(client, SERVED[FALLBACK])
    assert state.spend(key, expected) == pytest.approx(expected)


def test_a_key_without_the_alias_learns_nothing_of_its_state(state: Proxy) -> None:
    state.set_state({ALIAS: OFF})
    with pytest.raises(openai.PermissionDeniedError):
        ask(state.client(state.make_key([FALLBACK])), SERVED[ALIAS])


def test_a_fallback_serves_at_its_own_price_under_the_alias_that_was_asked_for(
    state: Proxy, upstream: Upstream
) -> None:
    other = SERVED[ALIAS]
    alias, fallback = "coder-fim", "coder-fim-twin"
    # A second alias for the same task at another price, registered at run time.
    state.admin(
        "/model/new",
        {
            "model_name": fallback,
            "litellm_params": {
                "model": f"text-completion-openai/{other.served_name}",
                "api_base": f"{upstream.url}/v1",
                "api_key": "sk-twin",
                "input_cost_per_token": 7e-6,
                "output_cost_per_token": 11e-6,
            },
            "model_info": {"mode": "completion"},
        },
    )
    key = state.make_key([alias, fallback])
    state.set_state({alias: {**off(alias), "fallback": fallback}})
    with upstream.behaving(other.served_name, Behaviour(usage=USAGE)), upstream.recording() as seen:
        ask(state.client(key), SERVED[alias])
    assert [request.served_name for request in seen] == [other.served_name]
    expected = 7e-6 * USAGE.prompt + 11e-6 * USAGE.completion
    assert state.spend(key, expected) == pytest.approx(expected)


def test_a_fallback_that_the_key_may_not_use_is_not_used(state: Proxy, upstream: Upstream) -> None:
    state.set_state({ALIAS: {**OFF, "fallback": FALLBACK}})
    with upstream.recording() as seen, pytest.raises(openai.InternalServerError) as caught:
        ask(state.client(state.make_key([ALIAS])), SERVED[ALIAS])
    body: Any = caught.value.body
    assert body["type"] == "model_off"
    assert FALLBACK in body["message"]
    assert not seen


def test_the_hooks_leave_every_other_request_alone() -> None:
    from components.gateway import stream_usage

    plain: dict[str, Any] = {"model": ALIAS, "stream": False}
    assert asyncio.run(stream_usage.hook.async_pre_call_hook(None, None, plain, "atext_completion")) is None
    chat: dict[str, Any] = {"model": ALIAS, "stream": True}
    assert asyncio.run(stream_usage.hook.async_pre_call_hook(None, None, chat, "acompletion")) is None
    assert "stream_options" not in chat


def test_what_the_program_renders_is_what_a_client_is_told(state: Proxy) -> None:
    off_by_default = parse(rendered().model_state)
    assert set(off_by_default) == set(SERVED)  # every model is at zero in ai-dev
    state.set_state_text(rendered().model_state)
    answer = call(f"{state.url}/v1/chat/completions", state.make_key([ALIAS]), {"model": ALIAS, "messages": CHAT})
    assert (answer.status, answer.error["message"]) == (503, off_by_default[ALIAS]["message"])
    assert f"pulumi config set {ALIAS}:replicas 1" in answer.error["message"]
