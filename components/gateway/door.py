"""LiteLLM's door: what a request without the admin key may ask for, said as what is open, before LiteLLM reads it.

Runs inside the LiteLLM image, named `door.hook` in `litellm_settings.callbacks`: loaded as LiteLLM starts, it puts
itself in front of the whole application. What is open is in `door.json` beside it, the routes that keys are made for:

    {"routes": ["/v1/chat/completions", ...]}

and the two probes of the kubelet. LiteLLM 1.106.2 has some 900 routes; a good deal of them answer without a key (a
list of all routes, its admin page, a log-in), and the next version will have others. With the admin key everything
is as LiteLLM has it.

Of a request that is let in, LiteLLM sees what is known here and nothing else. Fields of the body: OpenAI's, as the
SDK in the image has them, and those that the engines take besides; any other is a 400 that names it, as it is
with OpenAI. LiteLLM would take hundreds more, among them where a request goes, with which key, at which price, by
which of its clients, and what a budget holds for it. The query is dropped, and so are headers that nobody here reads;
those that steer LiteLLM are a 400 too.

It also refuses token ids where a model would read other words in them (`_embedding_problem`), and media by address,
which a model's server would fetch where the client may not (`_media_problem`). Recordings come as forms. LiteLLM
1.106.2 has no route for translations: they go in as transcriptions, with a mark that `servers.py` reads.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base of every hook; not installed where this is type-checked."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # outside the image
        CustomLogger = object

Json = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PROBES = ("/health/liveliness", "/health/readiness")
# A conversation of 100,000 tokens is half a MiB, a picture some. More only fills this replica's memory.
MAX_BODY_MIB = 32
# Text is cheap and small values are not: 32 MiB of `{},` are 900 MiB of memory, and seconds in which nothing else is
# answered, probes neither; that takes no key. So many commas are more than any model's context.
_MAX_COMMAS = 300_000
# What vLLM takes of a recording (VLLM_MAX_AUDIO_CLIP_FILESIZE_MB), and OpenAI too.
MAX_AUDIO_MIB = 25
_MOST_FIELDS = 20  # of a form

# What vLLM takes beside OpenAI's fields (entrypoints/openai, 0.23 and newer). Left out on purpose: `priority` and
# `session_id` (LiteLLM's queue and log take them), `request_id`, `chat_template`, `kv_transfer_params`,
# `ec_transfer_params`, `prompt_embeds`, `logits_processors`, `vllm_xargs`.
_SAMPLING = frozenset(
    [
        "use_beam_search",
        "top_k",
        "min_p",
        "repetition_penalty",
        "length_penalty",
        "stop_token_ids",
        "include_stop_str_in_output",
        "ignore_eos",
        "min_tokens",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "truncate_prompt_tokens",
        "truncation_side",
        "prompt_logprobs",
        "logprob_token_ids",
        "allowed_token_ids",
        "bad_words",
        "structured_outputs",
        "response_format",
        "return_tokens_as_token_ids",
        "return_token_ids",
        "cache_salt",
        "echo",
        "add_special_tokens",
        "repetition_detection",
    ]
)
_TEMPLATE = frozenset(
    [
        "add_generation_prompt",
        "continue_final_message",
        "documents",
        "chat_template_kwargs",
        "mm_processor_kwargs",
        "include_reasoning",
        "thinking_token_budget",
    ]
)
# OpenAI's, and LiteLLM's own at once: it reads settings in `metadata`, and searches the web for the other.
_NOT_HERE = frozenset({"metadata", "web_search_options"})
# Names that clients make up: no model reads them, and LiteLLM keeps rows for each, day by day.
_UNREAD = frozenset({"user", "safety_identifier"})
# What a budget is reserved by: LiteLLM takes a negative number for money given back.
_AMOUNTS = {"max_tokens": 0, "max_completion_tokens": 0, "n": 1, "best_of": 1, "dimensions": 1, "top_n": 1}
# OpenAI's own limit; an engine makes as many sequences of a request as it asks for.
_MOST = {"n": 128, "best_of": 128}
# What of another type would be a 500, which clients try again, where it is theirs to mend.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "messages": (list, type(None)),
    "prompt": (str, list, type(None)),
    "stream": (bool, type(None)),
    "stream_options": (dict, type(None)),
    "response_format": (dict, type(None)),
    "query": (str, type(None)),
    "documents": (list, type(None)),
    "return_documents": (bool, type(None)),
}
_TYPES: Mapping[type, str] = {list: "a list", str: "a text", bool: "true or false", dict: "an object"}
_CONTENT = (str, list, type(None))
# The routes that take a recording, and what they read of a form beside it; a list has its name with brackets.
_RECORDING = "file"
_TRANSCRIPTION = frozenset({"model", "language", "prompt", "response_format", "temperature"})
_GRANULARITIES = "timestamp_granularities[]"
_FORMS = {
    "/audio/transcriptions": _TRANSCRIPTION | {_GRANULARITIES},
    "/audio/translations": _TRANSCRIPTION,
}
_TRANSLATED = "/audio/translations"
_TRANSCRIBED = "/v1/audio/transcriptions"
_FORMATS = ("json", "verbose_json")  # the others of OpenAI's vLLM does not write
# What LiteLLM needs to read of a client; another key header than this one opens nothing.
_HEADERS = frozenset(
    name.encode()
    for name in (
        "accept", "accept-encoding", "authorization", "connection", "content-type", "host", "origin",
        "access-control-request-headers", "access-control-request-method",
    )
)  # fmt: skip


# --- the body ----------------------------------------------------------------------------------------------------


def fields_of(route: str) -> frozenset[str] | None:
    """The fields that a body of this route may have; None for a route without a body."""
    from openai.types import completion_create_params, embedding_create_params  # noqa: PLC0415  # pyright: ignore
    from openai.types.chat import completion_create_params as chat_create_params  # noqa: PLC0415  # pyright: ignore

    def known(model: Any) -> frozenset[str]:
        return frozenset(model.__annotations__) - _NOT_HERE

    match _short(route):
        case "/chat/completions":
            openai = known(chat_create_params.CompletionCreateParamsBase)  # pyright: ignore[reportUnknownMemberType]
            return openai | {"stream"} | _SAMPLING | _TEMPLATE
        case "/completions":
            openai = known(completion_create_params.CompletionCreateParamsBase)  # pyright: ignore[reportUnknownMemberType]
            return openai | {"stream"} | _SAMPLING
        case "/embeddings":
            return known(embedding_create_params.EmbeddingCreateParams)  # pyright: ignore[reportUnknownMemberType]
        case "/rerank":
            return frozenset({"model", "query", "documents", "top_n", "return_documents"})
        case other:
            return _FORMS.get(other)


def parse(text: bytes) -> Json:
    """The object of a body. Raises ValueError, with what is wrong, for anything that is not one."""

    def no_number(name: str) -> None:
        raise ValueError(f"{name[:40]} is no number of JSON")

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):
            no_number(digits)
        return value

    if text.count(b",") > _MAX_COMMAS:
        raise ValueError(f"the body has more than {_MAX_COMMAS:,} values")
    try:
        body: object = json.loads(text.decode(), parse_constant=no_number, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return cast("Json", body)


def _settled(body: Json, known: frozenset[str]) -> Json:
    """Without what says nothing, an unknown field that is null, and with whole amounts as whole numbers."""
    kept = {name: value for name, value in body.items() if value is not None or name in known}
    for name in _AMOUNTS:
        if isinstance(value := kept.get(name), float) and value.is_integer():
            kept[name] = int(value)
    return kept


def problem(route: str, known: frozenset[str], body: Json) -> tuple[str, str] | None:
    """What is wrong with a body: the field, and a sentence for the client. None where it may pass."""
    for name in body:
        if name not in known:
            shown = name if len(name) <= 80 else f"{name[:80]}..."
            return name, f"'{shown}' is no field that a key may set on {route}; leave it out of the request"
    model = body.get("model")
    if not isinstance(model, str) or "," in model:
        return "model", "'model' must be the alias of one model"
    for name, least in _AMOUNTS.items():
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            return name, f"'{name}' must be a whole number from {least} up"
        if value is not None and value > _MOST.get(name, value):
            return name, f"'{name}' must be {_MOST[name]} at most"
    if any(True for _ in _tools_of_others(body)):
        return "tools", "'tools' must be functions: nothing else is run for a client here"
    return (
        _type_problem(body)
        or _media_problem(body)
        or ("query" in known and _rerank_problem(body))
        or ("input" in known and _embedding_problem(body))
        or ("prompt" in known and _stream_problem(route, body))
        or None
    )


def _stream_problem(route: str, body: Json) -> tuple[str, str] | None:
    """Several texts in one stream of completions: LiteLLM 1.106.2 drops the index of each piece, so they come mixed."""
    prompt: object = body.get("prompt")
    texts = cast("list[object]", prompt) if isinstance(prompt, list) else []
    several = {
        "n": (body.get("n") or 1) > 1,
        "prompt": len(texts) > 1 and not all(isinstance(each, int) for each in texts),
    }
    field = next((name for name, found in several.items() if found), None)
    if field is None or body.get("stream") is not True:
        return None
    return field, (
        f"'{field}' asks for several texts, and a stream of {route} would bring them mixed. Ask for them without "
        "'stream', or for each by itself"
    )


def _type_problem(body: Json) -> tuple[str, str] | None:
    for name, kinds in _KINDS.items():
        if not isinstance(body.get(name), kinds):
            return name, f"'{name}' must be {' or '.join(_TYPES[kind] for kind in kinds if kind in _TYPES)}"
    for message in cast("list[object]", body.get("messages") or []):
        if not isinstance(message, dict) or not isinstance(cast("Json", message).get("content"), _CONTENT):
            return "messages", "'messages' must be objects with a text, a list of parts or null for 'content'"
    return None


def _media_problem(body: Json) -> tuple[str, str] | None:
    """Media by address: the model's server would ask for it, from inside the cluster."""
    for message in cast("list[Json]", body.get("messages") or []):
        content: object = message.get("content")
        for part in cast("list[object]", content) if isinstance(content, list) else []:
            for name, value in cast("Json", part).items() if isinstance(part, dict) else ():
                address = cast("Json", value).get("url") if isinstance(value, dict) else value
                if name.endswith("_url") and not (isinstance(address, str) and address.startswith("data:")):
                    return "messages", (
                        f"'{name[:40]}' must hold the medium itself, as data:image/png;base64,...: nothing is fetched "
                        "from an address here"
                    )
    return None


