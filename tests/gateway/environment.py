"""What the gateway tests run on: a real LiteLLM, its database client, a migrated PostgreSQL; built once, kept.

It lives outside the tree, in `${XDG_CACHE_HOME:-~/.cache}/ai-platform/gateway/<digest>`, and the digest covers
everything it is made from, so a changed lock file builds another. Building takes about a minute, and one process
does it while others wait. `UnavailableError` says why a machine cannot have it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.postgres import Postgres, postgres_bin, postgres_version

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LOCK = HERE / "requirements.lock"
LLAMA_LOCK = HERE / "llama.lock"
PRISMA = HERE / "prisma"


class UnavailableError(Exception):
    """This machine cannot run these tests; the text says what is missing."""


@dataclass(frozen=True)
class Environment:
    """A finished environment. `variables` is the whole process environment of anything started in it."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "venv" / "bin" / "python"

    @property
    def pgdata(self) -> Path:
        """A stopped data directory; its database `template` has LiteLLM's schema."""
        return self.path / "pgdata"

    @property
    def migrations(self) -> Path:
        """The migrations that this LiteLLM ships, a directory each."""
        return next((self.path / "venv" / "lib").glob("python3*/site-packages/litellm_proxy_extras/migrations"))

    @property
    def variables(self) -> dict[str, str]:
        return {
            # Prisma's own command line before the Python one, which only starts it after four seconds of imports.
            "PATH": os.pathsep.join(
                (
                    str(self.path / "prisma" / "node_modules" / ".bin"),
                    str(self.path / "venv" / "bin"),
                    os.environ["PATH"],
                )
            ),
            "PRISMA_CLI_QUERY_ENGINE_TYPE": "binary",
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(HERE / "startup"),
            "PRISMA_BINARY_CACHE_DIR": str(self.path / "prisma"),
            "PRISMA_QUERY_ENGINE_BINARY": str(self.path / "prisma" / "query-engine.js"),
            "PRISMA_SCHEMA_ENGINE_BINARY": str(self.path / "prisma" / "schema-engine.js"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "CHECKPOINT_DISABLE": "1",
        }

    def run(self, *command: str, cwd: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment to its end; its exit code is the caller's to judge."""
        env = {**self.variables, **variables}
        program = shutil.which(command[0], path=env["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900
        )


def ensure_environment() -> Environment:
    """The environment of the current lock files, built on first use."""
    # This file is an input too: it says how the rest is put together.
    environment = Environment(
        _build("litellm", (Path(__file__), LOCK, *sorted(PRISMA.iterdir())), postgres_version(), _litellm)
    )
    os.utime(environment.path)
    return environment


def ensure_llama() -> Path:
    """The Python that has llama.cpp's server as a module, built for any CPU."""
    return _build("llama", (LLAMA_LOCK,), "", lambda path: _python(path, LLAMA_LOCK)) / "venv" / "bin" / "python"


def _build(name: str, inputs: Sequence[Path], extra: str, make: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(f"{extra} {platform.machine()} {sys.version_info[:2]}".encode())
    for file in inputs:
        digest.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-platform" / "gateway"
    path = cache / f"{name}-{digest.hexdigest()[:16]}"
    done, failed = path / ".complete", path.with_suffix(".failed")
    cache.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return path
        if failed.exists() and time.time() - failed.stat().st_mtime < 600:
            raise UnavailableError(failed.read_text())  # the other workers of this run need not try again
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        started = time.monotonic()
        try:
            make(path)
        except (subprocess.CalledProcessError, OSError) as error:
            tail = getattr(error, "stderr", None) or getattr(error, "stdout", None) or ""
            reason = f"{name} environment could not be built: {error}\n{str(tail)[-2000:]}"
            failed.write_text(reason)
            raise UnavailableError(reason) from error
        failed.unlink(missing_ok=True)
        done.touch()
        _say(f"{name} environment built in {time.monotonic() - started:.0f} s: {path}")
    return path


def _litellm(path: Path) -> None:
    if shutil.which("npm") is None:
        raise OSError("no npm on PATH; Node.js 18 or newer is needed")
    if not postgres_bin():
        raise OSError("no PostgreSQL server: apt-get install postgresql")
    environment = Environment(path)
    _python(path, LOCK, compile_bytecode=True)
    _say("installing the database engine's packages")
    shutil.copytree(PRISMA, path / "prisma")
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=path / "prisma")
    schema = environment.migrations.parent / "schema.prisma"
    environment.run("prisma", "generate", f"--schema={schema}", cwd=path, variables={}).check_returncode()
    _say("migrating a database")
    with Postgres.create(path / "pgdata") as server:
        server.create_database("template")
        done = environment.run(
            "litellm", "--skip_server_startup", cwd=path, variables={"DATABASE_URL": server.url("template")}
        )
        done.check_returncode()


def _python(path: Path, lock: Path, *, compile_bytecode: bool = False) -> None:
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    venv = path / "venv"
    _say(f"installing {lock.name}")
    _run(uv, "venv", "--quiet", "--python", sys.executable, str(venv), cwd=path)
    compiled = ("--compile-bytecode",) if compile_bytecode else ()
    _run(
        uv, "pip", "sync", "--quiet", "--require-hashes", *compiled, str(lock),
        cwd=path,
        env={**os.environ, "VIRTUAL_ENV": str(venv)},
    )  # fmt: skip


def _run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=True, timeout=1800)


def _say(text: str) -> None:
    # Past pytest's capture: the first run is long, and silence looks like a hang.
    print(f"tests/gateway: {text}", file=sys.__stderr__, flush=True)
