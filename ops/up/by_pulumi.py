"""A stack deployed by the Pulumi CLI, on a file backend that is private to the checkout.

The user's own login, stacks and stack file stay as they are: state, passphrase and the copy of the stack file that
holds the encrypted secrets are all in the private folder.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import yaml

from ops.checkout import LOCAL
from ops.embedded_cluster.binaries import Say
from ops.errors import FailedError
from ops.interrupts import acting
from ops.up.secrets import write_private
from ops.up.watch import Watch, failed
from stacks.settings import RawConfig

_LEASH = Path(__file__).with_name("leash.py")
_INSTALLER = "https://get.pulumi.com"
_CLI = "pulumi"  # the program's name, of which a lock is
_PATIENCE_S = 900  # for an earlier update: longer than one waits for a resource by default
_CLOCK_S = 5  # by which the kernel's and a file's time may differ
_INTERRUPTED = (
    "interrupted: pulumi finishes what is under way; Ctrl-C again ends it at once",
    "interrupted again: pulumi ends at once, and the next `ops up` mends what it leaves",
    "interrupted once more: pulumi is killed",
)
_OWN_VARIABLES = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_STACK")  # of the user, for other stacks


def find() -> Path | None:
    """The CLI: on PATH, or where its installer puts it."""
    installed = _home() / "bin" / "pulumi"
    found = shutil.which("pulumi")
    return Path(found) if found else installed if installed.is_file() else None


def _home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def install(say: Say) -> Path | None:
    """Run Pulumi's official installer; None, and why, if it brings nothing."""
    say(f"installing pulumi from {_INSTALLER}")
    try:
        with urllib.request.urlopen(_INSTALLER, timeout=30) as answer:
            script = answer.read()
        subprocess.run(["sh", "-s", "--", "--no-edit-path"], input=script, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"pulumi cannot be installed from {_INSTALLER}: {error}")
        return None
    return find()


