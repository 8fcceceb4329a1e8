"""What survives: a restart, a lost database, a restore, a migration that fails; and what clients get meanwhile."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest

from tests.gateway.conftest import LaunchProxy, Replicas
from tests.gateway.postgres import Postgres
from tests.gateway.proxy import Proxy, call
from tests.gateway.rendered import SERVED
from tests.gateway.test_backup import run
from tests.gateway.test_keys import USAGE as EXPECTED
from tests.gateway.test_keys import served_at_once
from tests.gateway.test_routes import CHAT, USAGE, ask, price
from tests.gateway.upstream import Behaviour, Upstream
from tests.patience import patient, slowness

ALIAS = "coder-chat"
SPEC = SERVED[ALIAS]
COST = price(SPEC, USAGE)


@pytest.fixture(autouse=True)
def usage(upstream: Upstream) -> Iterator[None]:
    """Every answer of the model in this module costs the same."""
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        yield


def chat(proxy: Proxy, key: str) -> Any:
    return ask(proxy.client(key), SPEC)


T = TypeVar("T")


def eventually(read: Callable[[], T], wanted: Callable[[T], bool]) -> T:
    """The first reading that is as wanted."""
    value = read()
    for _ in patient(60, every=0.2):
        if wanted(value):
            break
        value = read()
    assert wanted(value), value
    return value


# --- dump and restore --------------------------------------------------------------------------------------------


def test_a_restored_dump_with_the_same_salt_key_has_every_key_its_spend_and_its_models(
    replicas: Replicas, postgres: Postgres, launch_proxy: LaunchProxy, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = replicas.first
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    entry = {"model": "openai/run-time", "api_base": f"{upstream.url}/v1", "api_key": "sk-run-time-secret", **prices}
    proxy.admin("/model/new", {"model_name": "run-time", "litellm_params": entry, "model_info": {"mode": "chat"}})
    key = proxy.make_key([ALIAS, "run-time"], max_budget=COST * 1.5)
    chat(proxy, key)
    assert proxy.spend(key, COST) == pytest.approx(COST)

    dump = postgres.dump(proxy.database_url.rpartition("/")[2])
    for secret in (key, "sk-run-time-secret", proxy.master_key, proxy.salt_key):
        assert secret not in dump
    dumps = tmp_path / "dumps"
    assert run("back_up.sh", postgres, proxy.database_url.rpartition("/")[2], dumps)[0] == 0
    postgres.create_database("restored")
    code, said = run("restore.sh", postgres, "restored", dumps)
    assert code == 0, said

    # With another master key, as one that was rotated: only the salt has to be the same.
    restored = launch_proxy(postgres.url("restored"), salt=proxy.salt_key).wait()
    assert call(f"{restored.url}/key/info?key={key}", proxy.master_key).status == 401
    assert restored.key_info(key)["spend"] == pytest.approx(COST)
    with upstream.recording() as seen:
        client = restored.client(key)
        client.chat.completions.create(model="run-time", messages=CHAT)
    assert seen[0].headers["authorization"] == "Bearer sk-run-time-secret"
    chat(restored, key)
    with pytest.raises(openai.UnprocessableEntityError):
        chat(restored, key)

    # Stopped before the next batch of spend was due: it writes what it holds before it leaves.
    restored.stop()
    token = hashlib.sha256(key.encode()).hexdigest()
    spend = f"""SELECT spend FROM "LiteLLM_VerificationToken" WHERE token = '{token}'"""  # noqa: S608
    assert float(postgres.sql(spend, "restored")[0][0]) >= 2 * COST


# --- replicas ----------------------------------------------------------------------------------------------------


def test_a_second_replica_knows_a_new_key_its_spend_and_its_budget(replicas: Replicas) -> None:
    key = replicas.first.make_key([ALIAS], max_budget=COST * 0.5)
    chat(replicas.second, key)
    assert replicas.first.spend(key, COST) == pytest.approx(COST)
    with pytest.raises(openai.UnprocessableEntityError):
        chat(replicas.first, key)


def test_two_replicas_each_let_through_what_fits_until_they_hear_of_each_other(
    replicas: Replicas, upstream: Upstream
) -> None:
    """Without Redis only the replica that takes a call knows its reservation: the overrun is once more, and ends."""
    both = [replicas.first, replicas.second]
    cost = price(SPEC, EXPECTED)
    key = replicas.first.make_key([ALIAS], max_budget=cost * 3.5)
    served = served_at_once(both, upstream, key, 24, max_tokens=EXPECTED.completion)
    assert 4 <= served <= 2 * 4  # eight, unless this machine is so slow that the first spend is written meanwhile
    assert replicas.first.spend(key, served * cost) == pytest.approx(served * cost)
    assert served_at_once(both, upstream, key, 4, max_tokens=EXPECTED.completion) == 0


def test_a_rate_is_counted_by_each_replica(replicas: Replicas) -> None:
    key = replicas.first.make_key([ALIAS], rpm_limit=1)
    for proxy in (replicas.first, replicas.second):
        chat(proxy, key)
        with pytest.raises(openai.RateLimitError):
            chat(proxy, key)


# --- the database away -------------------------------------------------------------------------------------------


def test_while_the_database_is_away_known_keys_are_served_and_others_told_to_come_back(
    replicas: Replicas, postgres: Postgres
) -> None:
    proxy = replicas.first
    known, unknown = proxy.make_key([ALIAS], max_budget=COST * 3.5), proxy.make_key([ALIAS])
    chat(proxy, known)
    assert proxy.spend(known, COST) == pytest.approx(COST)
    postgres.stop()
    try:
        for _ in range(3):
            chat(proxy, known)
        body = {"model": ALIAS, "messages": CHAT}
        started = time.monotonic()
        with ThreadPoolExecutor() as pool:
            pending = [
                pool.submit(call, f"{proxy.url}/v1/chat/completions", key, body)
                for key in (unknown, "sk-made-up-0000000000")
            ]
        answers = [answer.result() for answer in pending]
        assert time.monotonic() - started < 15 * slowness()
        assert [(answer.status, answer.error["type"]) for answer in answers] == [(503, "no_db_connection")] * 2
        # What was spent meanwhile is counted where it is decided.
        with pytest.raises(openai.UnprocessableEntityError):
            chat(proxy, known)
    finally:
        postgres.start()
    # The log has every call. The key's own total in the database lacks what could not be written: LiteLLM drops it.
    database, token = proxy.database_url.rpartition("/")[2], hashlib.sha256(known.encode()).hexdigest()
    logged = (
        f"""SELECT count(*), sum(spend) FROM "LiteLLM_SpendLogs" WHERE api_key = '{token}' AND status = 'success'"""  # noqa: S608
    )
    rows = eventually(lambda: postgres.sql(logged, database)[0], lambda row: row[0] == "4")
    assert float(rows[1]) == pytest.approx(4 * COST)
    eventually(lambda: call(f"{proxy.url}/health/readiness", "").status, lambda status: status == 200)
    chat(proxy, unknown)