def _rerank_problem(body: Json) -> tuple[str, str] | None:
    if not isinstance(body.get("query"), str):
        return "query", "'query' must be a text"
    texts = cast("list[object]", body.get("documents") or [])
    if not texts or not all(isinstance(text, str) for text in texts):
        return "documents", "'documents' must be a list of texts, one at least"
    return None


def _tools_of_others(body: Json) -> Iterator[object]:
    """Tools of a type that LiteLLM itself would run: servers to ask, files to search."""
    tools: object = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        yield tools
        return
    for tool in cast("list[object]", tools or []):
        if not isinstance(tool, dict) or cast("Json", tool).get("type") != "function":
            yield tool


def _embedding_problem(body: Json) -> tuple[str, str] | None:
    """Token ids are numbers of the client's vocabulary: the model answers 200, with the vectors of other words."""
    given: object = body.get("input")
    texts = cast("list[object]", given) if isinstance(given, list) else [given]
    if all(isinstance(text, str) for text in texts):
        return None
    return "input", (
        "'input' must be a text or a list of texts. Token ids are numbers of the vocabulary that your client has, "
        "and this model would read other words in them. Let the client send text: in LangChain "
        "OpenAIEmbeddings(check_embedding_ctx_length=False)"
    )


# --- forms -------------------------------------------------------------------------------------------------------


