"""What a call leaves in the database: a row for a while, and nothing where nothing was served."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import yaml

from models.gateway_database import CALL_BYTES, most_connections
from tests.gateway.postgres import Postgres
from tests.gateway.proxy import Proxy, call
from tests.gateway.rendered import SERVED, rendered
from tests.gateway.test_routes import CHAT, USAGE, price
from tests.gateway.upstream import Behaviour, Upstream
from tests.patience import patient

ALIAS = "coder-chat"
SPEC = SERVED[ALIAS]
URL = "/v1/chat/completions"
BODY = {"model": ALIAS, "messages": CHAT}


def database(proxy: Proxy) -> str:
    return proxy.database_url.rpartition("/")[2]


def rows(postgres: Postgres, name: str) -> dict[str, int]:
    """How many rows each table has."""
    tables = postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", name)
    counts = " UNION ALL ".join(f"""SELECT '{table}', count(*) FROM "{table}\"""" for (table,) in tables)  # noqa: S608
    return {table: int(count) for table, count in postgres.sql(counts, name)}


def settled(postgres: Postgres, name: str) -> dict[str, int]:
    """The same, once nothing more is written."""
    before: dict[str, int] = {}
    for _ in patient(30, every=3):
        now = rows(postgres, name)
        if now == before:
            break
        before = now
    return before


def test_what_is_refused_leaves_no_row_however_often(proxy: Proxy, postgres: Postgres, upstream: Upstream) -> None:
    other, spent = proxy.make_key(["qwen-local"]), proxy.make_key([ALIAS], max_budget=0)
    before = settled(postgres, database(proxy))
    keys = [f"sk-made-up-{number:012}" for number in range(40)] + ["no-key"] * 10 + [other] * 10 + [spent] * 10
    with ThreadPoolExecutor(4) as pool:
        answers = [
            answer.status for answer in pool.map(call, [f"{proxy.url}{URL}"] * len(keys), keys, [BODY] * len(keys))
        ]
    assert answers == [401] * 50 + [403] * 10 + [422] * 10
    with upstream.behaving(SPEC.served_name, Behaviour(status=500)):
        key = proxy.make_key([ALIAS])
        assert call(f"{proxy.url}{URL}", key, BODY).status == 500
    after = settled(postgres, database(proxy))
    # The last key itself, and its failure in the daily totals of that key: one row a key, model and day.
    grown = {table: after[table] - before[table] for table in after if after[table] != before[table]}
    assert grown.pop("LiteLLM_VerificationToken") == 1
    assert all(number <= 1 for number in grown.values()), grown
    assert "LiteLLM_SpendLogs" not in grown


def test_a_call_is_one_row_of_known_size_whatever_its_client_makes_up(
    proxy: Proxy, postgres: Postgres, upstream: Upstream
) -> None:
    key = proxy.make_key([ALIAS])
    before = settled(postgres, database(proxy))
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        for number in range(20):
            client = proxy.client(key, headers={"User-Agent": f"agent/{number}{'x' * 8000}"})
            client.chat.completions.create(model=ALIAS, messages=CHAT, user=f"user-{number}")
    assert proxy.spend(key, 20 * price(SPEC, USAGE)) > 0
    after = settled(postgres, database(proxy))
    grown = {table: after[table] - before[table] for table in after if after[table] != before[table]}
    assert grown.pop("LiteLLM_SpendLogs") == 20
    assert all(number <= 2 for number in grown.values()), grown  # daily totals
    size = """SELECT avg(pg_column_size(log.*)) FROM "LiteLLM_SpendLogs" log"""
    assert float(postgres.sql(size, database(proxy))[0][0]) < CALL_BYTES


def test_rows_older_than_the_retention_go_and_totals_stay(proxy: Proxy, postgres: Postgres, upstream: Upstream) -> None:
    settings = yaml.safe_load(rendered().files["config.yaml"])["general_settings"]
    assert (settings["maximum_spend_logs_retention_period"], settings["disable_error_logs"]) == ("30d", True)
    key = proxy.make_key([ALIAS])
    cost = price(SPEC, USAGE)
    with upstream.behaving(SPEC.served_name, Behaviour(usage=USAGE)):
        for _ in range(3):
            call(f"{proxy.url}{URL}", key, BODY)
    assert proxy.spend(key, 3 * cost) > 2 * cost
    name = database(proxy)
    settled(postgres, name)
    table = '"LiteLLM_SpendLogs"'
    total = int(postgres.sql(f"SELECT count(*) FROM {table}", name)[0][0])  # noqa: S608
    age = f"""UPDATE {table} SET "startTime" = now() - interval '31 days' WHERE request_id IN (
        SELECT request_id FROM {table} ORDER BY "startTime" DESC LIMIT 2)"""  # noqa: S608
    postgres.sql(age, name)
    # The job of LiteLLM's own schedule, as the replica runs it, on the rendered settings.
    code = f"""
import asyncio, os
from litellm.proxy import proxy_server
from litellm.proxy.db.db_transaction_queue.spend_log_cleanup import SpendLogCleanup
from litellm.proxy.utils import PrismaClient, ProxyLogging
from litellm.caching.caching import DualCache

async def main():
    client = PrismaClient(os.environ["DATABASE_URL"], ProxyLogging(user_api_key_cache=DualCache()))
    await client.connect()
    await SpendLogCleanup(general_settings={settings!r}).cleanup_old_spend_logs(client)
    await client.disconnect()

asyncio.run(main())
"""
    done = proxy.environment.run(
        "python", "-c", code, cwd=proxy.directory, variables={"DATABASE_URL": proxy.database_url}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(postgres.sql(f"SELECT count(*) FROM {table}", name)[0][0]) == total - 2  # noqa: S608
    assert proxy.key_info(key)["spend"] > 2 * cost
    assert "Invalid maximum_spend_logs" not in proxy.log


def test_a_replica_holds_no_more_connections_than_its_share(
    proxy: Proxy, postgres: Postgres, upstream: Upstream
) -> None:
    """Its pool, as rendered, and what it holds beside: under load from keys that it has to look up."""
    pool = yaml.safe_load(rendered().files["config.yaml"])["general_settings"]["database_connection_pool_limit"]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database(proxy)}'"  # noqa: S608
    most = 0
    with ThreadPoolExecutor(24) as clients:
        pending = [
            clients.submit(call, f"{proxy.url}{URL}", f"sk-unknown-{time.time_ns()}-{number}", BODY)
            for number in range(120)
        ]
        while not all(answer.done() for answer in pending):
            most = max(most, int(postgres.sql(count)[0][0]))
    assert 2 <= most <= most_connections(pool, 1) - most_connections(pool, 0)
