"""How fast a model is under load, in the words of GuideLLM. The program of `ops bench`; standard library alone.

A sweep: `synchronous` (a request at a time), `throughput` (a closed loop of so many streams), then `constant` rates
between the two (an open loop: a request leaves at its time, whatever became of those before), until the server does not
keep up. Each runs for the same time, the first tenth of which is not counted. Tokens are counted when they come, so
that requests at the edges count for what of them is inside; read ones count with the first token.

Environment: MEASURE_URL, MEASURE_KEY, MEASURE_TASK (JSON: model, shapes, streams, duration_s, rates).
Prints what it does, a line a run; the last line is RESULT and the measurement as JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # what lies beside it, however this file is run

from asking import Answer, Server

Json = dict[str, Any]
WARM_UP = 0.1  # share of a run that is not counted
KEEPS_UP = 0.95  # of the requests offered: below that it is saturated
_PERCENTILES = (50, 90, 95, 99)
# fmt: off
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state",
    "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company",
    "system", "program", "question", "work", "government", "number", "night", "point", "home", "water", "room",
    "mother", "area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word",
    "business", "issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game",
    "line", "end", "member", "law", "car", "city",
)
# fmt: on


def prompt(words: int) -> str:
    """Words in an order of their own, so that no cache of prefixes helps."""
    return " ".join(random.choices(_WORDS, k=max(1, words)))  # noqa: S311  no secret


def percentiles(values: Sequence[float]) -> Json:
    """Mean and percentiles, in milliseconds; between two values in proportion."""
    found = sorted(1000 * value for value in values)
    if not found:
        return {}

    def at(percent: int) -> float:
        place = (len(found) - 1) * percent / 100
        low, high = found[math.floor(place)], found[math.ceil(place)]
        return low + (high - low) * (place - math.floor(place))

    return {
        "mean": round(sum(found) / len(found), 3),
        **{f"p{percent}": round(at(percent), 3) for percent in _PERCENTILES},
    }


async def calibrate(server: Server, tokens: int) -> int:
    """Words of a prompt of so many tokens, by the server's own count. Raises OSError where it does not answer."""

    async def counted(words: int) -> int:
        body = {"prompt": prompt(words), "max_tokens": 1, "temperature": 0}
        return int((await server.ask("/v1/completions", body)).get("usage", {}).get("prompt_tokens", 0))

    few, more = 8, 40
    first, second = await counted(few), await counted(more)
    slope = (second - first) / (more - few)
    if slope <= 0:
        raise OSError(f"{few} words are {first} tokens to the server and {more} are {second}: it does not count them")
    words = max(1, round((tokens - first) / slope) + few)
    return max(1, round(words + (tokens - await counted(words)) / slope))


