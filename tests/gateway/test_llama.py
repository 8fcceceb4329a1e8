"""A real engine behind the gateway: llama.cpp's server, on a model of random weights, under our own command line.

The server is that of build 11063 (xllamacpp 2026.9.11063), the image's is 11176. Skipped with the reason where its
package cannot be installed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.gateway.config import model_entry
from components.serving.llama_cpp import llama_cpp_arguments
from components.serving.registration import registration
from models.engines.llama_cpp import LlamaCppEngine
from models.facts import PerToken
from models.memory.llama_cpp import GgufMemory
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import DecoderArchitecture
from ops.endpoint import Endpoint
from ops.measuring.job import PROGRAMS
from ops.measuring.task import RESULT
from ops.smoke.checks import Verdict, exercise, served_name
from tests.gateway.environment import HERE, Environment, UnavailableError, ensure_llama
from tests.gateway.postgres import free_port, terminate
from tests.gateway.proxy import UPSTREAM_KEY, Proxy
from tests.gateway.rendered import SERVED, rendered
from tests.gateway.test_routes import CHAT, FIM_PROMPT, price
from tests.gateway.upstream import Usage
from tests.gguf_entries import FILES, SPEC
from tests.patience import at_least, until_ready

# What tests/gateway/tiny_gguf.py writes, served as an entry of the catalog would be.
TINY = DecoderArchitecture(
    parameters=140_000,
    layers=1,
    heads=4,
    kv_heads=4,
    head_dim=16,
    hidden=64,
    ffn=128,
    vocab=311,
    max_positions=2048,
)


def tiny() -> ModelSpec:
    """An entry of it: three slots of 500 tokens."""
    engine = LlamaCppEngine.of(SPEC).model_copy(update={"threads": 1, "parallel": 3, "batch_tokens": 128})
    assert SPEC.weights
    weights = SPEC.weights.model_copy(update={"architecture": TINY})
    return SPEC.model_copy(update={"engine": engine, "weights": weights, "context": 500})


@dataclass(frozen=True)
class Llama:
    """A server that wants the upstream key."""

    spec: ModelSpec
    url: str  # without a path
    log: Path

    @property
    def memory(self) -> GgufMemory:
        """What the memory model says of it."""
        return LlamaCppEngine.of(self.spec).memory(self.spec)

    def printed_mib(self, pattern: str) -> float:
        """A size that it printed, the last of those."""
        return float(re.findall(pattern + r"\s+([0-9.]+) MiB", self.log.read_text(errors="replace"))[-1])


def _get(url: str, key: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})  # noqa: S310  loopback
    try:
        with urllib.request.urlopen(request, timeout=at_least(30)) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _answers(url: str) -> bool:
    try:
        return _get(f"{url}/v1/models", UPSTREAM_KEY)[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def llama(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    """llama.cpp's server on the loopback interface, all else as the platform renders it."""
    try:
        python = ensure_llama()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    directory = tmp_path_factory.mktemp("llama")
    model, log, spec, port = directory / FILES[0].file, directory / "log", tiny(), free_port()
    subprocess.run([str(environment.python), str(HERE / "tiny_gguf.py"), str(model)], check=True, capture_output=True)
    arguments = llama_cpp_arguments(spec)
    for name, value in {"--model": str(model), "--host": "127.0.0.1", "--port": str(port)}.items():
        arguments[arguments.index(name) + 1] = value
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(python), str(HERE / "llama_server.py"), *arguments],
            env={**os.environ, "LLAMA_API_KEY": UPSTREAM_KEY},
            stdout=out,
            stderr=out,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until_ready(process, lambda: _answers(url), what="llama.cpp", log=log)
        yield Llama(spec, url, log)
    finally:
        terminate(process)


# --- the engine itself -----------------------------------------------------------------------------------------


def test_health_is_open_and_all_else_wants_the_key(llama: Llama) -> None:
    assert _get(f"{llama.url}{llama.spec.engine.health_route}", "")[0] == 200
    for route in (llama.spec.engine.identity_route, llama.spec.engine.metrics_route):
        assert _get(f"{llama.url}{route}", "another")[0] == 401
        assert _get(f"{llama.url}{route}", UPSTREAM_KEY)[0] == 200


