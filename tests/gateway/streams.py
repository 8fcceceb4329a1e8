"""What one proxy replica adds to paced streams, and what a chunk of them costs it; part of `make gateway-load`.

A simulated engine writes a token for each stream at each step of one clock, so and so many a chunk (`paced.py`). The
same streams are taken bare and through a real LiteLLM, by a key with a budget and limits, and the proxy's CPU time is
read from the kernel. That figure stays about true while other work shares the cores; the delays do not.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from models.tasks import Task
from tests.gateway.paced import Pace
from tests.gateway.rendered import SERVED

TOKENS = 400  # of a stream
TOKENS_PER_S = 62.5  # of a stream: 64 of them are the 4,000 a second that one gateway is to carry
_STAMP = re.compile(rb'"(?:content|text)":\s*"t(\d+) ')


@dataclass(frozen=True)
class Target:
    """Where streams come from."""

    url: str
    key: str
    model: str
    task: Task

    @property
    def route(self) -> str:
        return "/v1/completions" if self.task is Task.FIM else "/v1/chat/completions"

    def request(self, pace: Pace) -> bytes:
        """A whole HTTP request for one stream."""
        said = (
            {"prompt": pace.prompt}
            if self.task is Task.FIM
            else {"messages": [{"role": "user", "content": pace.prompt}]}
        )
        body = json.dumps({"model": self.model, **said, "stream": True, "max_tokens": pace.tokens}).encode()
        head = f"POST {self.route} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {self.key}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Taken:
    """What came of some streams in the window that was looked at; ms."""

    opens: float  # on the monotonic clock, seconds
    closes: float
    first: list[float] = field(default_factory=list[float])  # from the request to the first token
    gaps: list[float] = field(default_factory=list[float])  # between two chunks of a stream
    late: list[float] = field(default_factory=list[float])  # from when a chunk was sent
    tokens: int = 0
    streams: int = 0  # that ended
    failed: int = 0
    cpu_s: float = 0  # of the proxy

    def within(self, moment: float) -> bool:
        return self.opens <= moment < self.closes


async def take(target: Target, pace: Pace, streams: int, seconds: float, cpu: Callable[[], float]) -> Taken:
    """So many clients, each of which asks for its next stream when the last one ends, looked at for so many seconds.

    They begin one after the other within the time that a stream takes, and are looked at from then on: streams begin
    and end evenly, as in a closed loop that has been going on.
    """
    begins = pace.tokens / pace.per_s
    opens = time.monotonic() + begins
    taken = Taken(opens, opens + seconds)

    async def client(number: int) -> None:
        await asyncio.sleep(number / streams * begins)
        while True:
            await _one(target, pace, taken)

    clients = [asyncio.create_task(client(number)) for number in range(streams)]
    await asyncio.sleep(opens - time.monotonic())
    before = cpu()
    await asyncio.sleep(taken.closes - time.monotonic())
    taken.cpu_s = cpu() - before
    for task in clients:
        task.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    taken.failed += sum(not isinstance(end, asyncio.CancelledError) for end in ends)  # a connection that broke
    return taken


async def _one(target: Target, pace: Pace, taken: Taken) -> None:
    address = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    asked, before, done = time.monotonic(), 0.0, False
    writer.write(target.request(pace))
    sizes = iter([tokens for _, tokens in pace.chunks])
    try:
        while not done and (line := await reader.readline()):
            if stamp := _STAMP.search(line):
                now = time.monotonic()
                tokens = next(sizes)
                if taken.within(now):
                    taken.tokens += tokens
                    taken.late.append(now * 1000 - int(stamp[1]) / 1000)
                    if before:
                        taken.gaps.append((now - before) * 1000)
                    elif taken.within(asked):
                        taken.first.append((now - asked) * 1000)
                before = now
            done = line.startswith(b"data: [DONE]")
    finally:
        writer.close()
    whole = done and next(sizes, None) is None
    taken.failed += not whole
    taken.streams += whole and taken.within(time.monotonic())


def percentile(values: list[float], percent: int) -> float:
    """Of values in any order; 0 of none."""
    found = sorted(values)
    return found[min(len(found) - 1, len(found) * percent // 100)] if found else 0.0


COLUMNS = (
    "streams", "tokens a chunk", "tokens/s written", "tokens/s through", "CPU ms a chunk", "cores",
    "TTFT added p50 ms", "p95", "ITL added p50 ms", "p95", "a chunk on its way p95 ms", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """What the proxy takes beside chunks."""

    idle: float  # cores, with nothing to do: its timers, and its database's
    request_ms: float  # CPU of a stream of one chunk


@dataclass(frozen=True)
class Bench:
    """A proxy, what it is compared with, and how its CPU time is read."""

    bare_url: str
    proxy_url: str
    key: str
    cpu_seconds: Callable[[], float]
    line: Callable[[str], None]

    def targets(self, alias: str) -> tuple[Target, Target]:
        spec = SERVED[alias]
        return (
            Target(self.bare_url, "any", spec.served_name, spec.task),
            Target(self.proxy_url, self.key, alias, spec.task),
        )

    def idle_cores(self, seconds: float) -> float:
        """Of a proxy with nothing to do."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds

    def request_ms(self, alias: str, seconds: float, idle: float) -> float:
        """CPU of a stream of one chunk, ms."""
        _, through = self.targets(alias)
        taken = asyncio.run(take(through, Pace(1, TOKENS_PER_S), 4, seconds, self.cpu_seconds))
        return (taken.cpu_s - idle * seconds) * 1000 / taken.streams

    def row(self, alias: str, pace: Pace, streams: int, seconds: float, beside: Beside) -> None:
        """Print one row."""
        bare_target, through_target = self.targets(alias)
        bare = asyncio.run(take(bare_target, pace, streams, seconds, lambda: 0))
        got = asyncio.run(take(through_target, pace, streams, seconds, self.cpu_seconds))
        chunks_ms = (got.cpu_s - beside.idle * seconds) * 1000 - beside.request_ms * got.streams
        # Of a few chunks the rest is noise.
        a_chunk = f"{chunks_ms / len(got.gaps):.2f}" if got.gaps and chunks_ms > 250 * got.cpu_s else "-"
        added = [
            f"{percentile(through, percent) - percentile(alone, percent):.1f}" if through and alone else "-"
            for through, alone in ((got.first, bare.first), (got.gaps, bare.gaps))
            for percent in (50, 95)
        ]
        cells = (
            f"{streams}", f"{pace.interval}", f"{bare.tokens / seconds:,.0f}", f"{got.tokens / seconds:,.0f}", a_chunk,
            f"{got.cpu_s / seconds:.2f}", *added, f"{percentile(got.late, 95):.1f}", f"{bare.failed + got.failed}",
        )  # fmt: skip
        self.line(f"| {' | '.join(cells)} |")

    def table(self, alias: str, counts: list[int], intervals: list[int], seconds: float) -> None:
        """Print the table of one model."""
        task = "FIM, /v1/completions" if SERVED[alias].task is Task.FIM else "chat"
        self.request_ms(alias, 3, 0)  # caches, connections
        idle = self.idle_cores(seconds)
        beside = Beside(idle, self.request_ms(alias, seconds, idle))
        self.line("")
        self.line(
            f"{alias} ({task}): streams of {TOKENS} tokens at {TOKENS_PER_S:g} a second; {beside.request_ms:.1f} ms of "
            "CPU a stream beside its chunks"
        )
        self.line("")
        self.line(f"| {' | '.join(COLUMNS)} |")
        self.line("| --- " * len(COLUMNS) + "|")
        for interval in intervals:
            for count in counts:
                self.row(alias, Pace(TOKENS, TOKENS_PER_S, interval), count, seconds, beside)
