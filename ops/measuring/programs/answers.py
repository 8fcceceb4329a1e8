"""What a model answers to a list of requests. The program of `ops eval` that asks; standard library alone.

`requests.json.gz`, beside it, is a list of requests: id, path, body, and for a loop of tools `tools`: what each call
gives, by the tool's name and its arguments as JSON, "" for any others. Such a request goes on until the model says
something without a call, or has had its turns.

Environment: MEASURE_URL, MEASURE_KEY, MEASURE_TASK (JSON: model, streams).
The last line is RESULT and a list as JSON: id, text, calls, finish_reason, error.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # what lies beside it, however this file is run

from asking import Server

Json = dict[str, Any]
_HERE = Path(__file__).resolve().parent
TURNS = 6  # of a loop of tools
_PATIENCE_S = 600  # with an answer
_EVERY = 20  # answers between two lines that tell how far it is


async def answered(server: Server, request: Json) -> Json:
    """One request, to its last turn."""
    found: Json = {"id": request["id"], "text": "", "calls": [], "finish_reason": None, "error": ""}
    body = request["body"]
    try:
        for _ in range(TURNS):
            said = await asyncio.wait_for(server.ask(request["path"], body), _PATIENCE_S)
            choice = said["choices"][0]
            message: Json = choice.get("message") or {}
            found["finish_reason"] = choice.get("finish_reason")
            found["text"] = choice.get("text") or message.get("content") or ""
            calls: list[Json] = message.get("tool_calls") or []
            if not calls or "tools" not in request:
                return found
            replies = [_reply(call, request["tools"], found["calls"]) for call in calls]
            spoken = {"role": "assistant", "content": message.get("content") or "", "tool_calls": calls}
            body = {**body, "messages": [*body["messages"], spoken, *replies]}
        found["error"] = f"it still calls tools after {TURNS} turns"
    except (OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _reply(call: Json, tools: Json, calls: list[Json]) -> Json:
    """What a call gives, which is noted. Raises ValueError for arguments that are no JSON."""
    name, given = call["function"]["name"], call["function"].get("arguments") or "{}"
    arguments = json.loads(given) if isinstance(given, str) else given
    calls.append({"name": name, "arguments": arguments})
    known = tools.get(name)
    if known is None:
        said = f"error: there is no tool {name}"
    else:
        said = known.get(json.dumps(arguments, sort_keys=True), known.get("", "error: wrong arguments"))
    return {"role": "tool", "tool_call_id": call.get("id", ""), "content": said}


async def main() -> int:
    """0 when all were answered, 1 where none was."""
    task: Json = json.loads(os.environ["MEASURE_TASK"])
    server = Server(os.environ["MEASURE_URL"], os.environ["MEASURE_KEY"], task["model"])
    requests: list[Json] = json.loads(gzip.decompress((_HERE / "requests.json.gz").read_bytes()))
    limit, done = asyncio.Semaphore(task["streams"]), list[Json]()

    async def one(request: Json) -> None:
        async with limit:
            done.append(await answered(server, request))
        if len(done) % _EVERY == 0:
            sys.stdout.write(f"{len(done)} of {len(requests)} answers\n")
            sys.stdout.flush()

    await asyncio.gather(*(one(request) for request in requests))
    if all(answer["error"] for answer in done):
        sys.stdout.write(f"{server.url} answers nothing: {done[0]['error']}\n")
        return 1
    sys.stdout.write(f"RESULT {json.dumps(done, separators=(',', ':'))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