class Run:
    """One strategy, for so many seconds."""

    def __init__(self, server: Server, shape: Json, words: int, duration: float) -> None:
        self.server, self.shape, self.words, self.duration = server, shape, words, duration
        self.answers: list[Answer] = []

    async def one(self) -> None:
        """A request from its first byte to its last token."""
        answer = Answer(time.monotonic())
        self.answers.append(answer)
        output = self.shape["output_tokens"]
        body = {"prompt": prompt(self.words), "max_tokens": output, "temperature": 0, "ignore_eos": True}
        await self.server.stream(answer, body)
        if answer.error:
            await asyncio.sleep(0.1)  # a server that refuses is not asked a thousand times a second

    async def closed(self, streams: int) -> Json:
        """So many streams, each asking again when it has its answer."""

        async def stream() -> None:
            while True:
                await self.one()

        start = time.monotonic()
        tasks = [asyncio.create_task(stream()) for _ in range(streams)]
        await asyncio.sleep(self.duration)
        await _cancel(tasks)
        name = "synchronous" if streams == 1 else "throughput"
        return {"strategy": name, "streams": streams, **self.judged(start)}

    async def open(self, rate: float) -> Json:
        """So many requests a second, at equal distances."""
        start, tasks = time.monotonic(), list[asyncio.Task[None]]()
        while (due := start + len(tasks) / rate) < start + self.duration:
            await asyncio.sleep(due - time.monotonic())
            tasks.append(asyncio.create_task(self.one()))
        await asyncio.sleep(start + self.duration - time.monotonic())
        await asyncio.wait(tasks, timeout=self.duration)
        await _cancel([task for task in tasks if not task.done()])
        found = self.judged(start, until_done=True)
        # In a steady state as many leave as come.
        saturated = found["requests_per_second"] < KEEPS_UP * rate - 1 / self.duration
        return {"strategy": "constant", "rate": round(rate, 4), "saturated": saturated, **found}

    def judged(self, start: float, *, until_done: bool = False) -> Json:
        """What came between the warm-up and the end; with `until_done`, latencies of what began there too."""
        begin, end = start + self.duration * WARM_UP, start + self.duration
        whole = [answer for answer in self.answers if answer.whole]
        counted = [a for a in whole if a.began >= begin and (until_done or (a.ended or end) < end)]
        chunks = sum(len(answer.chunks) for answer in whole)
        a_chunk = sum(answer.output_tokens for answer in whole) / chunks if chunks else 1.0
        words = sum(answer.prompt_tokens for answer in whole) / len(whole) if whole else 0.0
        output = sum(answer.output_tokens for answer in whole) / len(whole) if whole else 0.0
        written = a_chunk * sum(begin <= moment < end for answer in self.answers for moment in answer.chunks)
        read = words * sum(begin <= answer.chunks[0] < end for answer in self.answers if answer.chunks)
        seconds, a_request = end - begin, words + output
        return {
            "seconds": round(seconds, 3),
            "requests": {
                "sent": len(self.answers),
                "completed": len(whole),
                "failed": sum(bool(answer.error) for answer in self.answers),
                "counted": len(counted),
            },
            "error": next((answer.error for answer in self.answers if answer.error), None),
            "prompt_tokens": round(words, 1),
            "output_tokens": round(output, 1),
            # By tokens, since a few whole requests are a coarse measure.
            "requests_per_second": round((read + written) / a_request / seconds, 4) if a_request else 0.0,
            "tokens_per_second": {
                "input": round(read / seconds, 2),
                "output": round(written / seconds, 2),
                "total": round((read + written) / seconds, 2),
            },
            "ttft_ms": percentiles([a.chunks[0] - a.began for a in counted]),
            "itl_ms": percentiles(
                [(a.chunks[-1] - a.chunks[0]) / (a.output_tokens - 1) for a in counted if a.output_tokens > 1]
            ),
            "e2e_ms": percentiles([a.chunks[-1] - a.began for a in counted]),
        }


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sweep(server: Server, shape: Json, task: Json) -> Json:
    """All runs of one shape of requests."""
    words, runs = await calibrate(server, shape["prompt_tokens"]), list[Json]()

    def run() -> Run:
        return Run(server, shape, words, task["duration_s"])

    def told(found: Json) -> Json:
        runs.append(found)
        total, ttft = found["tokens_per_second"]["total"], found["ttft_ms"].get("p95")
        what = f"{found['strategy']} {found.get('rate') or found['streams']}"
        failed = f", {found['requests']['failed']} failed: {found['error']}" if found["error"] else ""
        line = f"{shape['name']}: {what}: {total:,.0f} tokens/s, TTFT p95 {ttft} ms, {found['requests']['counted']}"
        sys.stdout.write(f"{line} requests{failed}\n")
        sys.stdout.flush()
        return found

    alone = told(await run().closed(1))
    full = told(await run().closed(task["streams"])) if task["streams"] > 1 else alone
    low, high = alone["requests_per_second"], full["requests_per_second"]
    for step in range(1, task["rates"] + 1):
        rate = low + (high - low) * step / task["rates"]
        if not rate or told(await run().open(rate))["saturated"]:
            break
    return {**shape, "runs": runs}


async def main() -> int:
    """0 when it was measured, 1 where the server does not answer as it should."""
    task: Json = json.loads(os.environ["MEASURE_TASK"])
    server = Server(os.environ["MEASURE_URL"], os.environ["MEASURE_KEY"], task["model"])
    try:
        found = [await sweep(server, shape, task) for shape in task["shapes"]]
    except (OSError, EOFError, ValueError) as error:
        sys.stdout.write(f"{server.url} does not answer as a model does: {error or type(error).__name__}\n")
        return 1
    sys.stdout.write(f"RESULT {json.dumps(found, separators=(',', ':'))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
