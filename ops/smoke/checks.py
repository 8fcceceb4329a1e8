"""A request of a model's own kind, and what is to be thought of the answer. The task of the catalog entry decides."""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from models.catalog import CATALOG
from models.facts import PerAudioSecond, PerQuery, PerToken, Price
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from ops.endpoint import Endpoint, Json, NoAnswerError, Reply

_MILLION = 1_000_000
_TOKENS = 32  # enough to see an answer, and next to nothing to pay

_CHAT: Json = {"messages": [{"role": "user", "content": "Answer with the one word: hello"}]}
_FIM: Json = {"prompt": "<|fim_prefix|>def add(a, b):\n    <|fim_suffix|>\n\nprint(add(1, 2))\n<|fim_middle|>"}
_READ_FILE: Json = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a text file of the project",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
_AGENT: Json = {
    "messages": [{"role": "user", "content": "Call read_file on README.md, then tell me the title it begins with."}],
    "tools": [_READ_FILE],
}
_FILE_TEXT = "# A small project\n"
_TEXTS = ["def add(a, b): return a + b", "the weather in spring"]
_QUESTION = "Which of these is a function that adds a and b ?"
_SECONDS = 2  # of a recording: a tone, which says nothing, and is billed like speech


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    OFF = "off"  # at zero replicas: designed, but no model
    FAILED = "failed"
    UNREACHABLE = "unreachable"  # nothing was found out


class Usage(BaseModel):
    """Tokens of one request, as the server counts them. The gateway adds what a stream costs."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost: float | None = None  # US dollars
    seconds: float | None = None  # of a recording


@dataclass(frozen=True)
class Check:
    """One request, judged."""

    request: str  # "chat, streamed"
    verdict: Verdict
    detail: str = ""  # why it is not ok
    remedy: str | None = None
    status: int | None = None  # of HTTP
    first_token_s: float | None = None  # of a stream
    total_s: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None  # what the gateway says
    served_by: str | None = None  # the alias that the gateway chose
    alone: bool = False  # what is asked next does not need it


class _Function(BaseModel):
    name: str
    arguments: str


class _ToolCall(BaseModel):
    id: str
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None  # chat
    delta: _Delta | None = None  # chat, streamed
    text: str | None = None  # completion, streamed or not


class _Listed(BaseModel):
    id: str


class _Served(BaseModel):
    served_model_name: str | None = None  # TEI
    data: list[_Listed] = []  # everybody else


class _Row(BaseModel):
    embedding: list[float]


class _Rank(BaseModel):
    index: int
    score: float = Field(validation_alias=AliasChoices("relevance_score", "score"))  # of the gateway, of TEI


class _Duration(BaseModel):
    seconds: float


class _Heard(BaseModel):
    text: str
    usage: _Duration


class _Body(BaseModel):
    """Any answer of the API, or a chunk of a streamed one."""

    choices: list[_Choice] = []
    data: list[_Row] = []
    usage: Usage | None = None

    @property
    def message(self) -> _Message:
        """The answer to a chat. Raises ValueError if there is none."""
        if not self.choices or self.choices[0].message is None:
            raise ValueError("there is no message in it")
        return self.choices[0].message

    @property
    def text(self) -> str:
        """What was generated: of a chat, of a completion, or of a chunk of either."""
        if not self.choices:
            return ""
        choice = self.choices[0]
        part = choice.message or choice.delta
        return (part.content if part else choice.text) or ""


def exercise(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    """Requests of the model's own kind under the name `model`, until one is not answered as it should be."""
    for check in REQUESTS[spec.task](spec, model, endpoint):
        yield check
        if check.verdict is not Verdict.OK and not (check.verdict is Verdict.FAILED and check.alone):
            return


def served_name(spec: ModelSpec, endpoint: Endpoint) -> Check:
    """Whether a server says that it is this model."""
    route = spec.engine.identity_route
    if not route:
        raise ValueError(f"{spec.alias} has no server here that could say what it serves")

    def judge(reply: Reply) -> Check | str:
        body = _Served.model_validate(reply.json())
        found = [body.served_model_name] if body.served_model_name else [entry.id for entry in body.data]
        if spec.served_name not in found:
            return f"it serves {', '.join(found) or 'nothing'}, not {spec.served_name}"
        return Check("", Verdict.OK)

    return _check(f"GET {route}", endpoint, route, None, judge)


def price_usd(price: Price, usage: Usage) -> float | None:
    """US dollars of a request by the catalog; None where what was counted does not say it."""
    match price:
        case PerToken() if price.cached_input_usd_per_mtok is None:
            read, written = usage.prompt_tokens, usage.completion_tokens
            return (read * price.input_usd_per_mtok + written * price.output_usd_per_mtok) / _MILLION
        case PerAudioSecond() if usage.seconds is not None:
            return usage.seconds * price.usd_per_second
        case PerQuery():
            return price.usd_per_query
        case _:
            return None


