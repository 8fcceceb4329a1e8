"""How much one proxy replica adds to a request, and how many it serves: `make gateway-load`.

Measures a simulated model server (so that its own time is small and constant) bare, then through a real LiteLLM on
a real PostgreSQL with the rendered config, every request by a key with a budget and limits. All of it shares this
machine's cores, so a figure is a lower bound of what a replica does on cores of its own. Prints Markdown tables: of
whole answers, and of streams (`streams.py`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.gateway.reconcile_keys import ROUTES
from tests.gateway.environment import ROOT, ensure_environment
from tests.gateway.postgres import Postgres, free_port, terminate
from tests.gateway.proxy import Proxy, master_key
from tests.gateway.rendered import SERVED, files_at
from tests.gateway.streams import Bench
from tests.gateway.upstream import Upstream

ALIAS = "coder-chat"
STREAMED = ("coder-chat", "coder-fim")


@dataclass(frozen=True)
class Result:
    """One run."""

    rps: float
    latencies_ms: list[float]  # of successful requests, sorted
    failed: int

    def percentile(self, percent: int) -> float:
        return self.latencies_ms[min(len(self.latencies_ms) - 1, len(self.latencies_ms) * percent // 100)]


def run(url: str, key: str, model: str, clients: int, seconds: float) -> Result:
    """Closed loop: each client sends its next request when the last is answered, on one kept connection."""
    address = urlsplit(url)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    latencies: list[float] = []
    failures: list[int] = []
    stop = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        while time.monotonic() < stop:
            started = time.monotonic()
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                latencies.append((time.monotonic() - started) * 1000)
            else:
                failures.append(response.status)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(len(latencies) / (time.monotonic() - started), sorted(latencies), len(failures))


def serve(port: int) -> None:
    """The simulated model server in a process of its own."""
    with Upstream(port):
        threading.Event().wait()


@contextmanager
def server(*command: str) -> Generator[str]:
    """A simulated model server in a process of its own; its URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, str(port)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        terminate(process)


@contextmanager
def proxy_to(url: str) -> Generator[tuple[Proxy, str]]:
    """A proxy with every model at one URL, and a key with a budget and limits."""
    environment = ensure_environment()
    with tempfile.TemporaryDirectory() as directory, Postgres.copy_of(environment.pgdata) as postgres:
        postgres.create_database("load", template="template")
        proxy = Proxy(
            environment=environment,
            directory=Path(directory),
            files=files_at(url),
            database_url=postgres.url("load"),
            master_key=master_key(),
            salt_key=master_key(),
            variables={"PYTHONPATH": ""},  # collects garbage as it does in the cluster
        )
        with proxy.launch().wait():
            limits = {"max_budget": 1e6, "budget_duration": "30d", "rpm_limit": 10**9, "tpm_limit": 10**12}
            yield proxy, proxy.make_key([ALIAS, *STREAMED], allowed_routes=ROUTES, **limits)


def measure(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    cores, machine, version = os.cpu_count(), platform.machine(), platform.python_version()
    _line(f"{cores} cores, {machine}, Python {version}, {arguments.seconds:.0f} s a run; {busy()}")
    if arguments.clients:
        with server("tests.gateway.load", "--serve") as url, proxy_to(url) as (proxy, key):
            _table(url, proxy, key, arguments.clients, arguments.seconds)
    if arguments.streams:
        with server("tests.gateway.paced") as url, proxy_to(url) as (proxy, key):
            assert proxy.process
            pid = proxy.process.pid
            bench = Bench(url, proxy.url, key, lambda: _processor_seconds(pid), _line)
            for alias in STREAMED:
                bench.table(alias, arguments.streams, arguments.intervals, arguments.seconds)


def busy() -> str:
    """What else the cores do, before anything here does."""
    first = _idle_and_all()
    time.sleep(3)
    idle, whole = (after - before for before, after in zip(first, _idle_and_all(), strict=True))
    return f"other work took {100 * (1 - idle / whole):.0f} % of them as it began"


def _idle_and_all() -> tuple[int, int]:
    times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def _table(bare_url: str, proxy: Proxy, key: str, clients: list[int], seconds: float) -> None:
    assert proxy.process
    run(proxy.url, key, ALIAS, 4, 5)  # caches, connections
    _line("")
    columns = ("clients", "bare rps", "bare p50 ms", "through rps", "p50 ms", "p95 ms", "added p50 ms", "added p95 ms")
    columns = (*columns, "CPU ms a request", "failed")
    _line(f"| {' | '.join(columns)} |")
    _line("| --- " * len(columns) + "|")
    for count in clients:
        bare = run(bare_url, "sk-any", SERVED[ALIAS].served_name, count, seconds)
        before = _processor_seconds(proxy.process.pid)
        through = run(proxy.url, key, ALIAS, count, seconds)
        spent = (_processor_seconds(proxy.process.pid) - before) * 1000 / len(through.latencies_ms)
        p50, p95 = through.percentile(50), through.percentile(95)
        _line(
            f"| {count} | {bare.rps:.0f} | {statistics.median(bare.latencies_ms):.1f} | {through.rps:.0f} | {p50:.1f} "
            f"| {p95:.1f} | {p50 - bare.percentile(50):.1f} | {p95 - bare.percentile(95):.1f} "
            f"| {spent:.1f} | {bare.failed + through.failed} |"
        )


def _processor_seconds(pid: int) -> float:
    """User and system time of a process and of its running children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    words = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in (str(pid), *children)]
    return sum(int(stat[11]) + int(stat[12]) for stat in words) / os.sysconf("SC_CLK_TCK")


def _line(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16, 64], help="whole answers at once")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8, 32, 64], help="streams at once")
    parser.add_argument("--intervals", type=int, nargs="+", default=[1, 8], help="tokens a chunk")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
