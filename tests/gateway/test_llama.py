"""A real engine behind the gateway: llama.cpp's OpenAI server, on a model of random weights.

Skipped with the reason where it cannot be compiled.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from models.tasks import Task
from tests.gateway.environment import HERE, Environment, UnavailableError, ensure_llama
from tests.gateway.postgres import free_port, terminate
from tests.gateway.proxy import UPSTREAM_KEY, Proxy, call
from tests.gateway.rendered import SERVED, rendered
from tests.gateway.test_routes import CHAT, FIM_PROMPT, price
from tests.gateway.upstream import Usage
from tests.patience import until_ready


def _answers(url: str) -> bool:
    try:
        return call(f"{url}/models", UPSTREAM_KEY).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def llama(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a llama.cpp server that wants the upstream key."""
    try:
        python = ensure_llama()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    directory = tmp_path_factory.mktemp("llama")
    model = directory / "tiny.gguf"
    subprocess.run([str(environment.python), str(HERE / "tiny_gguf.py"), str(model)], check=True, capture_output=True)
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(python), "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "512", "--n_threads", "1",
                "--api_key", UPSTREAM_KEY, "--host", "127.0.0.1", "--port", str(port),
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/v1"
    try:
        until_ready(process, lambda: _answers(url), what="llama.cpp", log=directory / "log")
        yield url
    finally:
        terminate(process)


@pytest.fixture(scope="module")
def registered(proxy: Proxy, llama: str) -> dict[Task, str]:
    """Aliases of the catalog's own entries at the real server's address, by task."""
    aliases: dict[Task, str] = {}
    for entry in rendered().model_list:
        spec = SERVED[entry["model_name"]]
        if spec.task in {Task.CHAT, Task.FIM} and spec.task not in aliases:
            aliases[spec.task] = f"llama-{spec.alias}"
            proxy.admin(
                "/model/new",
                {
                    "model_name": aliases[spec.task],
                    "litellm_params": {**entry["litellm_params"], "api_base": llama, "api_key": UPSTREAM_KEY},
                    "model_info": entry["model_info"],
                },
            )
    return aliases


@pytest.mark.parametrize("task", [Task.CHAT, Task.FIM])
def test_a_real_engine_answers_and_is_billed_what_it_counted(
    task: Task, proxy: Proxy, registered: dict[Task, str]
) -> None:
    alias = registered[task]
    key = proxy.make_key([alias])
    client = proxy.client(key)
    answer: Any = (
        client.completions.create(model=alias, prompt=FIM_PROMPT, max_tokens=8)
        if task is Task.FIM
        else client.chat.completions.create(model=alias, messages=CHAT, max_tokens=8)
    )
    usage = Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert usage.prompt > 1
    assert usage.completion > 0
    expected = price(SERVED[alias.removeprefix("llama-")], usage)
    assert proxy.spend(key, expected) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("task", [Task.CHAT, Task.FIM])
def test_a_real_engine_streams(task: Task, proxy: Proxy, registered: dict[Task, str]) -> None:
    alias = registered[task]
    client = proxy.client(proxy.make_key([alias]))
    chunks: list[Any] = (
        list(client.completions.create(model=alias, prompt=FIM_PROMPT, max_tokens=8, stream=True))
        if task is Task.FIM
        else list(client.chat.completions.create(model=alias, messages=CHAT, max_tokens=8, stream=True))
    )
    finished = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finished in (["length"], ["stop"])
