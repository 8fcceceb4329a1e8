"""A real PostgreSQL on a temporary data directory: loopback, a free port, no password, no fsync."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.patience import at_least, until_ready


@cache
def postgres_bin() -> Path | None:
    """The directory of `postgres`, `initdb` and the rest; the newest of Debian's, else whatever PATH has."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("postgres")
    candidates = [*reversed(debian), *([Path(found).resolve().parent] if found else [])]
    return next((path for path in candidates if (path / "initdb").exists()), None)


def postgres_version() -> str:
    """`postgres (PostgreSQL) 15.12 ...`, or nothing where there is none."""
    directory = postgres_bin()
    if directory is None:
        return ""
    return subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True).stdout


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server_user() -> str | None:
    """Whom to run the server as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


class Postgres:
    """One server. `stop`, `start` and `kill` play an outage; leaving the `with` block ends it and its files."""

    def __init__(self, data: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._data = data
        self._user = _server_user()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._keep: Path | None = None

    @classmethod
    def create(cls, keep: Path) -> Postgres:
        """A new, empty server whose stopped data directory is copied to `keep` at the end."""
        server = cls._prepare()
        server._keep = keep
        server._tool(
            "initdb", "-D", str(server._data), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"
        )
        server.start()
        return server

    @classmethod
    def copy_of(cls, template: Path) -> Postgres:
        """A server on a copy of a stopped data directory."""
        server = cls._prepare()
        shutil.copytree(template, server._data, dirs_exist_ok=True)
        server._hand_over()
        server.start()
        return server

    @classmethod
    def _prepare(cls) -> Postgres:
        scratch = Path(tempfile.mkdtemp(prefix="gateway-pg-"))
        server = cls(scratch / "data", scratch)
        server._data.mkdir(mode=0o700)
        server._hand_over()
        return server

    def _hand_over(self) -> None:
        if self._user is None:
            return
        for path in (self._scratch, *self._scratch.rglob("*")):
            shutil.chown(path, self._user)
        self._data.chmod(0o700)

    def _command(self, program: str, *arguments: str) -> list[str]:
        directory = postgres_bin()
        assert directory is not None
        return [str(directory / program), *arguments]

    def _tool(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            self._command(program, *arguments),
            user=self._user, capture_output=True, text=True, check=False, cwd=self._scratch,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, program, done.stdout, done.stderr)
        return done.stdout

    def url(self, database: str) -> str:
        """What a client connects by."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = (
            "fsync=off",
            "full_page_writes=off",
            "max_connections=300",
            "max_wal_size=512MB",
            "log_checkpoints=off",
        )
        self._process = subprocess.Popen(
            self._command(
                "postgres", "-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._scratch),
                *(word for setting in settings for word in ("-c", setting)),
            ),
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=(self._scratch / "log").open("ab"),
            cwd=self._scratch,
        )  # fmt: skip
        until_ready(self._process, self._is_ready, what="PostgreSQL", log=self._scratch / "log")

    def _is_ready(self) -> bool:
        ask = self._command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(ask, check=False).returncode == 0

    def stop(self) -> None:
        """Stop it at once, ending every connection, losing nothing that was committed."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            self._process.wait(at_least(30))

    def kill(self) -> None:
        """End it as a lost node does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # an immediate shutdown: recovery on the next start
        self._process.wait(at_least(30))

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """Rows of one statement, as text."""
        out = self._tool(
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(database),
            "-c",
            statement,
        )
        return [line.split("\t") for line in out.splitlines()]

    def create_database(self, name: str, *, template: str = "template1") -> None:
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def dump(self, database: str) -> str:
        """A plain SQL dump."""
        return self._tool("pg_dump", "-d", self.url(database), "--no-owner")

    def script(self, database: str, statements: str) -> None:
        """Run SQL as `psql` reads it from a file, until the first error."""
        done = subprocess.run(
            self._command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url(database)),
            input=statements, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, "psql", done.stdout, done.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._keep is not None and error is None:
            shutil.copytree(self._data, self._keep)
        shutil.rmtree(self._scratch, ignore_errors=True)


def terminate(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to leave, then make it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(at_least(60))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
