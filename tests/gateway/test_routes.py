"""Each alias answers on its own route, and what reaches the model is the served name and the upstream key."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import OpenAI

from models.facts import PerToken
from models.spec import ModelSpec
from models.tasks import Task
from tests.gateway.proxy import UPSTREAM_KEY, Proxy
from tests.gateway.rendered import SERVED
from tests.gateway.upstream import Behaviour, Json, Seen, Upstream, Usage

# Numbers with no common factor, so that swapped or rounded prices cannot cancel out.
USAGE = Usage(prompt=123_457, completion=7_919)
FIM_PROMPT = "<|fim_prefix|>def add(a, b):\n    <|fim_suffix|>\n<|fim_middle|>"
CHAT: list[Any] = [{"role": "user", "content": "Say hello."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


def price(spec: ModelSpec, usage: Usage) -> float:
    """US dollars of one request, from the catalog."""
    assert isinstance(spec.price, PerToken)
    completion = 0 if spec.task is Task.EMBEDDING else usage.completion
    return (spec.price.input_usd_per_mtok * usage.prompt + spec.price.output_usd_per_mtok * completion) / 1e6


def ask(client: OpenAI, spec: ModelSpec) -> Any:
    """One request of the model's own kind."""
    if spec.task is Task.EMBEDDING:
        return client.embeddings.create(model=spec.alias, input=["a", "b"])
    if spec.task is Task.FIM:
        return client.completions.create(model=spec.alias, prompt=FIM_PROMPT, max_tokens=32)
    return client.chat.completions.create(model=spec.alias, messages=CHAT, max_tokens=32)


def of_task(*tasks: Task) -> list[str]:
    return [alias for alias, spec in SERVED.items() if spec.task in tasks]


STREAMING = of_task(Task.CHAT, Task.AGENT, Task.FIM)


def one(seen: list[Seen]) -> Seen:
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("alias", SERVED)
def test_the_model_sees_its_own_name_and_key_and_nothing_of_the_tenants(
    alias: str, proxy: Proxy, upstream: Upstream
) -> None:
    key = proxy.make_key([alias], key_alias=f"tenant-secret-name-{alias}")
    with upstream.recording() as seen:
        ask(proxy.client(key, headers={"x-tenant": "acme"}), SERVED[alias])
    request = one(seen)
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert request.served_name == SERVED[alias].served_name
    for secret in (key, proxy.master_key, "tenant-secret-name", "acme"):
        assert secret not in request.raw


@pytest.mark.parametrize("alias", of_task(Task.FIM))
def test_fill_in_the_middle_reaches_the_model_as_the_raw_prompt(alias: str, proxy: Proxy, upstream: Upstream) -> None:
    client = proxy.client(proxy.make_key([alias]))
    with upstream.recording() as seen:
        answer = client.completions.create(model=alias, prompt=FIM_PROMPT, max_tokens=32, stop=["<|endoftext|>"])
    request = one(seen)
    assert request.path == "/v1/completions"
    assert request.body["prompt"] == FIM_PROMPT
    assert request.body["stop"] == ["<|endoftext|>"]
    assert answer.choices[0].text == "return a + b"