def through_gateway(spec: ModelSpec, check: Check) -> Check:
    """A check with what only a gateway can get wrong: who answered, and what it cost."""
    if check.verdict is not Verdict.OK or check.usage is None:
        return check
    server = CATALOG.get(check.served_by or "", spec)
    expected = price_usd(server.price, check.usage)
    cost = check.cost_usd
    if expected is not None and cost is not None and not math.isclose(expected, cost, rel_tol=1e-6):
        return replace(
            check,
            verdict=Verdict.FAILED,
            detail=f"it cost ${cost:.9f} where the price of the catalog makes it ${expected:.9f}: budgets do not bind",
            remedy="pulumi up   # registers the price of the catalog",
        )
    if check.served_by not in (None, spec.alias):
        return replace(
            check,
            verdict=Verdict.OFF,
            detail=f"the gateway takes {spec.alias} for off, and {check.served_by} answered in its place, at its price",
            remedy=bring_up(spec),
        )
    return check


def bring_up(spec: ModelSpec) -> str:
    """The command that starts a model."""
    return f"pulumi config set {spec.alias}:replicas 1 && pulumi up"


# --- requests ------------------------------------------------------------------------------------------------


def _check(
    request: str,
    endpoint: Endpoint,
    route: str,
    body: Json | None,
    judge: Callable[[Reply], Check | str],
    *,
    upload: tuple[str, str, bytes] | None = None,
) -> Check:
    """Ask, and let `judge` read an answer: it gives what it read, or what is wrong with it."""
    try:
        reply = endpoint.ask(route, body, upload)
    except NoAnswerError as error:
        return Check(request, Verdict.FAILED if error.reached else Verdict.UNREACHABLE, error.problem.message)
    if reply.status != 200:
        kind, message = reply.error()
        if (reply.status, kind) == (503, "model_off"):
            return Check(request, Verdict.OFF, message, status=reply.status, total_s=reply.seconds)
        detail = f"HTTP {reply.status} {kind}".strip() + f": {message}"
        return Check(request, Verdict.FAILED, detail, _REMEDIES.get(kind), status=reply.status, total_s=reply.seconds)
    try:
        found = judge(reply)
    except ValidationError as failure:
        first = failure.errors()[0]
        found = f"the answer has another shape: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except ValueError as failure:
        found = f"the answer has another shape: {failure}"
    if isinstance(found, str):
        return Check(request, Verdict.FAILED, found, status=reply.status, total_s=reply.seconds)
    cost = found.usage.cost if found.usage and found.usage.cost is not None else _number(reply, "response-cost")
    return replace(
        found,
        request=request,
        status=reply.status,
        total_s=reply.seconds,
        cost_usd=cost,
        served_by=reply.headers.get("x-litellm-model-group"),
    )


# `{place}` and `{alias}` are filled in where both are known.
_LIST = "pulumi config set --path 'ai-platform:{}.models[<how many it lists>]' {{alias}} && pulumi up"
_REMEDIES = {
    "key_model_access_denied": _LIST.format("keys.<key>"),
    "team_model_access_denied": _LIST.format("teams.<team>"),
    "budget_exceeded": "ops keys {place}   # shows when its budget starts again",
    "token_not_found_in_db": "pulumi up   # its last job makes the keys of the config",
}


def _number(reply: Reply, header: str) -> float | None:
    try:
        return float(reply.headers[f"x-litellm-{header}"])
    except (KeyError, ValueError):
        return None


