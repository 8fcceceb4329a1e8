"""Stand-ins for what `ops smoke` and `ops keys` talk to: a model server and gateway on loopback, and a kubectl."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from models.engines.tei import TeiEngine
from models.facts import PerToken
from models.spec import ModelSpec
from models.tasks import Task
from tests.catalog import CATALOG
from tests.quiet_server import QuietServer

Json = dict[str, Any]
USAGE = {"prompt_tokens": 40, "completion_tokens": 10}


@dataclass
class Answer:
    """What a server gives. A list is a stream of events."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    delay: float = 0
    cut: bool = False  # a stream that ends in the middle of a chunk


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    path: str
    key: str
    body: Json


Fault = Callable[[Asked, Answer], Answer]


class Server:
    """Every model of the catalog at once, as a model server (`spec`) or as a gateway (None).

    `fault` changes what it would answer.
    """

    def __init__(self, spec: ModelSpec | None = None) -> None:
        self.spec = spec
        self.seen: list[Asked] = []
        self.spend = 0.25
        self.charging = True
        self.fault: Fault = lambda _asked, answer: answer
        self.admin: dict[str, Any] = {}
        server = self

        class Handler(_Handler):
            owner = server

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> Answer:
        route = asked.path.partition("?")[0]
        if route in self.admin:
            return Answer(self.admin[route])
        if route == "/key/info":
            wallet = {"key_alias": "smoke", "spend": self.spend, "max_budget": 1.0, "budget_duration": "1d"}
            return Answer({"info": {**wallet, "budget_reset_at": "2026-11-22T00:00:00Z"}})
        if not asked.body:
            return self._names(route)
        spec = self.spec or CATALOG[asked.body["model"]]
        usage: Json = dict(USAGE) if spec.task is not Task.EMBEDDING else {"prompt_tokens": 40}
        body = _generate(spec, asked.body, usage)
        if self.spec:
            return Answer(body)
        cost = cost_of(spec)
        self.spend += cost if self.charging else 0
        headers = {"x-litellm-model-group": spec.alias}
        if isinstance(body, list):
            usage["cost"] = cost
        else:
            headers["x-litellm-response-cost"] = repr(cost)
        return Answer(body, headers=headers)

    def _names(self, route: str) -> Answer:
        if self.spec and isinstance(self.spec.engine, TeiEngine):
            return Answer({"served_model_name": self.spec.served_name}, status=200 if route == "/info" else 404)
        names = [self.spec.served_name] if self.spec else [*CATALOG, "registered-by-hand"]
        return Answer({"data": [{"id": name} for name in names]}, status=200 if route == "/v1/models" else 404)


def cost_of(spec: ModelSpec) -> float:
    """US dollars of a request of USAGE."""
    assert isinstance(spec.price, PerToken)
    output = 0 if spec.task is Task.EMBEDDING else USAGE["completion_tokens"]
    return (USAGE["prompt_tokens"] * spec.price.input_usd_per_mtok + output * spec.price.output_usd_per_mtok) / 1e6


def _generate(spec: ModelSpec, body: Json, usage: Json) -> Any:
    if spec.task is Task.EMBEDDING:
        assert spec.weights
        vector = [0.5] * spec.weights.architecture.hidden
        return {"data": [{"embedding": vector} for _ in body["input"]], "usage": usage}
    if body.get("stream"):
        pieces: list[Json] = [{"delta": {"content": "hel"}}, {"delta": {"content": "lo"}}, {"delta": {}}]
        if spec.task is Task.FIM:
            pieces = [{"text": "return "}, {"text": "a + b"}, {}]
        return [*({"choices": [piece]} for piece in pieces), {"choices": [], "usage": usage}]
    if spec.task is Task.FIM:
        return {"choices": [{"text": "return a + b"}], "usage": usage}
    message: Json = {"role": "assistant", "content": "hello"}
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        call = {"name": "read_file", "arguments": '{"path": "README.md"}'}
        message = {"content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": call}]}
    return {"choices": [{"message": message}], "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Json) -> None:
        asked = Asked(self.path, self.headers.get("authorization", "").removeprefix("Bearer "), body)
        self.owner.seen.append(asked)
        answer = self.owner.fault(asked, self.owner.answer(asked))
        time.sleep(answer.delay)
        given: Any = answer.body
        if isinstance(given, list):
            events = [f"data: {json.dumps(event)}\n\n" for event in cast("list[Json]", given)]
            content = "".join([*events, "data: [DONE]\n\n"]).encode()
        else:
            content = given if isinstance(given, bytes) else json.dumps(given).encode()
        self.close_connection = True
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer.cut else content)


