"""A real LiteLLM proxy as the cluster runs it: config, hook and model state in mounted directories."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openai import OpenAI

from tests.gateway.environment import ROOT, Environment
from tests.gateway.postgres import free_port, terminate
from tests.gateway.rendered import rendered
from tests.patience import at_least, patient, until_ready

PROGRAMS = ROOT / "components" / "gateway"
UPSTREAM_KEY = "sk-upstream-" + secrets.token_hex(16)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of the gateway."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> dict[str, Any]:
        return self.body["error"]


def call(url: str, key: str, body: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Answer:
    """POST a body, or GET without one; an error status is an answer."""
    request = urllib.request.Request(  # noqa: S310  loopback
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout or at_least(30)) as response:  # noqa: S310
            return Answer(response.status, json.loads(response.read() or b"null"), dict(response.headers))
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return Answer(error.code, json.loads(text), dict(error.headers))
        except json.JSONDecodeError:
            return Answer(error.code, {"error": {"message": text.decode()}}, dict(error.headers))


def mount(directory: Path, files: Mapping[str, str]) -> None:
    """Put files where a pod sees a ConfigMap, and swap them as kubelet does: one rename of the link `..data`."""
    directory.mkdir(parents=True, exist_ok=True)
    version = directory / f"..{time.time_ns()}"
    version.mkdir()
    for name, text in files.items():
        (version / name).write_text(text)
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    fresh = directory / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(directory / "..data")


@dataclass
class Proxy:
    """One replica. Start it with `launch` and `wait`, so that several start at once."""

    environment: Environment
    directory: Path
    files: Mapping[str, str]  # of the ConfigMap: config.yaml and the hooks beside it
    database_url: str
    master_key: str
    salt_key: str
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def launch(self) -> Self:
        """Start it without waiting."""
        mount(self.directory / "config", self.files)
        if not (self.directory / "state").exists():
            self.set_state({})
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.environment.python.with_name("litellm")),
                    "--config", str(self.directory / "config" / "config.yaml"),
                    "--host", "127.0.0.1", "--port", str(self.port),
                ],
                env=self._variables(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        return self

    def _variables(self) -> dict[str, str]:
        return {
            **self.environment.variables,
            **rendered().variables,
            "TMPDIR": str(self.directory),
            "DATABASE_URL": self.database_url,
            "LITELLM_MASTER_KEY": self.master_key,
            "LITELLM_SALT_KEY": self.salt_key,
            "UPSTREAM_API_KEY": UPSTREAM_KEY,
            "MODEL_STATE_FILE": str(self.directory / "state" / "state.json"),
            **self.variables,
        }

    def wait(self) -> Self:
        """Until it is ready as its readiness probe sees it."""
        assert self.process is not None
        until_ready(self.process, self._is_ready, what="the proxy", log=self.directory / "log")
        return self

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return call(f"{self.url}/health/readiness", "", timeout=30).status == 200
        return False

    def stop(self) -> None:
        """As a rolling update stops it: SIGTERM, and time to write what it holds."""
        if self.process:
            terminate(self.process)

    def kill(self) -> None:
        """As a lost node stops it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- as an operator --------------------------------------------------------------------------------------

    def admin(self, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """The admin API with the master key; raises on anything but 200."""
        answer = call(f"{self.url}{route}", self.master_key, body)
        assert answer.status == 200, f"{route}: {answer.status} {answer.body}"
        return answer.body

    def make_key(self, models: Sequence[str], **fields: Any) -> str:
        """A new key for these aliases."""
        return self.admin("/key/generate", {"models": list(models), **fields})["key"]

    def key_info(self, key: str) -> dict[str, Any]:
        return self.admin(f"/key/info?key={key}")["info"]

    def spend(self, key: str, reached: float = 0) -> float:
        """What the database has against a key, once it has reached so much."""
        spend = 0.0
        for _ in patient(30):
            spend = float(self.key_info(key)["spend"])
            if spend >= reached - 1e-12:
                break
        return spend

    def set_state(self, models: Mapping[str, Any]) -> None:
        """Which aliases are off, as the ConfigMap says it."""
        self.set_state_text(json.dumps({"models": models}))

    def set_state_text(self, text: str) -> None:
        mount(self.directory / "state", {"state.json": text})

    # --- as a tenant -----------------------------------------------------------------------------------------

    def client(self, key: str, *, max_retries: int = 0, headers: Mapping[str, str] | None = None) -> OpenAI:
        """The official client; by default without its own retries, so that a test sees each answer."""
        return OpenAI(
            base_url=f"{self.url}/v1",
            api_key=key,
            max_retries=max_retries,
            timeout=at_least(30),
            default_headers=headers,
        )


def master_key() -> str:
    """A key LiteLLM accepts: it refuses to start with a well-known one."""
    return "sk-" + secrets.token_hex(24)