class Form:
    """A recording and what is asked of it. Each name stands once, but for lists, whose names end in brackets."""

    def __init__(self, items: list[tuple[str, str]], recording: bytes | None, name: str) -> None:
        self.items = items
        self.recording = recording
        self.name = name  # of the file, which says what it is to whoever reads names

    def get(self, name: str) -> str | None:
        """The last value of a name."""
        return next((value for found, value in reversed(self.items) if found == name), None)

    def written(self, boundary: str) -> bytes:
        """As a body. Names are known ones, and a boundary that nobody could foresee is in no value."""
        single = {name: (name, value) for name, value in self.items if not name.endswith("[]")}
        fields = [*single.values(), *(item for item in self.items if item[0].endswith("[]"))]
        parts = [f'name="{name}"\r\n\r\n'.encode() + value.encode() for name, value in fields]
        kind = b"\r\nContent-Type: application/octet-stream\r\n\r\n"
        parts.append(f'name="{_RECORDING}"; filename="{self.name}"'.encode() + kind + (self.recording or b""))
        head = f"--{boundary}\r\nContent-Disposition: form-data; ".encode()
        return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


async def parse_form(text: bytes, kind: bytes) -> Form:
    """The form of a body whose content type is `kind`. Raises ValueError, with what is wrong, for anything else."""
    from starlette.datastructures import Headers, UploadFile  # noqa: PLC0415  # pyright: ignore
    from starlette.formparsers import MultiPartException, MultiPartParser  # noqa: PLC0415  # pyright: ignore

    async def whole() -> Any:
        yield text

    read = cast("Any", MultiPartParser)
    try:
        form: Any = await read(
            cast("Any", Headers)({"content-type": kind.decode("latin-1")}),
            whole(),
            max_files=1,
            max_fields=_MOST_FIELDS,
        ).parse()
    except cast("type[Exception]", MultiPartException) as error:
        raise ValueError(f"the body is no form: {getattr(error, 'message', error)}") from None
    items: list[tuple[str, str]] = []
    recording, name = None, ""
    for field, value in form.multi_items():
        if isinstance(value, cast("type[Any]", UploadFile)):
            if field != _RECORDING:
                raise ValueError(f"'{field[:80]}' must be a text; the recording is '{_RECORDING}'")
            recording = cast("bytes", await value.read())
            name = re.sub(r"[^A-Za-z0-9._-]", "_", str(value.filename or ""))[-100:]
        else:
            items.append((field, value))
    await form.close()
    return Form(items, recording, name or "recording")