@pytest.mark.parametrize("alias", of_task(Task.AGENT))
@pytest.mark.usefixtures("tool_reader")
def test_a_tool_is_called_and_its_result_answered_in_a_second_step(
    alias: str, proxy: Proxy, upstream: Upstream
) -> None:
    client = proxy.client(proxy.make_key([alias]))
    with upstream.recording() as seen:
        first = client.chat.completions.create(model=alias, messages=CHAT, tools=[TOOL], tool_choice="auto")
        message = first.choices[0].message
        assert message.tool_calls
        assert json.loads(message.tool_calls[0].function.arguments) == {"path": "README.md"}  # pyright: ignore
        result: Json = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "# ai-platform"}
        turns: list[Any] = [*CHAT, message.model_dump(exclude_none=True), result]
        second = client.chat.completions.create(model=alias, messages=turns, tools=[TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    assert second.choices[0].message.content == "hello"
    assert [request.body["tools"] for request in seen] == [[TOOL], [TOOL]]
    assert seen[1].body["messages"][-1] == result


@pytest.mark.parametrize("alias", of_task(Task.EMBEDDING))
def test_embeddings_come_back_in_order_with_what_they_cost(alias: str, proxy: Proxy) -> None:
    answer = proxy.client(proxy.make_key([alias])).embeddings.create(model=alias, input=["a", "b", "c"])
    assert [row.embedding for row in answer.data] == [[0.25, 0.0], [0.25, 1.0], [0.25, 2.0]]
    assert answer.usage.prompt_tokens == Usage().prompt


# --- spend -------------------------------------------------------------------------------------------------

ASKED, DECLINED, SILENT = "usage asked for", "usage declined", "usage not mentioned"
STREAM_OPTIONS: dict[str, Any] = {
    ASKED: {"stream_options": {"include_usage": True}},
    DECLINED: {"stream_options": {"include_usage": False}},
    SILENT: {},
}


@dataclass(frozen=True)
class Stream:
    """A stream as the client and as the model saw it."""

    text: str
    usage: Usage | None
    request: Seen


def stream(client: OpenAI, spec: ModelSpec, upstream: Upstream, options: Any) -> Stream:
    with upstream.recording() as seen:
        if spec.task is Task.FIM:
            chunks: list[Any] = list(
                client.completions.create(model=spec.alias, prompt=FIM_PROMPT, stream=True, **options)
            )
            text = "".join(choice.text or "" for chunk in chunks for choice in chunk.choices)
        else:
            chunks = list(client.chat.completions.create(model=spec.alias, messages=CHAT, stream=True, **options))
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    usage = next((chunk.usage for chunk in chunks if getattr(chunk, "usage", None)), None)
    return Stream(
        text,
        usage and Usage(usage.prompt_tokens, usage.completion_tokens),
        one(seen),
    )


@pytest.fixture(scope="module")
def plain_keys(proxy: Proxy, upstream: Upstream) -> dict[str, str]:
    """A key per alias that has made one plain request; all of them first, as spend is written in batches."""
    keys = {alias: proxy.make_key([alias]) for alias in SERVED}
    with ExitStack() as stack:
        for spec in SERVED.values():
            stack.enter_context(upstream.behaving(spec.served_name, Behaviour(usage=USAGE)))
        for alias, key in keys.items():
            ask(proxy.client(key), SERVED[alias])
    return keys


@pytest.fixture(scope="module")
def streams(proxy: Proxy, upstream: Upstream) -> dict[tuple[str, str], tuple[str, Stream]]:
    """A key and a finished stream for each alias that streams and each way to ask for usage."""
    found: dict[tuple[str, str], tuple[str, Stream]] = {}
    for alias in STREAMING:
        with upstream.behaving(SERVED[alias].served_name, Behaviour(usage=USAGE)):
            for asked, options in STREAM_OPTIONS.items():
                key = proxy.make_key([alias])
                found[alias, asked] = key, stream(proxy.client(key), SERVED[alias], upstream, options)
    return found


@pytest.mark.parametrize("alias", SERVED)
def test_spend_is_tokens_times_the_catalog_price(alias: str, proxy: Proxy, plain_keys: dict[str, str]) -> None:
    expected = price(SERVED[alias], USAGE)
    assert proxy.spend(plain_keys[alias], expected) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("asked", STREAM_OPTIONS)
@pytest.mark.parametrize("alias", STREAMING)
def test_a_stream_is_billed_what_the_model_counted_whatever_the_client_asked_for(
    alias: str, asked: str, proxy: Proxy, streams: dict[tuple[str, str], tuple[str, Stream]]
) -> None:
    key, _ = streams[alias, asked]
    expected = price(SERVED[alias], USAGE)
    assert proxy.spend(key, expected) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("asked", STREAM_OPTIONS)
@pytest.mark.parametrize("alias", STREAMING)
def test_a_stream_brings_the_text_and_the_usage_that_was_asked_for(
    alias: str, asked: str, streams: dict[tuple[str, str], tuple[str, Stream]]
) -> None:
    _, found = streams[alias, asked]
    assert found.text == "w0 w1 w2 "
    if asked == ASKED:
        assert found.usage == USAGE
    assert set(found.request.body) <= {"model", "messages", "prompt", "stream", "stream_options"}


def test_a_stream_that_the_client_leaves_is_billed_for_what_had_come(proxy: Proxy, upstream: Upstream) -> None:
    alias = STREAMING[0]
    key = proxy.make_key([alias])
    with upstream.behaving(SERVED[alias].served_name, Behaviour(chunks=40, chunk_delay=0.05)):
        chunks = proxy.client(key).chat.completions.create(model=alias, messages=CHAT, stream=True)
        for number, _ in enumerate(chunks):
            if number == 5:
                chunks.close()
                break
    # LiteLLM counts the prompt and the words so far itself: nobody reports usage of half a stream.
    least, most = price(SERVED[alias], Usage(5, 5)), price(SERVED[alias], Usage(100, 40))
    assert least <= proxy.spend(key, least) < most


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_model_is_asked_once_and_again_by_the_next_request(
    status: int, proxy: Proxy, upstream: Upstream
) -> None:
    spec = SERVED[STREAMING[0]]
    client = proxy.client(proxy.make_key([spec.alias]))
    with upstream.behaving(spec.served_name, Behaviour(status=status)), upstream.recording() as seen:
        for _ in range(3):
            with pytest.raises(openai.APIStatusError):
                ask(client, spec)
    assert len(seen) == 3
    ask(client, spec)