@dataclass(frozen=True)
class PulumiStack:
    """A stack on the private backend of a checkout."""

    binary: Path
    project_dir: Path
    project: str
    name: str

    @property
    def folder(self) -> Path:
        return self.project_dir / LOCAL / "pulumi"

    @property
    def config_file(self) -> Path:
        """The private copy of the stack file."""
        return self.folder / f"Pulumi.{self.name}.yaml"

    @property
    def passphrase(self) -> Path:
        return self.project_dir / LOCAL / "passphrase"

    @property
    def variables(self) -> dict[str, str]:
        """What the CLI needs in its environment to find this stack."""
        return {
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.passphrase),
        }

    @property
    def commands(self) -> list[str]:
        """How to work with it by hand, in a shell."""
        exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.variables.items())
        return [f"export {exports}", f"pulumi preview {shlex.join(self.options)}"]

    @property
    def options(self) -> list[str]:
        """What every command about it takes."""
        return ["--stack", self.name, "--config-file", str(self.config_file)]

    def up(self, raw: RawConfig, values: Mapping[str, str], say: Say, watch: Watch) -> None:
        """Deploy a config with its secrets.

        Raises FailedError if the CLI refuses or fails, or if `watch` finds what waiting does not mend.
        """
        self._prepare(raw, values, say)
        say(f"pulumi up (all it says is in {self._log})")
        quiet = ("--non-interactive", "--color=never", "--suppress-outputs")
        code = self._stream(["up", "--yes", "--skip-preview", *quiet, *self.options], say, watch)
        if code != 0:
            if found := watch.hopeless():
                raise failed(found)
            found = watch.last()
            again = f"ops up --stack {self.name}   # or, without the CLI: ops up --stack {self.name} --engine kubectl"
            raise FailedError(
                "pulumi up failed, its output above says why; what it had done stays done"
                + (f"; in the cluster: {found.told}" if found else ""),
                found.command if found else again,
            )

    @property
    def _forget(self) -> str:
        return shlex.join(["rm", "-r", str(self.folder)])

    # -- what the CLI needs

    def _prepare(self, raw: RawConfig, values: Mapping[str, str], say: Say) -> None:
        state = self.folder / "state"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        state.mkdir(exist_ok=True)
        exists = any(state.glob(f".pulumi/stacks/{self.project}/{self.name}.json*"))
        if not self.passphrase.exists():
            if exists:
                raise FailedError(
                    f"{self.passphrase} is gone, and the state in {state} cannot be decrypted without it",
                    f"{self._forget}   # then run it again: what the cluster holds is taken over",
                )
            write_private(self.passphrase, secrets.token_hex(24) + "\n")
        if not exists:
            # `stack init` writes into the stack file beside Pulumi.yaml, and the committed one is not for that.
            write_private(self.folder / "Pulumi.yaml", json.dumps({"name": self.project, "runtime": "python"}))
            self.config_file.unlink(missing_ok=True)
            self._run("stack", "init", self.name, "--no-select", "--non-interactive", cwd=self.folder)
        self._write_config(raw)
        encrypted = self._config()
        for key, value in values.items():
            if encrypted.get(f"{raw.project}:{key}") != value:
                path = ["--path"] if "." in key else []
                self._run("config", "set", "--secret", *path, key, *self.options, stdin=value)
        self._unlock(say)

    def _write_config(self, raw: RawConfig) -> None:
        """The stack's values as they are now, and what is encrypted as it was."""
        before = self._file()
        kept = {key: value for key, value in before.get("config", {}).items() if "secure:" in yaml.safe_dump(value)}
        values = {key: value for key, value in raw.values.items() if not key.startswith("pulumi:")}
        content = {**before, "config": {**values, **kept}}
        note = f"# Written by `ops up` from Pulumi.{self.name}.yaml: edit that one.\n"
        write_private(self.config_file, note + yaml.safe_dump(content, sort_keys=False))

    def _file(self) -> dict[str, Any]:
        content = yaml.safe_load(self.config_file.read_text()) if self.config_file.exists() else None
        return cast("dict[str, Any]", content or {})

    def _config(self) -> dict[str, str]:
        """Secrets that the stack file has, in clear: `project:key`, or `project:object.key`."""
        shown = json.loads(self._run("config", "--json", "--show-secrets", *self.options))
        flat: dict[str, str] = {}
        for key, entry in shown.items():
            flat[key] = entry.get("value", "")
            if isinstance(entry.get("objectValue"), dict):
                flat |= {f"{key}.{name}": value for name, value in entry["objectValue"].items()}
        return flat

    def _unlock(self, say: Say) -> None:
        """Let an update end whose `ops up` was killed; take away the lock of one that was killed itself.

        Nobody else updates here: `ops up` holds a lock of its own. Raises FailedError for one that does not end.
        """
        # The CLI minds every file there, whatever it holds.
        locks = [path for path in (self.folder / "state").glob(f".pulumi/locks/**/{self.name}/*") if path.is_file()]
        deadline = time.monotonic() + _PATIENCE_S
        for lock in locks:
            if (pid := updating(lock)) is not None:
                say(f"an earlier update is being cancelled: waiting for process {pid}")
            while (pid := updating(lock)) is not None:
                if time.monotonic() > deadline:
                    raise FailedError(
                        f"an earlier update, process {pid}, has not ended within {_PATIENCE_S} s", f"kill -INT {pid}"
                    )
                time.sleep(0.2)
        left = [lock for lock in locks if lock.exists()]
        if left:
            say("an earlier update was killed: taking its lock away")
        for lock in left:
            lock.unlink(missing_ok=True)

    # -- running it

    def _environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if key not in _OWN_VARIABLES}
        path = os.pathsep.join([str(self.binary.parent), os.environ.get("PATH", os.defpath)])
        return {**own, **self.variables, "PATH": path, "PULUMI_SKIP_UPDATE_CHECK": "true"}

    def _run(self, *arguments: str, cwd: Path | None = None, stdin: str = "") -> str:
        done = subprocess.run(
            [self.binary, *arguments],
            cwd=cwd or self.project_dir,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise FailedError(
                f"pulumi {' '.join(arguments[:3])}: {done.stderr.strip() or done.stdout.strip()}",
                f"{self._forget}   # if its state is beyond repair: what the cluster holds is taken over",
            )
        return done.stdout

    @property
    def _log(self) -> Path:
        return self.folder / "up.log"

    def _stream(self, arguments: Sequence[str], say: Say, watch: Watch) -> int:
        """Run it, show its progress, and return its exit code.

        It writes to a file: writing to a pipe that nobody reads any more would kill it.
        """
        scratch = self.folder / "tmp"  # every provider leaves a kubeconfig in its TMPDIR
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        interrupts, notices = 0, list[str]()
        child: subprocess.Popen[bytes] | None = None

        def interrupt(_: int) -> None:
            nonlocal interrupts
            interrupts += 1
            if child is not None:
                notices.append(_INTERRUPTED[min(interrupts, len(_INTERRUPTED)) - 1])
                child.send_signal(signal.SIGINT)

        # However often it comes, and whenever: this program does not end before what it started.
        with acting(interrupt):
            with self._log.open("w") as log:
                child = subprocess.Popen(
                    [sys.executable, _LEASH, str(os.getpid()), self.binary, *arguments],
                    cwd=self.project_dir,
                    env={**self._environment(), "TMPDIR": str(scratch)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # or the terminal tells it of a Ctrl-C a second time: "at once"
                )
            if interrupts:  # before there was anything to interrupt
                child.send_signal(signal.SIGINT)
            with self._log.open() as log, _ended_if_hopeless(child, watch, say):
                for line in readable(_follow(log, child, notices)):
                    say(line)
        shutil.rmtree(scratch, ignore_errors=True)
        if interrupts:
            raise KeyboardInterrupt
        return child.returncode


def updating(lock: Path) -> int | None:
    """The process that holds a lock of the CLI; None if it is gone, whoever has its number now."""
    try:
        pid, taken = int(json.loads(lock.read_text())["pid"]), lock.stat().st_mtime
        process = Path("/proc") / str(pid)
        name = (process / "cmdline").read_bytes().partition(b"\0")[0]  # empty for one that has ended
        ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError, StopIteration):
        return None
    began = int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return pid if Path(os.fsdecode(name)).name == _CLI and began < taken + _CLOCK_S else None


@contextmanager
def _ended_if_hopeless(child: subprocess.Popen[bytes], watch: Watch, say: Say) -> Generator[None]:
    """Let the CLI finish what is under way, and wait for nothing more, once nothing can come of it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(watch.every):
            if found := watch.hopeless():
                say(f"{found.told}; waiting does not mend that, so pulumi finishes what is under way")
                child.send_signal(signal.SIGINT)
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(log: TextIO, child: subprocess.Popen[bytes], notices: list[str]) -> Iterator[str]:
    """Lines of a file as a process writes them, until it ends, and what is put among them."""
    begun = ""
    while True:
        over = child.poll() is not None
        while notices:
            yield notices.pop(0)
        while line := log.readline():
            begun += line
            if begun.endswith("\n"):
                yield begun
                begun = ""
        if over:
            return
        time.sleep(0.1)


_STEP = re.compile(r"^\s*[-+~<>=]*\s*\S+:\S*:(?P<kind>\w+) (?P<name>\S+) (?P<verb>[*\w ]+?) \(\S+\) ?(?P<said>.*)$")
_NOISE = re.compile(
    r"^(@ updating|Updating \(|Diagnostics:|  pulumi:pulumi:Stack)|using pulumi-resource-|Skipping await logic|"
    r"initialization complete$| \d+ warnings?$|MinimumReplicasUnavailable"
)


def readable(lines: Iterable[str]) -> Iterable[str]:
    """The CLI's progress with one line for what was done to a resource, and one for each thing it waits for."""
    told: set[tuple[str, str, str]] = set()
    for raw_line in lines:
        line = raw_line.rstrip()
        if not line or _NOISE.search(line):
            continue
        step = _STEP.match(line)
        if step is None:
            # Without a verb it does not change; what the program says is repeated at the end, as Diagnostics.
            if not re.match(r"^ +\S+:\S*:\w+ \S+( running .*)?$", line):
                yield line
            continue
        if step["verb"].startswith("refresh") or step["kind"] == "Stack":
            continue
        said = re.sub(r"^\[diff: [^]]*\];?\s*", "", step["said"])
        what = (step["kind"], step["name"], said or step["verb"])
        done = not step["verb"].endswith("ing")
        if (done or said) and what not in told:
            told.add(what)
            yield f"  {step['kind']} {step['name']}: {said or step['verb']}"
