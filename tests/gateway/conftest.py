"""Fixtures of the gateway tests: one PostgreSQL, one proxy and one simulated model server for most of them.

A proxy takes some seconds to start, so tests share one and keep to keys of their own; what has to be broken
(proxy, database, server) is made for the module that breaks it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import pytest

from tests.components.libraries import UnavailableError as NoLibraryError
from tests.components.vllm_library import PLUGIN, running
from tests.gateway.environment import Environment, UnavailableError, ensure_environment
from tests.gateway.postgres import Postgres
from tests.gateway.proxy import Proxy, master_key
from tests.gateway.rendered import files_at
from tests.gateway.upstream import Upstream
from tests.patience import slowness

# How often spend is written, budgets are reset and a lost database is looked for: a second here, where the defaults
# (10 s, 10 min, 15 s) only slow the tests.
FAST = {
    "PROXY_BATCH_WRITE_AT": "1",
    "PROXY_BUDGET_RESCHEDULER_MIN_TIME": "1",
    "PROXY_BUDGET_RESCHEDULER_MAX_TIME": "2",
    "PRISMA_RECONNECT_COOLDOWN_SECONDS": "1",
    "PRISMA_HEALTH_WATCHDOG_INTERVAL_SECONDS": "5",
}


def unhurried() -> dict[str, str]:
    """What LiteLLM takes for a lost database, 5 s and 2 s of silence, in time of this machine."""
    return {
        "PRISMA_HEALTH_WATCHDOG_PROBE_TIMEOUT_SECONDS": f"{5 * slowness():.1f}",
        "PRISMA_AUTH_RECONNECT_TIMEOUT_SECONDS": f"{2 * slowness():.1f}",
    }


@pytest.fixture(scope="session")
def environment() -> Environment:
    try:
        return ensure_environment()
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def tool_reader(upstream: Upstream) -> Iterator[None]:
    """vLLM's own parser behind the simulated server, for tests that offer tools."""
    try:
        with running(PLUGIN) as upstream.vllm:
            yield
    except NoLibraryError as reason:
        pytest.skip(str(reason))
    finally:
        upstream.vllm = None


@pytest.fixture(scope="session")
def postgres(environment: Environment) -> Iterator[Postgres]:
    with Postgres.copy_of(environment.pgdata) as server:
        yield server


class LaunchProxy(Protocol):
    """Start a proxy on a database, without waiting until it is up."""

    def __call__(self, database_url: str, master: str | None = None, salt: str | None = None) -> Proxy: ...


@pytest.fixture(scope="session")
def launch_proxy(
    environment: Environment, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LaunchProxy]:
    """Starts proxies, and stops them in the end."""
    with ExitStack() as stack:

        def launch(database_url: str, master: str | None = None, salt: str | None = None) -> Proxy:
            proxy = Proxy(
                environment=environment,
                directory=tmp_path_factory.mktemp("proxy"),
                files=files_at(upstream.url),
                database_url=database_url,
                master_key=master or master_key(),
                salt_key=salt or master_key(),
                variables=FAST | unhurried(),
            )
            return stack.enter_context(proxy.launch())

        yield launch


@dataclass(frozen=True)
class Replicas:
    """Two proxies on one database. The second starts while the first is at work already."""

    first: Proxy
    starting: Proxy

    @property
    def second(self) -> Proxy:
        """The other one, once it is up."""
        return self.starting.wait()


@pytest.fixture(scope="session")
def proxy(postgres: Postgres, launch_proxy: LaunchProxy) -> Proxy:
    """The shared one, on a database of its own."""
    return launch_proxy(_new_database(postgres)).wait()


@pytest.fixture(scope="session")
def replicas(postgres: Postgres, launch_proxy: LaunchProxy) -> Replicas:
    """Two of one gateway, for the tests that break one of them or their database."""
    url = _new_database(postgres)
    first = launch_proxy(url).wait()
    return Replicas(first, launch_proxy(url, first.master_key, first.salt_key))


def _new_database(postgres: Postgres) -> str:
    name = f"gateway_{secrets.token_hex(3)}"
    postgres.create_database(name, template="template")
    return postgres.url(name)
