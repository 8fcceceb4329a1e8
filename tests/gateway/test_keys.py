"""Who is refused, with which error, and what a budget lets through."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from stacks.rules.purses import HELD_TOKENS, held_usd
from tests.gateway.environment import Environment
from tests.gateway.proxy import Proxy, call
from tests.gateway.rendered import SERVED
from tests.gateway.test_routes import CHAT, price
from tests.gateway.upstream import Behaviour, Upstream, Usage
from tests.patience import patient

ALIAS, OTHER = "coder-chat", "qwen-local"
SPEC = SERVED[ALIAS]
# The model generates all that a client declares, so that what LiteLLM reserves is what the call costs.
USAGE = Usage(prompt=20, completion=8000)
COST = price(SPEC, USAGE)


def chat(proxy: Proxy, key: str, alias: str = ALIAS) -> Any:
    client = proxy.client(key)
    return client.chat.completions.create(model=alias, messages=CHAT, max_tokens=USAGE.completion)


@dataclass(frozen=True)
class Refusal:
    """What a client sees."""

    error: type[openai.APIStatusError]
    status: int
    type: str


def refused(expected: Refusal, ask: Callable[[], Any]) -> str:
    """The message of the expected refusal."""
    with pytest.raises(expected.error) as caught:
        ask()
    body: Any = caught.value.body
    assert (caught.value.status_code, body["type"]) == (expected.status, expected.type), body
    return str(body["message"])


UNKNOWN_KEY = Refusal(openai.AuthenticationError, 401, "token_not_found_in_db")
NOT_A_KEY = Refusal(openai.AuthenticationError, 401, "auth_error")
EXPIRED = Refusal(openai.AuthenticationError, 401, "expired_key")
OTHER_ALIAS = Refusal(openai.PermissionDeniedError, 403, "key_model_access_denied")
OVER_BUDGET = Refusal(openai.UnprocessableEntityError, 422, "budget_exceeded")


def test_another_alias_than_the_keys_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS])
    with upstream.recording() as seen:
        refused(OTHER_ALIAS, lambda: chat(proxy, key, OTHER))
        refused(OTHER_ALIAS, lambda: chat(proxy, key, "no-such-model"))
    assert not seen


def test_an_unknown_key_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    with upstream.recording() as seen:
        refused(UNKNOWN_KEY, lambda: chat(proxy, "sk-unknown-000000000000"))
        refused(NOT_A_KEY, lambda: chat(proxy, "not-a-key"))
    assert not seen


def test_an_expired_key_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS], duration="1s")
    time.sleep(1.2)
    with upstream.recording() as seen:
        refused(EXPIRED, lambda: chat(proxy, key))
    assert not seen


def test_a_deleted_key_is_refused_at_once(proxy: Proxy) -> None:
    key = proxy.make_key([ALIAS])
    chat(proxy, key)
    proxy.admin("/key/delete", {"keys": [key]})
    refused(UNKNOWN_KEY, lambda: chat(proxy, key))


ADMIN_CALLS: dict[str, Any] = {
    "/key/generate": {"models": [OTHER]},
    "/team/new": {"team_alias": "mine", "models": [OTHER]},
    "/model/new": {"model_name": "mine", "litellm_params": {"model": "openai/mine"}, "model_info": {}},
}


@pytest.mark.parametrize("route", ADMIN_CALLS)
def test_a_tenants_key_opens_nothing_of_the_admin_api(route: str, proxy: Proxy) -> None:
    assert call(f"{proxy.url}{route}", proxy.make_key([ALIAS]), ADMIN_CALLS[route]).status in {401, 403}


def test_a_tenant_cannot_change_its_own_key(proxy: Proxy) -> None:
    key = proxy.make_key([ALIAS], max_budget=1)
    before = proxy.key_info(key)
    answer = call(f"{proxy.url}/key/update", key, {"key": key, "models": [OTHER], "max_budget": 1000})
    assert answer.status in {401, 403}
    assert proxy.key_info(key) == before


def test_the_call_that_crosses_the_budget_is_served_and_the_next_one_refused(proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS], max_budget=COST * 1.5)
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)), upstream.recording() as seen:
        chat(proxy, key)
        chat(proxy, key)
        message = refused(OVER_BUDGET, lambda: chat(proxy, key))
    assert len(seen) == 2
    assert "budget" in message.lower()
    assert proxy.spend(key, 2 * COST) == pytest.approx(2 * COST)


def test_a_refusal_says_what_is_spent_and_what_is_held_by_calls_that_run(proxy: Proxy, upstream: Upstream) -> None:
    """A call without max_tokens holds all that is left, far more than it costs."""
    held = held_usd(SPEC)
    team = proxy.admin("/team/new", {"team_alias": "small", "models": [ALIAS], "max_budget": held})["team_id"]
    holders: dict[str, Any] = {"this key": {"max_budget": held}, "the team 'small'": {"team_id": team}}
    for who, fields in holders.items():
        client = proxy.client(proxy.make_key([ALIAS], **fields))
        before = len(upstream.seen)
        ask = functools.partial(client.chat.completions.create, model=ALIAS, messages=CHAT)
        with (
            upstream.behaving(SPEC.served_name, Behaviour(usage=Usage(prompt=20, completion=10), delay=8)),
            ThreadPoolExecutor(1) as pool,
        ):
            first = pool.submit(ask)
            for _ in patient(60, every=0.1):
                if len(upstream.seen) > before:
                    break
            assert len(upstream.seen) > before
            message = refused(OVER_BUDGET, ask)
            first.result()
        assert f"The budget of {who}, ${held:g}, has nothing left for this call: $0.0000 is recorded" in message
        assert "send max_tokens" in message
        # Of what it held it gives back what it did not cost.
        for _ in patient(10, every=0.5):
            with suppress(openai.UnprocessableEntityError):
                ask()
                break
        else:
            pytest.fail("still held")


def test_a_refusal_of_a_spent_budget_says_so(proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS], max_budget=COST * 0.5, budget_duration="30d")
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        chat(proxy, key)
        proxy.spend(key, COST)
        proxy.admin("/key/update", {"key": key, "rpm_limit": 100})  # it is read again
        message = refused(OVER_BUDGET, lambda: chat(proxy, key))
    assert message.startswith(
        f"The budget of this key, ${COST * 0.5:g}, is spent, ${COST:.4f} so far. It starts again at"
    )


def test_what_a_call_holds_is_what_litellm_holds(environment: Environment) -> None:
    source = environment.migrations.parents[1] / "litellm" / "proxy" / "spend_tracking" / "budget_reservation.py"
    assert f"DEFAULT_MAX_OUTPUT_TOKENS_FALLBACK: Final = {HELD_TOKENS}\n" in source.read_text()


def test_a_teams_budget_binds_all_of_its_keys(proxy: Proxy, upstream: Upstream) -> None:
    team = proxy.admin("/team/new", {"team_alias": "binding", "models": [ALIAS], "max_budget": COST * 0.5})["team_id"]
    first, second = (proxy.make_key([ALIAS], team_id=team) for _ in range(2))
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        chat(proxy, first)
        refused(OVER_BUDGET, lambda: chat(proxy, second))


def test_a_raised_budget_serves_again(proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS], max_budget=COST * 0.5)
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        chat(proxy, key)
        refused(OVER_BUDGET, lambda: chat(proxy, key))
        proxy.admin("/key/update", {"key": key, "max_budget": COST * 5})
        chat(proxy, key)


def limited(proxy: Proxy, whose: str, **limits: Any) -> str:
    """A key that is limited itself, or whose team is."""
    if whose == "key":
        return proxy.make_key([ALIAS], **limits)
    team = proxy.admin("/team/new", {"team_alias": f"limited {limits}", "models": [ALIAS], **limits})
    return proxy.make_key([ALIAS], team_id=team["team_id"])


@pytest.mark.parametrize("whose", ["key", "team"])
def test_a_budget_starts_again_after_its_period(whose: str, proxy: Proxy, upstream: Upstream) -> None:
    key = limited(proxy, whose, max_budget=COST * 0.5, budget_duration="4s")
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        chat(proxy, key)
        refused(OVER_BUDGET, lambda: chat(proxy, key))
        for _ in patient(30, every=0.5):
            with suppress(openai.UnprocessableEntityError):
                chat(proxy, key)
                return
        pytest.fail(f"still over its budget: {proxy.key_info(key)}")


@pytest.mark.parametrize("whose", ["key", "team"])
@pytest.mark.parametrize(
    "limit", [{"rpm_limit": 2}, {"tpm_limit": USAGE.completion * 5 // 2}], ids=["requests", "tokens"]
)
def test_a_rate_binds_and_says_when_to_come_back(
    limit: dict[str, int], whose: str, proxy: Proxy, upstream: Upstream
) -> None:
    key = limited(proxy, whose, **limit)
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)), upstream.recording() as seen:
        for _ in range(2):
            chat(proxy, key)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(proxy, key)
    assert len(seen) == 2
    assert caught.value.type == "throttling_error"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


def served_at_once(proxies: Sequence[Proxy], upstream: Upstream, key: str, calls: int, **declared: Any) -> int:
    """How many of so many simultaneous calls, taken by the replicas in turn, come through to the model."""
    clients = [proxy.client(key) for proxy in proxies]

    def one(number: int) -> None:
        try:
            clients[number % len(clients)].chat.completions.create(model=ALIAS, messages=CHAT, **declared)
        except openai.UnprocessableEntityError:
            return

    with (
        upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE, delay=0.5)),
        upstream.recording() as seen,
        ThreadPoolExecutor(calls) as pool,
    ):
        list(pool.map(one, range(calls)))
    return len(seen)


@pytest.mark.parametrize(
    ("declared", "served"), [({"max_tokens": USAGE.completion}, 4), ({}, 2)], ids=["declared", "not declared"]
)
def test_of_simultaneous_calls_only_those_that_fit_and_the_one_that_crosses_are_served(
    declared: dict[str, int], served: int, proxy: Proxy, upstream: Upstream
) -> None:
    """LiteLLM reserves the most that a call may cost; of one that declares nothing, the model's whole context."""
    key = proxy.make_key([ALIAS], max_budget=COST * 3.5)
    assert served_at_once([proxy], upstream, key, 12, **declared) == served
