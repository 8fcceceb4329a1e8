"""What clients ask of models: one row of answers a task, for everybody who has to know what a task means.

Tables of other rooms that a task is looked up in (`components/gateway/config.py`, `ops/smoke/checks.py`) have a row for
each; a test names the one that lacks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models.facts import PerAudioSecond, PerQuery, PerToken, Price


class Task(StrEnum):
    """What a client asks of a model."""

    CHAT = "chat"
    FIM = "fim"  # fill-in-the-middle: code between what is before and after it
    AGENT = "agent"  # chat with tools
    VISION = "vision"  # chat with images
    EMBEDDING = "embedding"
    RERANK = "rerank"  # texts in the order in which they answer a question
    TRANSCRIPTION = "transcription"  # what is said in a recording, in its language or in English


@dataclass(frozen=True, kw_only=True)
class TaskAnswers:
    """What a task means."""

    summary: str  # "chat", as a table has it
    route: str  # of the OpenAI API: "/v1/chat/completions"
    mode: str  # the gateway's word for the route: "chat"
    generates: bool  # whether tokens are written, or only read
    tools: bool  # whether calls of tools are parsed
    prices: tuple[type[Price], ...]  # kinds of price that it can be sold at
    stands_in_for: frozenset[Task]  # tasks whose model one of this task may replace while it is off
    same_model: bool  # whether that has to be the very same model: vectors of two models cannot be compared
    example: Mapping[str, Any]  # body of a client's first request, without `model`
    images: bool = False  # whether images are read
    vectors: bool = False  # whether it answers with vectors, and may be asked for shorter ones
    in_tokens: bool = True  # whether what it does is counted in tokens, so that a speed in tokens says something
    also: tuple[str, ...] = ()  # further routes that the same model answers
    upload: str | None = None  # field of the body that is a file: the body is a form then, and not JSON


# A picture of one red pixel. By address a client would have the model's server fetch what the client may not.
_RED_DOT = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
_CHAT_EXAMPLE: Mapping[str, Any] = {"messages": [{"role": "user", "content": "ping"}]}

TASKS: Mapping[Task, TaskAnswers] = {
    Task.CHAT: TaskAnswers(
        summary="chat",
        route="/v1/chat/completions",
        mode="chat",
        generates=True,
        tools=False,
        prices=(PerToken,),
        stands_in_for=frozenset({Task.CHAT}),  # tools need a model that parses them
        same_model=False,
        example=_CHAT_EXAMPLE,
    ),
    Task.FIM: TaskAnswers(
        summary="fill-in-the-middle",
        # A base model gets the raw prompt: the chat route would wrap it in a template.
        route="/v1/completions",
        mode="completion",
        generates=True,
        tools=False,
        prices=(PerToken,),
        stands_in_for=frozenset({Task.FIM}),
        same_model=False,
        example={"prompt": "<|fim_prefix|>def add(a, b):\n    <|fim_suffix|>\n<|fim_middle|>", "max_tokens": 32},
    ),
    Task.AGENT: TaskAnswers(
        summary="chat with tools",
        route="/v1/chat/completions",
        mode="chat",
        generates=True,
        tools=True,
        prices=(PerToken,),
        stands_in_for=frozenset({Task.CHAT, Task.AGENT}),
        same_model=False,
        example=_CHAT_EXAMPLE,
    ),
    Task.VISION: TaskAnswers(
        summary="chat with images",
        route="/v1/chat/completions",
        mode="chat",
        generates=True,
        tools=False,
        prices=(PerToken,),
        stands_in_for=frozenset({Task.CHAT, Task.VISION}),
        same_model=False,
        example={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is on it?"},
                        {"type": "image_url", "image_url": {"url": _RED_DOT}},
                    ],
                }
            ]
        },
        images=True,
    ),
    Task.EMBEDDING: TaskAnswers(
        summary="embeddings",
        route="/v1/embeddings",
        mode="embedding",
        generates=False,
        tools=False,
        prices=(PerToken,),
        stands_in_for=frozenset({Task.EMBEDDING}),
        same_model=True,
        example={"input": ["a text to embed"]},
        vectors=True,
    ),
    Task.RERANK: TaskAnswers(
        summary="reranking",
        route="/v1/rerank",
        mode="rerank",
        generates=False,
        tools=False,
        prices=(PerQuery,),
        stands_in_for=frozenset({Task.RERANK}),
        same_model=True,  # scores of two models cannot be compared, and clients cut off at one
        example={"query": "What is a pod?", "documents": ["A pod is a group of containers.", "It rains."]},
    ),
    Task.TRANSCRIPTION: TaskAnswers(
        summary="transcription",
        route="/v1/audio/transcriptions",
        mode="audio_transcription",
        generates=False,
        tools=False,
        prices=(PerAudioSecond,),
        stands_in_for=frozenset({Task.TRANSCRIPTION}),
        same_model=False,
        example={"language": "en"},
        in_tokens=False,
        also=("/v1/audio/translations",),
        upload="file",
    ),
}
