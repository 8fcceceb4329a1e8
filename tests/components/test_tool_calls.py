"""What Qwen2.5-Coder writes when it calls tools, read by vLLM's real parsers with our plugin.

`RECORDED` are answers of the real models in their shapes, from public issues and results:
github.com/hanXen/vllm-qwen2.5-coder-tool-parser (results/), issues 32926 of vllm-project/vllm
and 180 of QwenLM/Qwen3-Coder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from models.engines.vllm import VllmEngine
from tests.catalog import CATALOG
from tests.components.libraries import UnavailableError
from tests.components.vllm_library import PLUGIN, Vllm, running
from tests.support import recorded

TEMPLATE = PLUGIN.with_name("qwen2_5_coder.jinja").read_text(encoding="utf-8")
PARSER = "qwen2_5_coder"


def tool(name: str, *parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = (tool("get_weather", "city"), tool("calculate", "expression"), tool("write_file", "path", "content"))
SEOUL, TOKYO = ("get_weather", {"city": "Seoul"}), ("get_weather", {"city": "Tokyo"})
BARE = '{\n  "name": "get_weather",\n  "arguments": {\n    "city": "Seoul"\n  }\n}'
ONE = '{"name": "get_weather", "arguments": {"city": "Seoul"}}'
TWO = '{"name": "get_weather", "arguments": {"city": "Tokyo"}}'
CODE = 'def f():\n    return {"a": [1, "}</tools>"]}\n'
FILE = json.dumps({"name": "write_file", "arguments": {"path": "f.py", "content": CODE}})

RECORDED: dict[str, tuple[str, str | None, list[tuple[str, Any]]]] = {
    "tools tags": (f"<tools>\n{ONE}\n</tools>", None, [SEOUL]),
    "tags of Hermes": (f"<tool_call>\n{ONE}\n</tool_call>", None, [SEOUL]),
    "a fence": (f"```json\n{BARE}\n```", None, [SEOUL]),
    "a fence of another word": (f"```xml\n{ONE}\n```", None, [SEOUL]),
    "a fence of no word": (f"```\n{ONE}\n```\n", None, [SEOUL]),
    "bare": (BARE, None, [SEOUL]),
    "bare, on a line": (f"I will look it up.\n{ONE}", "I will look it up.", [SEOUL]),
    "text before": (f"To find out I call a tool.\n\n<tools>\n{ONE}\n</tools>", "To find out I call a tool.", [SEOUL]),
    "text after": (f"<tools>{ONE}</tools>\nThat is all.", "That is all.", [SEOUL]),
    "two tags": (f"<tools>\n{ONE}\n</tools>\n<tools>\n{TWO}\n</tools>", None, [SEOUL, TOKYO]),
    "two in a tag": (f"<tools>\n{ONE}\n{TWO}\n</tools>", None, [SEOUL, TOKYO]),
    "two with a comma": (f"<tools>{ONE}, {TWO}</tools>", None, [SEOUL, TOKYO]),
    "a list": (f"<tools>[\n  {ONE},\n  {TWO}\n]</tools>", None, [SEOUL, TOKYO]),
    "a list in a fence": (f"```json\n[{ONE}, {TWO}]\n```", None, [SEOUL, TOKYO]),
    "a bare list": (f"[{ONE}, {TWO}]", None, [SEOUL, TOKYO]),
    "two fences": (f"First:\n```json\n{ONE}\n```\nThen:\n```json\n{TWO}\n```", "First:\nThen:", [SEOUL, TOKYO]),
    "left open": (f"<tools>\n{ONE}", None, [SEOUL]),
    "a bracket too many": (f"<tools>\n{ONE}}}\n</tools>", None, [SEOUL]),
    "arguments as text": (
        f"<tools>{json.dumps({'name': 'get_weather', 'arguments': json.dumps(SEOUL[1])})}</tools>", None, [SEOUL],
    ),
    "as the API has it": (f'<tools>{{"type": "function", "function": {ONE}}}</tools>', None, [SEOUL]),
    "parameters": ('<tools>{"name": "get_weather", "parameters": {"city": "Seoul"}}</tools>', None, [SEOUL]),
    "code with the marks in it": (
        f"<tools>\n{FILE}\n</tools>", None, [("write_file", {"path": "f.py", "content": CODE})],
    ),
    "raw line breaks": (
        '<tools>{"name": "write_file", "arguments": {"path": "a", "content": "x\ny"}}</tools>',
        None, [("write_file", {"path": "a", "content": "x\ny"})],
    ),
    "a tool that nobody offered, in tags": ('<tools>{"name": "fly", "arguments": {}}</tools>', None, [("fly", {})]),
}  # fmt: skip
# Answers that call nothing, whatever they look like.
TEXTS = {
    "words": "The sum is 4.",
    "JSON that was asked for": 'Here it is:\n\n```json\n{"name": "Ada", "arguments": {"x": 1}}\n```\n\nAdd more.',
    "an object of another shape": '{"city": "Seoul", "country": "KR"}',
    "a person": '{"name": "get_weather"}',
    "code": 'Use this:\n\n```python\nd = {"name": "get_weather", "arguments": {}}\nprint(d)\n```\nDone.',
    "in the middle of a line": f"Write {ONE} to call it.",
    "the tags themselves": "The format has <tools> and </tools> around it, and < or ` mean nothing.",
    "not JSON": "<tools>\n{'name': 'get_weather'}\n</tools>",
    "cut off": '<tools>\n{"name": "get_weather", "argum',
    "an empty tag": "<tools></tools>",
    "nested beyond reason": "[" * 5000 + '{"name": ' * 5000,
    "nothing": "",
}


@pytest.fixture(scope="module")
def vllm() -> Iterator[Vllm]:
    try:
        with running(PLUGIN) as started:
            yield started
    except UnavailableError as error:
        pytest.skip(str(error))


def cut(text: str, seed: int) -> Sequence[str]:
    """As a stream brings it: a few letters at a time, the end of the answer last."""
    dice, pieces = random.Random(seed), list[str]()  # noqa: S311
    while text:
        length = dice.choice((1, 1, 2, 3, 4, 7, 30))
        pieces.append(text[:length])
        text = text[length:]
    return [*pieces, ""]


@pytest.mark.parametrize("shape", RECORDED)
def test_every_shape_of_a_call_is_one(vllm: Vllm, shape: str) -> None:
    text, said, calls = RECORDED[shape]
    assert vllm.answer([text], TOOLS, parser=PARSER) == (said, calls)


@pytest.mark.parametrize("shape", RECORDED)
def test_a_stream_brings_the_same_calls_however_it_is_cut(vllm: Vllm, shape: str) -> None:
    text, said, calls = RECORDED[shape]
    for seed in range(8):
        assert vllm.answer(cut(text, seed), TOOLS, parser=PARSER, stream=True) == (said, calls), seed


@pytest.mark.parametrize("shape", TEXTS)
def test_an_answer_that_calls_nothing_stays_as_it_is(vllm: Vllm, shape: str) -> None:
    text = TEXTS[shape]
    assert vllm.answer([text], TOOLS, parser=PARSER) == (text, [])
    said, calls = vllm.answer(cut(text, 1), TOOLS, parser=PARSER, stream=True)
    assert (said or "", calls) == (text.rstrip(), [])


def test_a_stream_that_is_cut_off_has_what_came_before_the_call(vllm: Vllm) -> None:
    pieces = cut(f"I look.\n<tools>\n{ONE}\n</tools>\n<tools>\n{TWO[:30]}", 3)
    assert vllm.answer(pieces, TOOLS, parser=PARSER, stream=True, ends=False) == ("I look.", [SEOUL])


@pytest.mark.parametrize("shape", [shape for shape in RECORDED if shape != "tags of Hermes"])
def test_the_parser_that_is_recommended_for_qwen_finds_no_call_in_them(vllm: Vllm, shape: str) -> None:
    text, _, _ = RECORDED[shape]
    assert vllm.answer([text], TOOLS, parser="hermes") == (text, [])


def test_the_model_is_asked_for_the_shape_that_is_parsed_and_shown_its_own_calls_in_it(vllm: Vllm) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": 'S"eoul'}}}
    prompt = vllm.prompt(
        TEMPLATE,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call, call]},
            {"role": "tool", "content": "sunny", "tool_call_id": "1"},
            {"role": "tool", "content": "sunny", "tool_call_id": "2"},
        ],
        TOOLS,
    )
    system, user, assistant, results, opened = prompt.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe brief.")
    assert all(json.dumps(one["function"]) in system for one in TOOLS)
    assert user == "user\nWeather?<|im_end|>\n"
    shown = assistant.removeprefix("assistant\n").removesuffix("<|im_end|>\n")
    written = ("get_weather", {"city": 'S"eoul'})
    assert vllm.answer([shown], TOOLS, parser=PARSER) == ("I look.", [written, written])
    assert results.count("<tool_response>\nsunny\n</tool_response>") == 2
    assert opened == "assistant\n"


# What models write that vLLM has a parser of its own for, by its name: Qwen3-Coder, Qwen3, Devstral.
WRITTEN = {
    "qwen3_coder": "<tool_call>\n<function=get_weather>\n<parameter=city>Seoul</parameter>\n</function>\n</tool_call>",
    "hermes": f"<tool_call>\n{ONE}\n</tool_call>",
    "mistral": '[TOOL_CALLS]get_weather[ARGS]{"city": "Seoul"}',
}


@pytest.mark.parametrize("parser", WRITTEN)
def test_a_model_whose_maker_wrote_a_parser_is_read_by_that_one_and_by_no_other(vllm: Vllm, parser: str) -> None:
    for name in WRITTEN:
        found = vllm.answer([WRITTEN[parser]], TOOLS, parser=name)
        assert (found[1] == [SEOUL]) == (name == parser), f"{name} makes {found} of what {parser} is for"


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_without_tools_the_prompt_is_that_of_the_models_own_template(vllm: Vllm, system: str | None) -> None:
    said = system or "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    first = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "?"},
    ]
    assert vllm.prompt(TEMPLATE, [*first, *turns], []) == (
        f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_server_is_started_with_both_files_mounted_by_a_name_of_their_content() -> None:
    for alias, spec in CATALOG.items():
        if not isinstance(spec.engine, VllmEngine) or not spec.engine.files:
            continue
        pod = recorded().pod(alias)
        engine = pod.containers[-1]
        mount = next(m for m in engine["volumeMounts"] if m["name"] == "files")
        assert mount["readOnly"]
        named = next(v for v in pod.spec["volumes"] if v["name"] == "files")["configMap"]["name"]
        content = recorded().manifest("ConfigMap", named)["data"]
        assert content == {PLUGIN.name: PLUGIN.read_text(), "qwen2_5_coder.jinja": TEMPLATE}
        assert f"--tool-parser-plugin={mount['mountPath']}/{PLUGIN.name}" in engine["args"]
        assert f"--chat-template={mount['mountPath']}/qwen2_5_coder.jinja" in engine["args"]
        break
    else:
        raise AssertionError("no entry has files")