def test_metrics_are_those_of_prometheus_and_the_slots_of_others_are_not_shown(llama: Llama) -> None:
    _, metrics = _get(f"{llama.url}{llama.spec.engine.metrics_route}", UPSTREAM_KEY)
    assert "# TYPE llamacpp:prompt_tokens_total counter" in metrics
    assert _get(f"{llama.url}/slots", UPSTREAM_KEY)[0] == 501


def test_it_says_the_name_of_the_entry_and_smoke_s_questions_are_answered(llama: Llama) -> None:
    endpoint = Endpoint(llama.url, at_least(30), UPSTREAM_KEY)
    assert served_name(llama.spec, endpoint).verdict is Verdict.OK
    checks = list(exercise(llama.spec, llama.spec.served_name, endpoint))
    assert [(check.request, check.verdict) for check in checks] == [
        ("chat", Verdict.OK),
        ("chat, streamed", Verdict.OK),
    ], checks


def test_the_memory_that_it_prints_is_what_the_memory_model_says(llama: Llama) -> None:
    assert llama.printed_mib(r"llama_kv_cache: size =") == pytest.approx(llama.memory.kv_cache_gib * 1024, abs=0.01)
    printed = llama.printed_mib(r"CPU compute buffer size =")
    # Of a model so small that the mask is a third of it; those of real ones: tests/models/llama_cpp_logs.py.
    assert printed <= llama.memory.compute_gib * 1024 <= 1.5 * printed


def test_every_slot_holds_the_context_that_the_gateway_announces(llama: Llama) -> None:
    """And no more is promised: the rest of the rounded size is nobody's."""
    slots, context = re.findall(r"n_slots = (\d+), n_ctx_slot = (\d+)", llama.log.read_text(errors="replace"))[-1]
    assert int(slots) == LlamaCppEngine.of(llama.spec).parallel
    announced = model_entry(registration(llama.spec, "serving"))["model_info"]["max_input_tokens"]
    assert announced <= int(context) < announced + 256


# --- measured ---------------------------------------------------------------------------------------------------


def _counted(llama: Llama, counter: str) -> float:
    _, metrics = _get(f"{llama.url}{llama.spec.engine.metrics_route}", UPSTREAM_KEY)
    return float(re.findall(rf"^llamacpp:{counter} ([0-9.e+]+)$", metrics, re.MULTILINE)[0])


def _measure(llama: Llama, program: Path, task: dict[str, Any]) -> Any:
    """What a program of ops/measuring finds of it, run as its Job runs it."""
    own = {"MEASURE_URL": llama.url, "MEASURE_KEY": UPSTREAM_KEY, "MEASURE_TASK": json.dumps(task)}
    words = [sys.executable, "-I", "-B", str(program)]
    done = subprocess.run(words, env=own, capture_output=True, text=True, timeout=at_least(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1].removeprefix(RESULT))


def test_what_the_bench_counts_is_what_the_server_counts(llama: Llama) -> None:
    """Requests that the end of a run cuts off are on the server's side alone: at most one a stream."""
    # Between warm-up and end the pace may be another one, where a machine does other work meanwhile.
    off = [abs(_bench_and_count(llama) - 1)]
    while off[-1] > 0.25 and len(off) < 4:
        off.append(abs(_bench_and_count(llama) - 1))
    assert min(off) < 0.25, off


def _bench_and_count(llama: Llama) -> float:
    """Tokens that the bench's rates come to, by those that the server wrote; checks what is counted exactly."""
    wanted, streams, seconds = {"name": "small", "prompt_tokens": 200, "output_tokens": 32}, 3, 3
    read, written = (_counted(llama, f"{name}_total") for name in ("prompt_tokens", "tokens_predicted"))
    task = {"model": llama.spec.served_name, "shapes": [wanted], "streams": streams, "duration_s": seconds, "rates": 1}
    runs = _measure(llama, PROGRAMS / "load.py", task)[0]["runs"]
    written = _counted(llama, "tokens_predicted_total") - written
    read = _counted(llama, "prompt_tokens_total") - read
    completed = sum(run["requests"]["completed"] for run in runs)
    cut = sum(run["requests"]["sent"] - run["requests"]["completed"] for run in runs)
    assert completed
    assert not any(run["requests"]["failed"] for run in runs)
    assert {run["output_tokens"] for run in runs} == {32}
    assert all(run["prompt_tokens"] == pytest.approx(200, rel=0.1) for run in runs)
    assert completed * 32 <= written <= (completed + cut) * 32 + 3  # three tokens of the calibration
    assert read <= (completed + cut) * 220 + 500
    return sum(run["tokens_per_second"]["output"] * seconds for run in runs) / written