def _chat(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    return _plain_and_streamed(spec.task, model, endpoint, _CHAT)


def _fim(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    return _plain_and_streamed(spec.task, model, endpoint, _FIM)


def _plain_and_streamed(task: Task, model: str, endpoint: Endpoint, body: Json) -> Iterator[Check]:
    name, route = TASKS[task].summary, TASKS[task].route
    asked = {"model": model, "max_tokens": _TOKENS, "temperature": 0, **body}
    yield _check(name, endpoint, route, asked, lambda reply: _generated(_Body.model_validate(reply.json())))
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    yield _check(f"{name}, streamed", endpoint, route, streamed, _read_stream)


def _read_stream(reply: Reply) -> Check | str:
    text, first, usage = "", None, None
    for seconds, event in reply.events():
        chunk = _Body.model_validate(event)
        if chunk.text and first is None:
            first = seconds
        text += chunk.text
        usage = chunk.usage or usage
    whole = _Body(choices=[_Choice(text=text)], usage=usage)
    found = _generated(whole)
    return found if isinstance(found, str) else replace(found, first_token_s=first)


def _generated(body: _Body) -> Check | str:
    if not body.text.strip():
        return "it generated no text"
    if "<|fim_" in body.text:
        return f"it generated control tokens: {body.text[:80]!r}"
    return _counted(body, generated=True)


def _counted(body: _Body, *, generated: bool) -> Check | str:
    usage = body.usage
    if usage is None or not usage.prompt_tokens or (generated and not usage.completion_tokens):
        return "it says of no tokens how many there were, so nobody can be billed"
    return Check("", Verdict.OK, usage=usage)


def _tool_loop(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    route = TASKS[spec.task].route
    asked: Json = {"model": model, "max_tokens": 4 * _TOKENS, "temperature": 0, **_AGENT}
    turns: list[Json] = []  # of a call that was made

    def call(reply: Reply) -> Check | str:
        body = _Body.model_validate(reply.json())
        if not body.message.tool_calls:
            return f"it called no tool, but said: {body.text[:80]!r}"
        tool = body.message.tool_calls[0]
        wrong = _wrong_call(tool)
        if wrong:
            return wrong
        turns[:] = turns or [
            {"role": "assistant", "content": body.message.content, "tool_calls": [_wire(tool)]},
            {"role": "tool", "tool_call_id": tool.id, "content": _FILE_TEXT},
        ]
        return _counted(body, generated=True)

    # A model may call a tool when it has to, by a grammar, and never by itself, when what it writes has to be parsed.
    for choice in ("auto", "required"):
        check = _check(f"tool call, {choice}", endpoint, route, {**asked, "tool_choice": choice}, call)
        yield replace(check, alone=True)
    if not turns:
        return
    answered: Json = {**asked, "messages": [*_AGENT["messages"], *turns]}
    yield _check(
        "tool result",
        endpoint,
        route,
        answered,
        lambda reply: _generated(_Body.model_validate(reply.json())),
    )


def _wrong_call(tool: _ToolCall) -> str | None:
    try:
        arguments: object = json.loads(tool.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    path = cast("Json", arguments).get("path") if isinstance(arguments, dict) else None
    if tool.function.name == _READ_FILE["function"]["name"] and isinstance(path, str):
        return None
    return f"it called {tool.function.name[:40]!r} with {tool.function.arguments[:80]!r}, not read_file with a path"


def _wire(tool: _ToolCall) -> Json:
    return {"id": tool.id, "type": "function", "function": tool.function.model_dump()}


def _embeddings(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    length = spec.weights.architecture.hidden if spec.weights else None

    def judge(reply: Reply) -> Check | str:
        body = _Body.model_validate(reply.json())
        if len(body.data) != len(_TEXTS):
            return f"{len(_TEXTS)} texts gave {len(body.data)} vectors"
        for row in body.data:
            vector = row.embedding
            if length is not None and len(vector) != length:
                return f"a vector has {len(vector)} numbers; those of {spec.model_id} have {length}"
            if not all(math.isfinite(number) for number in vector) or not any(vector):
                return "a vector has numbers that are not finite, or nothing but zeros"
        return _counted(body, generated=False)

    name, route = TASKS[spec.task].summary, TASKS[spec.task].route
    yield _check(name, endpoint, route, {"model": model, "input": _TEXTS}, judge)


def _vision(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    return _plain_and_streamed(spec.task, model, endpoint, dict(TASKS[spec.task].example))


def _rerank(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    answers = TASKS[spec.task]
    direct = model != spec.alias  # TEI has words of its own, and the gateway puts vLLM's into them
    route, texts = ("/rerank", "texts") if direct else (answers.route, "documents")

    def judge(reply: Reply) -> Check | str:
        body = reply.json()
        ranks = TypeAdapter(list[_Rank]).validate_python(body if direct else body.get("results"))
        if sorted(rank.index for rank in ranks) != list(range(len(_TEXTS))):
            return f"{len(_TEXTS)} texts came back as {len(ranks)} ranks"
        if ranks[0].index != 0 or ranks[0].score <= ranks[-1].score:
            return f"it puts {_TEXTS[ranks[0].index]!r} first where {_QUESTION!r} was asked"
        return Check("", Verdict.OK, usage=Usage(prompt_tokens=0))

    yield _check(answers.summary, endpoint, route, {"model": model, "query": _QUESTION, texts: _TEXTS}, judge)


def _transcription(spec: ModelSpec, model: str, endpoint: Endpoint) -> Iterator[Check]:
    answers = TASKS[spec.task]

    def judge(reply: Reply) -> Check | str:
        heard = _Heard.model_validate(reply.json())
        if heard.usage.seconds != _SECONDS:
            return f"a recording of {_SECONDS} s counts as {heard.usage.seconds:g} s"
        return Check("", Verdict.OK, usage=Usage(prompt_tokens=0, seconds=heard.usage.seconds))

    body: Json = {"model": model, **answers.example}
    yield _check(answers.summary, endpoint, answers.route, body, judge, upload=("file", "tone.wav", _tone()))


def _tone() -> bytes:
    rate, written = 16_000, io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        waves = (round(8000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(_SECONDS * rate))
        file.writeframes(b"".join(struct.pack("<h", height) for height in waves))
    return written.getvalue()


# The requests of each task, of a model under the name that a server knows it by.
REQUESTS: Mapping[Task, Callable[[ModelSpec, str, Endpoint], Iterator[Check]]] = {
    Task.CHAT: _chat,
    Task.FIM: _fim,
    Task.AGENT: _tool_loop,
    Task.VISION: _vision,
    Task.EMBEDDING: _embeddings,
    Task.RERANK: _rerank,
    Task.TRANSCRIPTION: _transcription,
}
