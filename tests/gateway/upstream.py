"""A simulated model server: OpenAI's routes as vLLM and TEI answer them, and a record of what it was asked.

Usage is reported only where the real engines report it (a stream tells it when asked to), every response has an
id of its own, and it can be made slow, failing or silent per served name.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.components.vllm_library import Vllm

Json = dict[str, Any]
ARGUMENTS = '{"path": "README.md"}'  # of the tool that is called


@dataclass(frozen=True)
class Usage:
    """Tokens that a response reports."""

    prompt: int = 1000
    completion: int = 500


@dataclass(frozen=True)
class Behaviour:
    """How one served name answers."""

    usage: Usage = Usage()
    delay: float = 0  # seconds before the first byte
    status: int = 200
    chunks: int = 3  # words of a stream
    interval: int = 1  # of them a chunk, after the first that comes alone: vLLM's --stream-interval
    chunk_delay: float = 0
    cut: bool = False  # a stream ends in the middle, without usage or [DONE]
    # What the model writes when tools are offered, and which parser of vLLM reads it.
    writes: str = 'I look.\n\n```json\n{"name": "read_file", "arguments": {"path": "README.md"}}\n```'
    parser: str = "qwen2_5_coder"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Json
    connection: int  # port of the client's end

    @property
    def served_name(self) -> str:
        return str(self.body.get("model"))

    @property
    def raw(self) -> str:
        """Everything of it as text, to search for what must not be there."""
        return f"{self.path} {dict(self.headers)} {json.dumps(self.body)}"


class Upstream:
    """One server for any number of served names; `url` is its base without `/v1`."""

    def __init__(self, port: int = 0, handler: type[UpstreamHandler] | None = None) -> None:
        self.seen: list[Seen] = []
        self.vllm: Vllm | None = None  # what reads calls of tools
        self._behaviours: dict[str, Behaviour] = {}
        self._ids = itertools.count(1)
        self.in_flight = 0
        self._lock = threading.Lock()
        upstream = self

        class Handler(handler or UpstreamHandler):
            owner = upstream

        self._server = _Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def behaviour(self, served_name: str) -> Behaviour:
        return self._behaviours.get(served_name, Behaviour())

    @contextmanager
    def behaving(self, served_name: str, behaviour: Behaviour) -> Generator[None]:
        """Answer `served_name` so for the length of the block."""
        before = self._behaviours.get(served_name, Behaviour())
        self._behaviours[served_name] = behaviour
        try:
            yield
        finally:
            self._behaviours[served_name] = before

    @contextmanager
    def recording(self) -> Generator[list[Seen]]:
        """The requests that arrive within the block."""
        start = len(self.seen)
        window: list[Seen] = []
        try:
            yield window
        finally:
            window.extend(self.seen[start:])

    def next_id(self) -> int:
        with self._lock:
            return next(self._ids)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class UpstreamHandler(BaseHTTPRequestHandler):
    """What answers; a server of other routes has one that extends it."""

    owner: Upstream
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent: `seen` is the log."""

    def do_GET(self) -> None:
        self.send_json({"object": "list", "data": []})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if (self.headers.get("content-type") or "").startswith("multipart/form-data"):
            self.form(raw)
            return
        body: Json = json.loads(raw or b"{}")
        seen = Seen(
            self.path, {name.lower(): value for name, value in self.headers.items()}, body, self.client_address[1]
        )
        self.owner.seen.append(seen)
        behaviour = self.owner.behaviour(seen.served_name)
        time.sleep(behaviour.delay)
        if behaviour.status != 200:
            message = f"simulated failure {behaviour.status}"
            self.send_json({"error": {"message": message, "type": "server_error"}}, behaviour.status)
        else:
            self.answer(body)

    def form(self, raw: bytes) -> None:
        """A body that is a form."""
        self.send_json({"error": {"message": f"no form on {self.path}", "type": "NotFoundError"}}, 404)

    def answer(self, body: Json) -> None:
        """A body in JSON."""
        behaviour = self.owner.behaviour(str(body.get("model")))
        if self.path == "/v1/chat/completions":
            self._chat(body, behaviour)
        elif self.path == "/v1/completions":
            self._completion(body, behaviour)
        elif self.path == "/v1/embeddings":
            self._embeddings(body, behaviour)
        else:
            self.send_json({"error": {"message": f"no route {self.path}", "type": "NotFoundError"}}, 404)

    def _chat(self, body: Json, behaviour: Behaviour) -> None:
        head = {"id": f"chatcmpl-{self.owner.next_id()}", "created": int(time.time()), "model": body["model"]}
        if body.get("stream"):
            deltas, reason = self._deltas(body, behaviour)
            said: list[Json] = [{"delta": delta, "finish_reason": None} for delta in deltas]
            said.append({"delta": {}, "finish_reason": reason})
            self._stream({**head, "object": "chat.completion.chunk"}, _each(said, body), body, behaviour)
            return
        message: Json = {"role": "assistant", "content": "hello"}
        reason = "stop"
        answered = any(turn.get("role") == "tool" for turn in body["messages"])
        if body.get("tools") and not answered:
            content, calls = self._called(body, behaviour)
            message["content"] = content
            if calls:
                message["tool_calls"] = [
                    {
                        "id": f"call-{self.owner.next_id()}",
                        "type": "function",
                        "function": {"name": name, "arguments": json.dumps(arguments)},
                    }
                    for name, arguments in calls
                ]
                reason = "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        self.send_json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(behaviour.usage)})

    def _called(self, body: Json, behaviour: Behaviour) -> tuple[str | None, list[tuple[str, Any]]]:
        """Text and calls: where a call is required a grammar makes one, else vLLM reads what the model wrote."""
        if body.get("tool_choice") == "required":
            return None, [(body["tools"][0]["function"]["name"], {"path": "README.md"})]
        vllm = self.owner.vllm
        assert vllm is not None, "a test that offers tools takes the fixture `tool_reader`"
        return vllm.answer([behaviour.writes], body["tools"], parser=behaviour.parser)

    def _deltas(self, body: Json, behaviour: Behaviour) -> tuple[list[Json], str]:
        """What a stream of chat says, and why it ends."""
        role = {"role": "assistant", "content": ""}
        if not body.get("tools"):
            return [role, *({"content": text} for text in _pieces(_words(behaviour), behaviour))], "stop"
        function = {"name": body["tools"][0]["function"]["name"], "arguments": ""}
        call = {"id": f"call-{self.owner.next_id()}", "type": "function", "index": 0, "function": function}
        pieces = _pieces(list(ARGUMENTS), behaviour)
        calls = [call, *({"index": 0, "function": {"arguments": piece}} for piece in pieces)]
        return [role, *({"tool_calls": [each]} for each in calls)], "tool_calls"

    def _completion(self, body: Json, behaviour: Behaviour) -> None:
        head = {"id": f"cmpl-{self.owner.next_id()}", "object": "text_completion", "created": int(time.time())}
        head["model"] = body["model"]
        if body.get("stream"):
            said: list[Json] = [{"text": text, "finish_reason": None} for text in _pieces(_words(behaviour), behaviour)]
            self._stream(head, _each([*said, {"text": "", "finish_reason": "stop"}], body), body, behaviour)
            return
        choice = {"index": 0, "text": "return a + b", "finish_reason": "stop", "logprobs": None}
        self.send_json({**head, "choices": [choice], "usage": _usage(behaviour.usage)})

    def _embeddings(self, body: Json, behaviour: Behaviour) -> None:
        inputs: list[Any] = body["input"]
        data = [{"object": "embedding", "index": n, "embedding": [0.25, float(n)]} for n in range(len(inputs))]
        usage = {"prompt_tokens": behaviour.usage.prompt, "total_tokens": behaviour.usage.prompt}
        self.send_json({"object": "list", "model": body["model"], "data": data, "usage": usage})

    def _stream(self, head: Mapping[str, Any], choices: list[Json], body: Json, behaviour: Behaviour) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if behaviour.cut:
            choices = choices[:2]
        for choice in choices:
            self._event({**head, "choices": [choice]})
            time.sleep(behaviour.chunk_delay)
        if not behaviour.cut:
            options: Json = body.get("stream_options") or {}
            if options.get("include_usage"):
                self._event({**head, "choices": [], "usage": _usage(behaviour.usage)})
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: Mapping[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def send_json(self, answer: Mapping[str, Any], status: int = 200) -> None:
        """An answer."""
        self.send_bytes(json.dumps(answer).encode(), status)

    def send_bytes(self, content: bytes, status: int = 200) -> None:
        """An answer that is JSON already."""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _words(behaviour: Behaviour) -> list[str]:
    return [f"w{number} " for number in range(behaviour.chunks)]


def _pieces(parts: Sequence[str], behaviour: Behaviour) -> list[str]:
    """A text in the chunks of a stream: the first part alone, then so many at a time."""
    step = behaviour.interval
    return [*parts[:1], *("".join(parts[at : at + step]) for at in range(1, len(parts), step))]


def _each(said: Sequence[Json], body: Json) -> list[Json]:
    """Every part of every choice that was asked for, a chunk each, as vLLM sends them."""
    return [{"index": index, **part} for part in said for index in range(body.get("n") or 1)]


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