def test_the_program_that_asks_brings_what_it_writes_and_the_sandbox_finds_that_wrong(
    llama: Llama, tmp_path: Path
) -> None:
    for name in ("answers.py", "asking.py", "execute.py"):
        shutil.copy(PROGRAMS / name, tmp_path)
    body = {"messages": [{"role": "user", "content": "def add(a, b)"}], "max_tokens": 24, "temperature": 0}
    requests = [{"id": "add", "path": "/v1/chat/completions", "body": body}]
    (tmp_path / "requests.json.gz").write_bytes(gzip.compress(json.dumps(requests).encode()))
    (answer,) = _measure(llama, tmp_path / "answers.py", {"model": llama.spec.served_name, "streams": 1})
    assert answer["text"]
    assert answer["error"] == ""
    code = f"def add(a, b):\n    {answer['text']}\n\nassert add(1, 2) == 3"
    (tmp_path / "programs.json.gz").write_bytes(gzip.compress(json.dumps([{"id": "add", "code": code}]).encode()))
    (judged,) = _measure(llama, tmp_path / "execute.py", {"seconds": 5})
    assert not judged["passed"]
    assert judged["why"]


# --- behind the gateway ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered(proxy: Proxy, llama: Llama) -> dict[str, ModelSpec]:
    """Aliases at the real server's address: the entry's own, and one of the catalog's that completes raw prompts."""
    entries = {"llama-own": (model_entry(registration(llama.spec, "serving")), llama.spec)}
    for entry in rendered().model_list:
        spec = SERVED[entry["model_name"]]
        if spec.task is Task.FIM:
            entries["llama-fim"] = (entry, spec)
    for alias, (entry, _) in entries.items():
        at = {"api_base": f"{llama.url}/v1", "api_key": UPSTREAM_KEY}
        proxy.admin(
            "/model/new",
            {
                "model_name": alias,
                "litellm_params": {**entry["litellm_params"], **at},
                "model_info": entry["model_info"],
            },
        )
    return {alias: spec for alias, (_, spec) in entries.items()}


def _asked(client: Any, alias: str, **options: Any) -> Any:
    if alias == "llama-fim":
        return client.completions.create(model=alias, prompt=FIM_PROMPT, max_tokens=8, **options)
    return client.chat.completions.create(model=alias, messages=CHAT, max_tokens=8, **options)


every_alias = pytest.mark.parametrize("alias", ["llama-own", "llama-fim"])


@every_alias
def test_a_real_engine_answers_and_is_billed_what_it_counted(
    alias: str, proxy: Proxy, registered: dict[str, ModelSpec]
) -> None:
    key = proxy.make_key([alias])
    answer = _asked(proxy.client(key), alias)
    usage = Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert usage.prompt > 1
    assert usage.completion > 0
    expected = price(registered[alias], usage)
    assert proxy.spend(key, expected) == pytest.approx(expected, rel=1e-9)


def test_the_price_that_is_billed_is_the_entry_s(registered: dict[str, ModelSpec]) -> None:
    sold = registered["llama-own"].price
    assert isinstance(sold, PerToken)
    assert price(registered["llama-own"], Usage(1_000_000, 1_000_000)) == pytest.approx(
        sold.input_usd_per_mtok + sold.output_usd_per_mtok
    )


@every_alias
def test_a_real_engine_streams(alias: str, proxy: Proxy, registered: dict[str, ModelSpec]) -> None:
    assert alias in registered
    chunks: list[Any] = list(_asked(proxy.client(proxy.make_key([alias])), alias, stream=True))
    finished = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finished in (["length"], ["stop"])


def test_more_requests_than_slots_wait_and_are_all_answered(proxy: Proxy, registered: dict[str, ModelSpec]) -> None:
    assert registered
    client = proxy.client(proxy.make_key(["llama-own"]))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(_asked, client, "llama-own") for _ in range(8)]
        answers = [answer.result() for answer in asked]
    assert all(answer.usage.completion_tokens for answer in answers)
