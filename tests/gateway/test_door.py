"""What the gateway opens: every route of the real application is tried, without a key and with a tenant's."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from components.gateway import door
from components.gateway.reconcile_keys import ROUTES
from models.tasks import Task
from tests.gateway.environment import Environment
from tests.gateway.proxy import Proxy, call
from tests.gateway.rendered import SERVED
from tests.gateway.test_routes import CHAT
from tests.gateway.upstream import Upstream
from tests.patience import at_least

ALIAS = "coder-chat"
EMBEDDING = next(alias for alias, spec in SERVED.items() if spec.task is Task.EMBEDDING)
FIM = next(alias for alias, spec in SERVED.items() if spec.task is Task.FIM)

# What routes LiteLLM has, sub-applications and all; of the image's own code, so of the version that is run.
LIST_ROUTES = """
import json
from litellm.proxy.proxy_server import app

def walk(routes, prefix=""):
    for route in routes:
        # FastAPI keeps a router that was included as one entry.
        for one in getattr(route, "effective_route_contexts", lambda: [route])():
            path = prefix + (getattr(one, "path", None) or "")
            socket = "WebSocket" in type(getattr(one, "original_route", one)).__name__
            yield path, ["WEBSOCKET"] if socket else sorted(getattr(one, "methods", None) or ["GET", "POST"])
            yield from walk(getattr(one, "routes", None) or [], path)

listed = list(walk(app.routes)) + [
    (path, [method.upper() for method in methods]) for path, methods in app.openapi()["paths"].items()
]
print("ROUTES" + json.dumps(listed))
"""


@pytest.fixture(scope="module")
def every_route(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Method and path of each, with a value in place of each parameter."""
    done = environment.run("python", "-c", LIST_ROUTES, cwd=tmp_path_factory.mktemp("routes"), variables={})
    text = next(line for line in done.stdout.splitlines() if line.startswith("ROUTES"))
    found = {
        (method, re.sub(r"\{[^}]*\}", "x", path) or "/")
        for path, methods in json.loads(text.removeprefix("ROUTES"))
        for method in methods
    }
    assert len(found) > 700
    return sorted(found)


