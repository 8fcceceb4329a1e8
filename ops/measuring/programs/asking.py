"""One streamed completion, and when each part of it came. Of the standard library alone: it runs in a Job."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

Json = dict[str, Any]
_SHOWN = 300  # characters of a refusal
_LONGEST = 2**24  # bytes of a line


@dataclass
class Answer:
    """What came of a request. Times are seconds of the monotonic clock."""

    began: float
    chunks: list[float] = field(default_factory=list)  # when each part of the text was there
    ended: float | None = None  # None: it was cut off
    text: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0  # as the server counts them
    message: Json | None = None  # of a chat that was not streamed
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether it ended as it should."""
        return self.ended is not None and not self.error


@dataclass(frozen=True)
class Server:
    """Where a model answers, under the name that it serves by."""

    url: str  # "http://coder-chat.serving:8000"
    key: str
    model: str

    async def stream(self, answer: Answer, body: Json) -> Answer:
        """Ask `/v1/completions` and note what comes into `answer`, which is right up to any moment of a cancel."""
        asked = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **body}
        try:
            async for event in self._events("/v1/completions", asked):
                _note(answer, event)
            answer.ended = time.monotonic()
            if not answer.chunks:
                answer.error = answer.error or "the answer has no text"
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            answer.error = str(error)[:_SHOWN] or type(error).__name__
        return answer

    async def ask(self, path: str, body: Json) -> Json:
        """A whole answer. Raises OSError, EOFError or ValueError, with what the server says."""
        parts = [line async for line in self._lines(path, {"model": self.model, **body})]
        found: Any = json.loads(b"\n".join(parts))
        if not isinstance(found, dict):
            raise ValueError(f"the answer is no object: {found!r:.100}")
        return cast("Json", found)

    async def _events(self, path: str, body: Json) -> AsyncIterator[Json]:
        async for line in self._lines(path, body):
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield json.loads(data)

    async def _lines(self, path: str, body: Json) -> AsyncIterator[bytes]:
        """The lines of the body, each as soon as it is there. Raises OSError for a status that is not 200."""
        place = urlsplit(self.url)
        text = json.dumps(body).encode()
        head = (
            f"POST {place.path}{path} HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(place.hostname, place.port or 80, limit=_LONGEST)
        try:
            writer.write(head.encode() + text)
            await writer.drain()
            said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            pieces = _chunks(reader) if "transfer-encoding: chunked" in said else _rest(reader)
            status = said.split(" ", 2)[1]
            if status != "200":
                told = b"".join([piece async for piece in pieces]).decode(errors="replace")
                raise OSError(f"HTTP {status}: {told[:_SHOWN]}")
            left = b""
            async for piece in pieces:
                *lines, left = (left + piece).split(b"\n")
                for line in lines:
                    yield line
            if left:
                yield left
        finally:
            writer.close()


def _note(answer: Answer, event: Json) -> None:
    if event.get("error"):
        answer.error = json.dumps(event["error"])[:_SHOWN]
    usage: Json = event.get("usage") or {}
    answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
    answer.output_tokens = usage.get("completion_tokens", answer.output_tokens)
    for choice in event.get("choices") or ():
        # The last chunk of some servers says why it ended, and has no text.
        if choice.get("text") or not choice.get("finish_reason"):
            answer.chunks.append(time.monotonic())
        answer.text += choice.get("text") or ""


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(65536):
        yield piece
