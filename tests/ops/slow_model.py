"""A simulated server of known pace: `python slow_model.py PORT`. A word is a token.

A request waits for one of `SLOTS`, is read for `FIRST_S`, and then gets a token every `TOKEN_S`, so what it does under
any load can be computed. It answers chats and completions that are not streamed with what `SAYS` has for the prompt.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

SLOTS, FIRST_S, TOKEN_S = 4, 0.1, 0.02
KEY = "sk-slow"
Json = dict[str, Any]


async def serve(port: int) -> None:
    """Answer until cancelled; say when it listens."""
    slots = asyncio.Semaphore(SLOTS)
    says: dict[str, Json] = json.loads(os.environ.get("SAYS", "{}"))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body: Json = json.loads(await reader.readexactly(int(headers["content-length"])))
            if headers.get("authorization") != f"bearer {KEY}":
                writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 7\r\n\r\nbad key")
            elif body.get("stream"):
                async with slots:
                    await _stream(body, writer)
            else:
                text = json.dumps(_answer(body, says)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port, backlog=256)
    async with server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


def _answer(body: Json, says: dict[str, Json]) -> Json:
    """What is said of the first part of a prompt that it finds in it; else nothing but a count."""
    asked = body.get("prompt") or json.dumps(body.get("messages"))
    said = next((answer for part, answer in says.items() if part in asked), {"content": ""})
    choice = {"index": 0, "finish_reason": "stop", "text": said.get("content") or "", "message": said}
    return {"choices": [choice], "usage": {"prompt_tokens": len(asked.split()), "completion_tokens": 1}}


async def _stream(body: Json, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(data: Json | str) -> None:
        text = b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"
        for half in (text[:10], text[10:]):  # an event may come in two chunks
            writer.write(b"%x\r\n%b\r\n" % (len(half), half))

    loop = asyncio.get_running_loop()
    due = loop.time() + FIRST_S
    for number in range(body["max_tokens"]):
        await asyncio.sleep(due + number * TOKEN_S - loop.time())
        event({"choices": [{"index": 0, "text": f"w{number} ", "finish_reason": None}]})
        await writer.drain()
    event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    usage = {"prompt_tokens": len(body["prompt"].split()), "completion_tokens": body["max_tokens"]}
    event({"choices": [], "usage": usage})
    event("[DONE]")
    writer.write(b"0\r\n\r\n")


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