def form_problem(route: str, known: frozenset[str], form: Form) -> tuple[str, str] | None:
    """What is wrong with a form, as `problem` says it."""
    for name, _ in form.items:
        if name not in known:
            return name, f"'{name[:80]}' is no field that a key may set on {route}; leave it out of the request"
    if not form.get("model") or "," in str(form.get("model")):
        return "model", "'model' must be the alias of one model"
    if not form.recording:
        return _RECORDING, f"'{_RECORDING}' must be a recording"
    written = form.get("response_format") or _FORMATS[0]
    if written not in _FORMATS:
        return "response_format", f"'response_format' must be {' or '.join(_FORMATS)}: the model's server has no other"
    return _times_problem(form, written) or _temperature_problem(form)


def _times_problem(form: Form, written: str) -> tuple[str, str] | None:
    given = {value for name, value in form.items if name == _GRANULARITIES}
    if not given or (given == {"segment"} and written == "verbose_json"):
        return None
    return _GRANULARITIES, (
        f"'{_GRANULARITIES}' must be segment, and response_format verbose_json: no other times are told here"
    )


def _temperature_problem(form: Form) -> tuple[str, str] | None:
    temperature = form.get("temperature")
    if temperature is None or re.fullmatch(r"0(\.\d{1,9})?|1(\.0{1,9})?", temperature):
        return None
    return "temperature", "'temperature' must be a number from 0 to 1"


# --- the door ----------------------------------------------------------------------------------------------------


