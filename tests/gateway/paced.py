"""A simulated vLLM that streams at a pace: every sequence gets its token at each step of one clock, as in a batch.

The prompt says how it is answered (`Pace.prompt`), so nothing but the prompt has to pass the gateway. A chunk begins
with the time at which it was sent, which the client of the same machine compares with its own clock.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Pace:
    """How one request is answered."""

    tokens: int  # of the answer
    per_s: float  # tokens a second
    interval: int = 1  # tokens a chunk after the first: vLLM's --stream-interval

    @property
    def prompt(self) -> str:
        """The text that asks for it."""
        return json.dumps(asdict(self))

    @property
    def chunks(self) -> Iterator[tuple[int, int]]:
        """The step that each chunk is sent at, and its tokens: the first at once, then every `interval`, the rest."""
        yield 1, 1
        sent = 1
        while sent < self.tokens:
            count = min(self.interval, self.tokens - sent)
            sent += count
            yield sent, count


def text_of(tokens: int, number: itertools.count[int]) -> str:
    """Words that differ, since LiteLLM ends a stream of equal chunks; the first of them is the time in µs."""
    return f"t{time.monotonic_ns() // 1000} " + "".join(f"w{next(number)} " for _ in range(tokens - 1))


async def serve(port: int) -> None:
    """Answer until cancelled."""
    server = await asyncio.start_server(_connection, "127.0.0.1", port, backlog=256)
    async with server:
        await server.serve_forever()


_ids = itertools.count(1)


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body: Json = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
            if body.get("model"):
                await _answer(lines[0].split()[1], body, writer)
            else:  # a look at the server
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(path: str, body: Json, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chat = path.endswith("/chat/completions")
    pace = Pace(**json.loads(body["messages"][0]["content"] if chat else body["prompt"]))
    number = itertools.count(1)
    head: Json = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{next(_ids)}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": int(time.time()),
        "model": body["model"],
    }

    def event(data: Json) -> None:
        text = b"data: " + json.dumps({**head, **data}, separators=(",", ":")).encode() + b"\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(text), text))

    def choice(text: str, reason: str | None) -> Json:
        said: Json = {"delta": {"content": text}} if chat else {"text": text}
        more: Json = {"token_ids": None} if chat else {"stop_reason": None, "token_ids": None}
        return {"choices": [{"index": 0, **said, "logprobs": None, "finish_reason": reason, **more}]}

    if chat:
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        event({"choices": [role], "prompt_token_ids": None})
    # One clock for all: a step gives each sequence a token.
    first = int(time.monotonic() * pace.per_s)
    for step, tokens in pace.chunks:
        await asyncio.sleep((first + step) / pace.per_s - time.monotonic())
        event(choice(text_of(tokens, number), "length" if step == pace.tokens else None))
        await writer.drain()
    options: Json = body.get("stream_options") or {}
    if options.get("include_usage"):
        usage = {"prompt_tokens": 100, "completion_tokens": pace.tokens, "total_tokens": 100 + pace.tokens}
        event({"choices": [], "usage": usage})
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
