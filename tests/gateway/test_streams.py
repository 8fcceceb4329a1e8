"""Streams of several tokens a chunk, on a real LiteLLM: what a client gets, and what is billed."""

from __future__ import annotations

from typing import Any

import pytest

from models.tasks import Task
from tests.gateway.proxy import Proxy, call
from tests.gateway.rendered import SERVED
from tests.gateway.test_routes import TOOL, price
from tests.gateway.upstream import ARGUMENTS, Behaviour, Upstream, Usage

USAGE = Usage(prompt=3000, completion=700)
TEXT = "".join(f"w{number} " for number in range(30))
CHAT: list[Any] = [{"role": "user", "content": "hi"}]
CHATS = sorted(alias for alias, spec in SERVED.items() if spec.task is Task.CHAT)[:1]
FIMS = sorted(alias for alias, spec in SERVED.items() if spec.task is Task.FIM)[:1]
AGENTS = sorted(alias for alias, spec in SERVED.items() if spec.task is Task.AGENT)[:1]


def chunky(interval: int) -> Behaviour:
    return Behaviour(usage=USAGE, chunks=30, interval=interval)


def streamed(proxy: Proxy, key: str, alias: str, **fields: Any) -> list[Any]:
    """The chunks of one answer."""
    client = proxy.client(key)
    if SERVED[alias].task is Task.FIM:
        return list(client.completions.create(model=alias, prompt="def add", stream=True, **fields))
    return list(client.chat.completions.create(model=alias, messages=CHAT, stream=True, **fields))


def texts(chunks: list[Any], choices: int) -> list[str]:
    """What each choice says."""
    found = [""] * choices
    for chunk in chunks:
        for choice in chunk.choices:
            found[choice.index] += (choice.text if hasattr(choice, "text") else choice.delta.content) or ""
    return found


@pytest.mark.parametrize("interval", [4, 8])
@pytest.mark.parametrize(("alias", "choices"), [*((a, n) for a in CHATS for n in (1, 2)), *((a, 1) for a in FIMS)])
def test_chunks_of_several_tokens_bring_the_whole_text_and_are_billed_what_the_model_counted(
    alias: str, interval: int, choices: int, proxy: Proxy, upstream: Upstream
) -> None:
    key = proxy.make_key([alias])
    several = {"n": choices} if choices > 1 else {}
    with upstream.behaving(SERVED[alias].served_name, chunky(interval)):
        told = streamed(proxy, key, alias, stream_options={"include_usage": True}, **several)
        silent = streamed(proxy, key, alias, **several)
    assert texts(told, choices) == texts(silent, choices) == [TEXT] * choices
    assert sum(bool(chunk.choices) for chunk in told) < 30 * choices / 2
    (usage,) = [chunk.usage for chunk in told if chunk.usage]
    assert Usage(usage.prompt_tokens, usage.completion_tokens) == USAGE
    expected = 2 * price(SERVED[alias], USAGE)
    assert proxy.spend(key, expected) == pytest.approx(expected, rel=1e-9)


SEVERAL: dict[str, tuple[str, Any]] = {
    "two answers": ("n", 2),
    "two prompts": ("prompt", ["def add", "def sub"]),
    "two prompts of token ids": ("prompt", [[1, 2], [3]]),
}


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("alias", FIMS)
def test_several_texts_in_one_stream_of_completions_are_a_400_where_litellm_would_mix_them(
    alias: str, name: str, proxy: Proxy, upstream: Upstream
) -> None:
    field, value = SEVERAL[name]
    body = {"model": alias, "prompt": "def add", "stream": True, field: value}
    with upstream.recording() as seen:
        answer = call(f"{proxy.url}/v1/completions", proxy.make_key([alias]), body)
    assert (answer.status, answer.error["param"]) == (400, field)
    assert not seen


@pytest.mark.parametrize("prompt", ["def add", ["def add"], [1, 2, 3]], ids=["text", "list", "token ids"])
@pytest.mark.parametrize("alias", FIMS)
def test_one_prompt_in_whatever_form_is_streamed(alias: str, prompt: Any, proxy: Proxy) -> None:
    client = proxy.client(proxy.make_key([alias]))
    assert texts(list(client.completions.create(model=alias, prompt=prompt, stream=True)), 1) == ["w0 w1 w2 "]


@pytest.mark.parametrize("interval", [1, 8])
@pytest.mark.parametrize("alias", AGENTS)
def test_a_streamed_call_of_a_tool_is_whole_however_its_arguments_were_cut(
    alias: str, interval: int, proxy: Proxy, upstream: Upstream
) -> None:
    key = proxy.make_key([alias])
    with upstream.behaving(SERVED[alias].served_name, chunky(interval)):
        chunks = streamed(proxy, key, alias, tools=[TOOL])
    choices = [choice for chunk in chunks for choice in chunk.choices]
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert "".join(call.function.arguments or "" for call in calls) == ARGUMENTS
    assert [call.function.name for call in calls if call.function.name] == [TOOL["function"]["name"]]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]
    expected = price(SERVED[alias], USAGE)
    assert proxy.spend(key, expected) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alias", [*CHATS, *FIMS])
def test_requests_that_follow_each_other_use_one_connection_to_the_model(
    alias: str, proxy: Proxy, upstream: Upstream
) -> None:
    """LiteLLM makes a client, with its TLS settings, for each request of /v1/completions, unless it is given one."""
    client = proxy.client(proxy.make_key([alias]))
    with upstream.recording() as seen:
        for _ in range(3):
            if alias in FIMS:
                client.completions.create(model=alias, prompt="def add")
            else:
                client.chat.completions.create(model=alias, messages=CHAT)
    assert len({request.connection for request in seen}) == 1