KUBECTL = """#!{python} -IS
import json, os, sys, time
state = json.load(open({state!r}))
with open({log!r}, "a") as log:
    log.write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
words = [word for word in sys.argv[1:] if not word.startswith("-")]
namespace = next((word.partition("=")[2] for word in sys.argv if word.startswith("--namespace=")), None)
if namespace is None:  # what `ops.findings` looks at
    print(json.dumps({{"items": state["objects"] if any("pods" in word for word in words) else []}}))
    sys.exit()
if words[0] == "port-forward":
    port = state["forwards"].get(namespace + "/" + words[1])
    if port is None:
        sys.exit("error: unable to forward port because pod is not running. Current status=Pending")
    if port:
        print("Forwarding from 127.0.0.1:%d -> 8000" % port, flush=True)
    time.sleep(60)
elif words[:2] == ["get", "secret"]:
    if namespace + "/" + words[2] not in state["secrets"]:
        sys.exit('Error from server (NotFound): secrets "%s" not found' % words[2])
    print(json.dumps({{"data": state["secrets"][namespace + "/" + words[2]]}}))
elif words[:2] == ["get", "nodes"]:
    print(json.dumps({{"items": [{{"status": {{"nodeInfo": {{"kubeletVersion": v}}}}}} for v in state["kubelets"]]}}))
else:
    items = [{{"metadata": {{"name": name}}, "spec": {{"replicas": wanted}}, "status": {{"readyReplicas": ready}}}}
             for name, (wanted, ready) in state["deployments"].items()]
    print(json.dumps({{"items": items}}))
"""


@dataclass
class Kubectl:
    """A kubectl on PATH that knows one cluster and keeps a log of what it was asked.

    A forwarded port of None fails, one of 0 never listens.
    """

    directory: Path
    secrets: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])  # "namespace/name"
    deployments: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])  # wanted, ready
    forwards: dict[str, int | None] = field(default_factory=dict[str, "int | None"])  # "namespace/svc/name"
    objects: list[Json] = field(default_factory=list[Json])  # what there is to look at for a finding
    kubelets: list[str] = field(default_factory=lambda: ["v1.36.3-gke.1"])  # version of each node's

    @property
    def path(self) -> str:
        """PATH with this kubectl first."""
        return f"{self.directory}{os.pathsep}{os.environ['PATH']}"

    def write(self) -> None:
        """Put it on disk as it now is."""
        state, log = self.directory / "state.json", self.directory / "log"
        program = self.directory / "kubectl"
        program.write_text(KUBECTL.format(python=sys.executable, state=str(state), log=str(log)))
        program.chmod(0o755)
        secrets = {name: encoded(values) for name, values in self.secrets.items()}
        whole = {
            "secrets": secrets,
            "deployments": self.deployments,
            "forwards": self.forwards,
            "kubelets": self.kubelets,
            "objects": self.objects,
        }
        state.write_text(json.dumps(whole))

    @property
    def calls(self) -> list[tuple[int, list[str]]]:
        """Process and arguments of each call."""
        log = self.directory / "log"
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def running(self) -> list[int]:
        """Processes of it that have not ended."""
        return [pid for pid, _ in self.calls if Path(f"/proc/{pid}").exists()]


def encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
