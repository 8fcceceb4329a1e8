"""A real Pulumi engine for the tests, with a home, state and copy of the project of its own.

Nothing of the user's is read or written but the cache of plugins. The GCP provider is always the stand-in of
`gcp_provider/`, so no run can reach Google Cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.embedded_cluster.control_plane import EmbeddedCluster
from stacks.secrets import DATABASE_PASSWORD, MASTER_KEY, SALT_KEY, SERVING_API_KEY, SecretKey, key_value
from tests.checkout import clone
from tests.patience import at_least
from tests.support import config

_STAND_IN = Path(__file__).parent / "gcp_provider"
State = dict[str, Any]  # a resource of `pulumi stack export`


def why_unavailable() -> str | None:
    """Why no engine can run here, for a test's skip, or None."""
    return None if shutil.which("pulumi") else "no `pulumi` on PATH: nothing ran on the real engine"


def secret_of_test(secret: SecretKey) -> str:
    """A value of the right shape, another one for each secret."""
    return secret.placeholder + secret.key.replace(".", "")


@dataclass(frozen=True)
class Outcome:
    """How a run of the CLI ended. `text` is all that it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class Engine:
    """One stack of a copy of the project. `environment` comes on top of what every run needs."""

    folder: Path
    stack: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def prepared(cls, folder: Path, stack: str, cluster: EmbeddedCluster) -> Engine:
        """A new stack with its secrets that deploys to the cluster; `ai-dev` finds it as its GKE cluster."""
        for name in ("home", "state", "tmp"):
            (folder / name).mkdir(parents=True)
        plugins = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
        if plugins.is_dir():
            (folder / "home" / "plugins").symlink_to(plugins)
        project = clone(folder / "project")
        (project / ".venv").symlink_to(sys.prefix)
        engine = cls(
            folder,
            stack,
            {
                "GCP_STAND_IN_KUBECONFIG": str(cluster.kubeconfig),
                "GCP_STAND_IN_CLOUD": str(folder / "cloud.json"),
                # A GKE endpoint has a public certificate; this one's has to be made known.
                "SSL_CERT_FILE": str(cluster.root / "pki" / "apiserver.crt"),
            },
        )
        engine.run("stack", "init", stack)
        keys = json.loads(config(stack=stack).values.get("ai-platform:keys", "{}"))
        secrets = (MASTER_KEY, SALT_KEY, DATABASE_PASSWORD, SERVING_API_KEY, *map(key_value, keys))
        engine.run("config", "set-all", "--path", *(f"--secret={s.key}={secret_of_test(s)}" for s in secrets))
        if stack == "local":
            engine.configure(kubeconfig=cluster.kubeconfig)
        else:
            engine.set("gcp:project=stand-in")
        return engine

    def set(self, *assignments: str) -> None:
        """`pulumi config set` of `key=value` pairs; a dot in a key leads into an object."""
        self.run("config", "set-all", "--path", *(f"--plaintext={assignment}" for assignment in assignments))

    def configure(self, **values: object) -> None:
        """Keys of the project's own namespace."""
        self.set(*(f"{key}={value}" for key, value in values.items()))

    def up(self, *assignments: str) -> Outcome:
        """`pulumi up` with some config changed before; raises if it fails."""
        if assignments:
            self.set(*assignments)
        return self.run("up", "--yes", "--skip-preview")

    def try_up(self, *assignments: str) -> Outcome:
        """The same, when it may fail."""
        if assignments:
            self.set(*assignments)
        return self.run("up", "--yes", "--skip-preview", check=False)

    def preview(self) -> list[dict[str, Any]]:
        """The steps of `pulumi preview --json`."""
        return json.loads(self.output("preview", "--json"))["steps"]

    def changes(self) -> dict[str, str]:
        """What a preview would do to which resource, by URN; empty if nothing."""
        return {step["urn"]: step["op"] for step in self.preview() if step["op"] not in ("same", "refresh")}

    def resources(self) -> list[State]:
        """The state, in the order of registration."""
        return json.loads(self.output("stack", "export"))["deployment"].get("resources", [])

    def output(self, *arguments: str) -> str:
        """What a command prints to its standard output."""
        done = self._completed(arguments)
        assert done.returncode == 0, f"pulumi {' '.join(arguments)}: ...{(done.stdout + done.stderr)[-4000:]}"
        return done.stdout

    def run(self, *arguments: str, check: bool = True) -> Outcome:
        """Run a command to its end."""
        done = self._completed(arguments)
        outcome = Outcome(done.returncode, done.stdout + done.stderr)
        assert not check or outcome.code == 0, f"pulumi {' '.join(arguments)}:\n{outcome.text}"
        return outcome

    @contextmanager
    def running(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """A command under way; it and all that it started is gone afterwards."""
        with (
            (self.folder / "running.log").open("w") as log,
            self._started(arguments, stdout=log, stderr=subprocess.STDOUT) as process,
        ):
            yield process

    @property
    def printed(self) -> str:
        """What the command of `running` has printed so far."""
        return (self.folder / "running.log").read_text()

    def _completed(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        with self._started(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            printed, complaints = process.communicate(timeout=at_least(300))
            return subprocess.CompletedProcess(process.args, process.returncode, printed, complaints)

    @contextmanager
    def _started(self, arguments: tuple[str, ...], **streams: Any) -> Generator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.folder / "project",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **streams,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            _end_session(process.pid)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        stack = [] if arguments[:2] == ("stack", "init") else ["--stack", self.stack]
        return ["pulumi", *arguments, *stack, "--non-interactive", "--color=never"]

    @property
    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "KUBE", "GOOGLE_"))}
        return {
            **kept,
            "PATH": os.pathsep.join([str(_STAND_IN), f"{sys.prefix}/bin", os.environ["PATH"]]),
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "of a test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Each provider leaves a kubeconfig in it.
            "TMPDIR": str(self.folder / "tmp"),
            **self.environment,
        }


def _end_session(session: int) -> None:
    """End what a killed engine leaves behind: its plugins have process groups of their own, and its session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in parentheses: state, parent, group, session.
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