def statuses(proxy: Proxy, asked: Iterable[tuple[str, str]], headers: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """The status of each bare request, by method and path; all on one connection, but for WebSockets."""
    found: dict[tuple[str, str], int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=at_least(60))
    for method, path in asked:
        if method == "WEBSOCKET":
            found[method, path] = upgraded(proxy, path, headers)
            continue
        connection.request(method, path, "{}" if method in {"POST", "PUT", "PATCH"} else None, dict(headers))
        answer = connection.getresponse()
        answer.read()
        found[method, path] = answer.status
    connection.close()
    return found


def upgraded(proxy: Proxy, path: str, headers: Mapping[str, str]) -> int:
    """The status that a WebSocket is answered with; 101 where it is opened."""
    key = base64.b64encode(bytes(16)).decode()
    head = {"Host": "x", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    head |= {"Sec-WebSocket-Key": key, **headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=at_least(60)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


def status(proxy: Proxy, path: str, headers: Mapping[str, str]) -> int:
    return statuses(proxy, [("GET", path)], headers)["GET", path]


OPEN = {("GET", probe) for probe in door.PROBES} | {("HEAD", probe) for probe in door.PROBES}


def test_every_route_that_no_key_is_made_for_is_closed_without_a_key(
    proxy: Proxy, every_route: list[tuple[str, str]]
) -> None:
    answers = statuses(proxy, every_route, {})
    assert {route for route, code in answers.items() if code < 400} <= OPEN
    # LiteLLM asks for a key where one opens something; the door closes the rest.
    assert {route for route, code in answers.items() if code != 403} <= {
        *OPEN, *((method, path) for method, path in every_route if path in ROUTES)
    }  # fmt: skip


def test_every_route_that_no_key_is_made_for_is_closed_to_a_tenants_key(
    proxy: Proxy, every_route: list[tuple[str, str]]
) -> None:
    # As one that was made by hand: LiteLLM itself would let it call any model's route.
    headers = {"Authorization": f"Bearer {proxy.make_key([ALIAS])}", "Content-Type": "application/json"}
    answers = statuses(proxy, every_route, headers)
    assert {route for route, code in answers.items() if code != 403 and route[1] not in ROUTES} <= OPEN
    assert {path for (_, path), code in answers.items() if code == 200} <= {
        *door.PROBES, "/v1/models", "/models", "/key/info"
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1/models/", "/v1/../ui/", "/%76%31/x", "/ui/index.html", "/nowhere"]
)
def test_a_path_that_is_not_exactly_one_of_them_is_closed(path: str, proxy: Proxy) -> None:
    assert status(proxy, path, {}) == 403


def test_the_admin_key_opens_what_litellm_has(proxy: Proxy) -> None:
    headers = {"Authorization": f"Bearer {proxy.master_key}"}
    assert status(proxy, "/routes", headers) == 200
    assert status(proxy, "/key/list", headers) == 200
    assert status(proxy, "/routes", {"Authorization": f"Bearer {proxy.master_key}x"}) == 403
    assert status(proxy, "/routes", {"x-litellm-api-key": proxy.master_key}) == 403


def test_a_closed_route_says_what_is_open(proxy: Proxy) -> None:
    answer = call(f"{proxy.url}/v1/responses", proxy.make_key([ALIAS]), {"model": ALIAS, "input": "hi"})
    assert (answer.status, answer.error["type"]) == (403, "route_closed")
    assert "/v1/chat/completions" in answer.error["message"]


# --- the body ----------------------------------------------------------------------------------------------------

# A field that decides who bills, where a request goes, or what LiteLLM does besides; a value that would do it.
STEERING: dict[str, Any] = {
    "custom_llm_provider": "openai_like", "api_key": "sk-mine", "api_base": "http://mine", "base_url": "http://mine",
    "model_info": {"input_cost_per_token": 0}, "litellm_params": {}, "litellm_metadata": {"tags": ["x"]},
    "litellm_session_id": "x", "litellm_call_id": "x", "mock_response": "free", "mock_tool_calls": [],
    "fallbacks": ["qwen-local"], "context_window_fallbacks": [], "user_config": {"model_list": []}, "model_list": [],
    "metadata": {"model_info": {"input_cost_per_token": 0}}, "tags": ["x"], "input_cost_per_token": 0,
    "base_model": "gpt-4o-mini", "cache": {"no-cache": True}, "caching": True, "num_retries": 9, "max_retries": 9,
    "timeout": 0.001, "request_timeout": 1, "stream_timeout": 1, "extra_body": {"model": "other"},
    "extra_headers": {"Authorization": "Bearer x"}, "headers": {"x": "y"}, "organization": "x", "api_version": "x",
    "drop_params": False, "additional_drop_params": ["max_tokens"], "allowed_openai_params": ["x"], "no-log": True,
    "guardrails": [], "prompt_id": "x", "proxy_server_request": {}, "specific_deployment": True, "deployment_id": "x",
    "max_output_tokens": 1, "inferenceConfig": {"maxTokens": 1}, "priority": 1, "callbacks": ["x"], "rust": True,
    "web_search_options": {}, "router_settings_override": {}, "vertex_project": "x", "aws_region_name": "x",
    "x" * 5000: 1, "": 1,
}  # fmt: skip


@pytest.mark.parametrize("field", STEERING, ids=lambda name: name[:40] or "empty")
def test_a_field_that_is_no_clients_to_set_is_a_400_that_names_it(field: str, proxy: Proxy, upstream: Upstream) -> None:
    key = proxy.make_key([ALIAS])
    body = {"model": ALIAS, "messages": CHAT, field: STEERING[field]}
    with upstream.recording() as seen:
        answer = call(f"{proxy.url}/v1/chat/completions", key, body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert f"'{field[:80]}" in answer.error["message"]
    assert len(answer.error["message"]) < 250
    assert not seen


WRONG: dict[str, tuple[str, Any]] = {
    "money given back by a negative length": ("max_tokens", -1_000_000),
    "the same by its other name": ("max_completion_tokens", -1),
    "a length that is no number": ("max_tokens", "100"),
    "no answers": ("n", 0),
    "as many answers as there are": ("n", 10**9),
    "two models at once": ("model", f"{ALIAS},qwen-local"),
    "models in a list": ("model", [ALIAS]),
    "a tool server": ("tools", [{"type": "mcp", "server_url": "http://mine", "server_label": "x"}]),
    "a search": ("tools", [{"type": "web_search"}]),
    "tools that are none": ("tools", {"type": "function"}),
    "messages that are none": ("messages", 5),
    "a message that is none": ("messages", ["hello"]),
    "a message of a number": ("messages", [{"role": "user", "content": 5}]),
    "a format by its name": ("response_format", "json"),
    "a stream by number": ("stream", 1),
    "options of a stream that are none": ("stream_options", True),
}


def test_what_says_nothing_and_whole_amounts_pass(proxy: Proxy) -> None:
    body = {"model": ALIAS, "messages": CHAT, "metadata": None, "made_up": None, "max_tokens": 16.0, "stop": None}
    assert call(f"{proxy.url}/v1/chat/completions", proxy.make_key([ALIAS]), body).status == 200


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_would_bend_a_budget_or_a_route_is_a_400(name: str, proxy: Proxy, upstream: Upstream) -> None:
    field, value = WRONG[name]
    with upstream.recording() as seen:
        answer = call(
            f"{proxy.url}/v1/chat/completions",
            proxy.make_key([ALIAS]),
            {"model": ALIAS, "messages": CHAT, field: value},
        )
    assert (answer.status, answer.error["param"]) == (400, field)
    assert not seen


def raw(proxy: Proxy, key: str, text: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """One POST with exactly these bytes."""
    head = {"Host": "gateway", "Connection": "close", "Authorization": f"Bearer {key}"}
    head |= {"Content-Length": str(len(text)), "Content-Type": "application/json", **headers}
    lines = ["POST /v1/chat/completions HTTP/1.1", *(f"{name}: {value}" for name, value in head.items() if value)]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=at_least(60)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + text)
        answer = connection.makefile("rb").read()
    return int(answer.split()[1]), answer


PLAIN = json.dumps({"model": ALIAS, "messages": CHAT}).encode()
BYTES: dict[str, tuple[bytes, dict[str, str]]] = {
    "not JSON": (b"{", {}),
    "a list": (b"[]", {}),
    "nothing": (b"", {}),
    "brackets without end": (b"[" * 500_000, {}),
    "another encoding": (PLAIN.decode().encode("utf-16"), {}),
    "no number": (PLAIN[:-1] + b', "temperature": NaN}', {}),
    "a number without end": (PLAIN[:-1] + b', "temperature": 1e999}', {}),
    "millions of values": (PLAIN[:-1] + b', "stop": [' + b"{}," * (10 << 20) + b"{}]}", {}),
    "a form": (b"model=coder-chat", {"Content-Type": "application/x-www-form-urlencoded"}),
    "JSON by another name": (PLAIN, {"Content-Type": "application/x-protobuf"}),
    "a header that steers": (PLAIN, {"x-litellm-tags": "x"}),
    "a header that retries": (PLAIN, {"X-LiteLLM-Num-Retries": "9"}),
    "a header that unhides": (PLAIN, {"litellm-disable-message-redaction": "true"}),
}


@pytest.mark.parametrize("name", BYTES)
def test_what_could_be_read_in_two_ways_is_a_400(name: str, proxy: Proxy, upstream: Upstream) -> None:
    text, headers = BYTES[name]
    with upstream.recording() as seen:
        code, answer = raw(proxy, proxy.make_key([ALIAS]), text, headers)
    assert code == 400, answer
    assert b"invalid_request_error" in answer
    assert not seen


def test_a_body_beyond_all_measure_is_refused_before_it_is_read_whole(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=at_least(60)) as connection:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(door.MAX_BODY_MIB + 1):
            connection.sendall(b"x" * (1 << 20))
        assert connection.makefile("rb").readline().split()[1] == b"413"


def test_a_key_in_another_header_opens_nothing(proxy: Proxy) -> None:
    key = proxy.make_key([ALIAS])
    for name in ("api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key"):
        assert raw(proxy, key, PLAIN, {"Authorization": "", name: key})[0] == 401
    code, answer = raw(proxy, key, PLAIN, {"Authorization": "", "x-litellm-api-key": key})
    assert code == 400
    assert b"Authorization: Bearer" in answer


def test_what_clients_and_engines_know_reaches_the_model(proxy: Proxy, upstream: Upstream) -> None:
    asked: dict[str, Any] = {
        "temperature": 0.5, "max_tokens": 5, "seed": 7, "stop": ["x"], "top_k": 3, "min_p": 0.1,
        "repetition_penalty": 1.1, "structured_outputs": {"choice": ["a"]}, "chat_template_kwargs": {"thinking": False},
    }  # fmt: skip
    key = proxy.make_key([ALIAS, FIM])
    with upstream.recording() as seen:
        for route, body in (
            ("chat/completions", {"model": ALIAS, "messages": CHAT, **asked}),
            ("completions", {"model": FIM, "prompt": "a", "suffix": "b", "top_k": 3}),
        ):
            assert call(f"{proxy.url}/v1/{route}", key, body).status == 200
    assert {name: seen[0].body.get(name) for name in asked} == asked
    assert (seen[1].body["suffix"], seen[1].body["top_k"]) == ("b", 3)


# --- embeddings --------------------------------------------------------------------------------------------------

NO_TEXT: dict[str, Any] = {
    "ids": [15339, 1917],
    "ids of several": [[15339, 1917], [1]],
    "one of them": ["hello", [1917]],
    "a number": 15339,
    "nested deeper": [[["hello"]]],
    "an object": {"text": "hello"},
    "nothing": None,
}


@pytest.mark.parametrize("route", ["/v1/embeddings", "/embeddings"])
@pytest.mark.parametrize("name", NO_TEXT)
def test_token_ids_are_refused_with_the_setting_that_sends_text(
    name: str, route: str, proxy: Proxy, upstream: Upstream
) -> None:
    key = proxy.make_key([EMBEDDING])
    with upstream.recording() as seen:
        answer = call(f"{proxy.url}{route}", key, {"model": EMBEDDING, "input": NO_TEXT[name]})
    assert (answer.status, answer.error["param"]) == (400, "input")
    assert "check_embedding_ctx_length=False" in answer.error["message"]
    assert not seen


TEXTS: dict[str, Any] = {"one": "hello", "list": ["hello"], "an empty one": ["hello", ""], "many": ["é " * 10] * 1000}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_embedded(name: str, proxy: Proxy, upstream: Upstream) -> None:
    given = TEXTS[name]
    key = proxy.make_key([EMBEDDING])
    with upstream.recording() as seen:
        answer = call(f"{proxy.url}/v1/embeddings", key, {"model": EMBEDDING, "input": given})
    assert answer.status == 200
    assert seen[0].body["input"] in (given, [given])