class RefusalError(Exception):
    """An answer of the door itself, in the shape of OpenAI's errors."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": str(status)}


class Door:
    """In front of an ASGI application: hands on what is open, and answers the rest itself."""

    def __init__(self, app: App, routes: Mapping[str, frozenset[str] | None], admin_key: str) -> None:
        self._app = app
        self._routes = routes
        self._admin = f"Bearer {admin_key}".encode() if admin_key else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] == "lifespan" or self._is_admin(scope):
            await self._app(scope, receive, send)
            return
        try:
            scope, receive = await self._let_in(scope, receive)
        except RefusalError as refusal:
            await _answer(scope, send, refusal)
            return
        await self._app(scope, receive, send)

    def _is_admin(self, scope: Message) -> bool:
        given = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
        return self._admin is not None and len(given) == 1 and hmac.compare_digest(given[0], self._admin)

    async def _let_in(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """The request as LiteLLM may see it. Raises RefusalError for one that it must not."""
        route, method = str(scope["path"]), scope.get("method")
        if scope["type"] == "http" and route in PROBES and method in {"GET", "HEAD"}:
            return _plain(scope), receive
        known = self._routes.get(route)
        allowed = {"GET", "HEAD", "OPTIONS"} if known is None else {"POST", "OPTIONS"}
        if scope["type"] != "http" or route not in self._routes or method not in allowed:
            asked = f"{method or 'WebSocket'} {route}"[:120]
            raise RefusalError(403, "route_closed", f"{asked} is not open here. A key opens {', '.join(self._routes)}")
        for name, _ in scope["headers"]:
            if name.startswith((b"x-litellm", b"litellm")):
                text = (
                    f"the header {name.decode('latin-1')[:80]} is not for clients to set; leave it out of the request"
                )
                hint = ", and send the key as 'Authorization: Bearer KEY'" if b"key" in name else ""
                raise RefusalError(400, "invalid_request_error", text + hint)
        if known is None or method == "OPTIONS":
            return _plain(scope), receive
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"application/json")
        wanted = b"multipart/form-data" if _short(route) in _FORMS else b"application/json"
        if kind.split(b";")[0].strip().lower() != wanted:
            what = "a form" if _short(route) in _FORMS else "JSON"
            text = f"the body must be {what}, 'Content-Type: {wanted.decode()}'"
            raise RefusalError(400, "invalid_request_error", text)
        if _short(route) in _FORMS:
            return await self._with_form(route, known, scope, receive, kind)
        return await self._with_body(route, known, scope, receive)

    async def _with_body(
        self, route: str, known: frozenset[str], scope: Message, receive: Receive
    ) -> tuple[Message, Receive]:
        text = await _read(receive)
        try:
            body = parse(text)
        except ValueError as error:
            raise RefusalError(400, "invalid_request_error", str(error)) from None
        body = _settled(body, known)
        if found := problem(route, known, body):
            param, message = found
            raise RefusalError(400, "invalid_request_error", message, param[:80])
        body = {name: value for name, value in body.items() if name not in _UNREAD}
        # Written anew: no second reader can find something else in it than was judged here.
        text = json.dumps(body).encode()
        length = (b"content-length", str(len(text)).encode())
        return _plain(scope, (b"content-type", b"application/json"), length), _replay(text, receive)

    async def _with_form(
        self, route: str, known: frozenset[str], scope: Message, receive: Receive, kind: bytes
    ) -> tuple[Message, Receive]:
        text = await _read(receive)
        try:
            form = await parse_form(text, kind)
        except ValueError as error:
            raise RefusalError(400, "invalid_request_error", str(error)) from None
        if len(form.recording or b"") > MAX_AUDIO_MIB << 20:
            text = f"the recording is above {MAX_AUDIO_MIB} MiB; cut it, or send it as Opus or MP3"
            raise RefusalError(413, "invalid_request_error", text)
        form.items = [(name, value) for name, value in form.items if name not in _UNREAD]
        if found := form_problem(route, known, form):
            param, message = found
            raise RefusalError(400, "invalid_request_error", message, param[:80])
        if not form.get("response_format"):
            # LiteLLM would ask for the verbose one: a model that was tuned without times answers that with nothing.
            form.items.append(("response_format", _FORMATS[0]))
        if _short(route) == _TRANSLATED:
            form.items.append(("task", "translate"))
            scope = {**scope, "path": _TRANSCRIBED, "raw_path": _TRANSCRIBED.encode()}
        boundary = secrets.token_hex(16)
        body = form.written(boundary)
        length = (b"content-length", str(len(body)).encode())
        kind = f"multipart/form-data; boundary={boundary}".encode()
        return _plain(scope, (b"content-type", kind), length), _replay(body, receive)


def _short(route: str) -> str:
    return route.removeprefix("/v1")


def _plain(scope: Message, *more: tuple[bytes, bytes]) -> Message:
    """The request with what LiteLLM may read of its head."""
    instead = {name for name, _ in more}
    kept = [(name, value) for name, value in scope["headers"] if name in _HEADERS and name not in instead]
    return {**scope, "headers": [*kept, *more], "query_string": b""}


async def _read(receive: Receive) -> bytes:
    text = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the client left
            raise RefusalError(400, "invalid_request_error", "the body ended early")
        text += message.get("body", b"")
        if len(text) > MAX_BODY_MIB << 20:
            raise RefusalError(413, "invalid_request_error", f"the body is above {MAX_BODY_MIB} MiB")
        if not message.get("more_body", False):
            return bytes(text)


def _replay(text: bytes, receive: Receive) -> Receive:
    """Gives the body once, then what comes from the client: that it left."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": text, "more_body": False}

    return again


async def _answer(scope: Message, send: Send, refusal: RefusalError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: a 403
        return
    text = json.dumps({"error": refusal.error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    # What of an unread body is on its way belongs to no next request.
    headers += [(b"connection", b"close")] if refusal.status == 413 else []
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class DoorHook(CustomLogger):
    """What LiteLLM gets for the name in its config; the door itself is in front of it."""


def install() -> DoorHook:
    """Put the door in front of LiteLLM's application, once a process. Any failure ends LiteLLM's start."""
    from litellm.proxy import proxy_server  # noqa: PLC0415  # pyright: ignore

    served = cast("Any", proxy_server.app)  # pyright: ignore[reportUnknownMemberType]
    routes: list[str] = json.loads(Path(__file__).with_name("door.json").read_text())["routes"]
    if not getattr(served.state, "door", False):
        # The config is read as the application starts, when Starlette takes no middleware any more.
        rest: App = served.middleware_stack or served.build_middleware_stack()
        fields = {route: fields_of(route) for route in routes}
        served.middleware_stack = Door(rest, fields, os.environ.get("LITELLM_MASTER_KEY", ""))
        served.state.door = True
    return DoorHook()


hook = install() if CustomLogger is not object else None
