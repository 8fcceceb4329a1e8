"""A simulated server of the models that chat nothing: vLLM's routes of speech, TEI's of reranking, and what they saw.

Answers have the fields that vLLM 0.23.0 (entrypoints/speech_to_text) and TEI 1.9 (router/src/http/types.rs) give them:
how long a recording is stands in `usage` of a transcription, as a text in every verbose one, and nowhere in a plain
translation.
"""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any

from tests.gateway.upstream import Json, Upstream, UpstreamHandler

_UNREADABLE = b"ftypM4A "  # begins what stands for a file that only ffmpeg reads; then its seconds


def wav(seconds: float) -> bytes:
    """A recording of silence."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * round(8000 * seconds))
    return written.getvalue()


def m4a(seconds: float) -> bytes:
    """A recording that the model's server can read, and LiteLLM's library cannot."""
    return b"\0\0\0\x20" + _UNREADABLE + struct.pack("<d", seconds)


def length_of(recording: bytes) -> float:
    """Seconds of either."""
    if _UNREADABLE in recording[:12]:
        return float(struct.unpack("<d", recording[12:20])[0])
    with wave.open(io.BytesIO(recording)) as file:
        return file.getnframes() / file.getframerate()


@dataclass(frozen=True)
class Heard:
    """A form as it arrived."""

    path: str
    authorization: str
    recording: bytes
    fields: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


class Kinds(Upstream):
    """One server; `heard` are the forms, `seen` the bodies in JSON."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        super().__init__(handler=_Handler)


class _Handler(UpstreamHandler):
    def answer(self, body: Json) -> None:
        if self.path == "/rerank":
            self._rerank(body)
        else:
            super().answer(body)

    def form(self, raw: bytes) -> None:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        fields: dict[str, list[str]] = {}
        recording = b""
        for part in message_from_bytes(head + raw).get_payload():
            named: Any = part
            name, content = named.get_param("name", header="content-disposition"), named.get_payload(decode=True)
            if named.get_filename():
                recording = content
            else:
                fields.setdefault(name, []).append(content.decode())
        owner: Any = self.owner
        owner.heard.append(Heard(self.path, self.headers["authorization"], recording, fields))
        seconds = length_of(recording)
        verbose = fields.get("response_format", ["json"])[-1] == "verbose_json"
        answer: Json = {"text": "hello" if self.path == "/v1/audio/translations" else "bonjour"}
        if verbose:
            answer |= {"duration": str(seconds), "language": "fr", "segments": [_segment(seconds)], "words": None}
        elif self.path == "/v1/audio/transcriptions":
            answer["usage"] = {"type": "duration", "seconds": math.ceil(seconds)}
        self.send_json(answer)

    def _rerank(self, body: Json) -> None:
        texts: list[str] = body["texts"]
        scores = [len(set(text.split()) & set(body["query"].split())) / 10 for text in texts]
        ranks: list[Json] = [{"index": n, "score": score} for n, score in enumerate(scores)]
        for rank in ranks if body.get("return_text") else ():
            rank["text"] = texts[rank["index"]]
        self.send_bytes(json.dumps(sorted(ranks, key=lambda rank: -rank["score"])).encode())


def _segment(seconds: float) -> Json:
    return {
        "id": 0, "avg_logprob": -0.1, "compression_ratio": 1.0, "start": 0.0, "end": seconds, "no_speech_prob": None,
        "seek": 0, "temperature": 0.0, "text": "bonjour", "tokens": [1, 2],
    }  # fmt: skip
