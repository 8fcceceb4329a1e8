"""Where the control plane's binaries come from.

Each one is taken from the folder that KUBEBUILDER_ASSETS names, else from PATH, else it is downloaded once as its
project publishes it (downloads.py), else built once from the Go modules beside this file (controlplane/ and kwok/),
both into a cache outside the tree.

All Kubernetes binaries must be of one minor release, the pinned one: a controller manager may not be newer
than its API server, and most machines have no second controller manager to choose.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.embedded_cluster import downloads
from ops.errors import FailedError

Say = Callable[[str], None]  # takes one line of progress for the operator
Version = tuple[int, int, int]

_HERE = Path(__file__).parent
_ASSETS = "KUBEBUILDER_ASSETS"  # the field's name for a folder with etcd, kube-apiserver and kubectl
# kwok asks etcd for progress notices on its watches; releases before these answer none, and kwok loops.
_ETCD_FLOORS: tuple[Version, ...] = ((3, 4, 31), (3, 5, 13))
# A binary built from a module says what it is only if the linker is told.
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class _Module:
    """A Go module of this project's own that pins what is built."""

    folder: Path
    pinned: str  # the required module whose release is the tools' release

    @property
    def version(self) -> Version:
        return _version((self.folder / "go.mod").read_text(), rf"\s{re.escape(self.pinned)} v")

    @property
    def text(self) -> bytes:
        return b"".join((self.folder / name).read_bytes() for name in ("go.mod", "go.sum"))


@dataclass(frozen=True)
class _Tool:
    """One binary: how it is built, and how it tells its version."""

    name: str
    module: _Module
    package: str
    # That a build takes of one core after those above it, with nothing built before: all of them took five and a half
    # minutes of two cores; a link is 15 s, and the rest is shared out by the size of the source that each one adds.
    core_seconds: int
    ask: tuple[str, ...] = ("--version",)

    @property
    def wanted(self) -> str:
        """Which releases of it are fit, for the operator."""
        if self.name == "etcd":
            return "3.4.31 or newer, of 3.5 at least 3.5.13"
        major, minor, _ = self.module.version
        return f"{major}.{minor}"

    def accepts(self, version: Version) -> bool:
        if self.name == "etcd":
            return version >= _ETCD_FLOORS[-1] or (_ETCD_FLOORS[0] <= version < (3, 5, 0))
        return version[:2] == self.module.version[:2]

    @property
    def linker_flags(self) -> str:
        flags = ["-s", "-w"]
        if self.package.startswith("k8s.io/"):
            major, minor, patch = self.module.version
            facts = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": str(major), "gitMinor": str(minor)}
            flags += [f"-X {p}.{name}={value}" for p in _VERSION_PACKAGES for name, value in facts.items()]
        return " ".join(flags)


_KUBERNETES = _Module(_HERE / "controlplane", "k8s.io/kubernetes")
_KWOK = _Module(_HERE / "kwok", "sigs.k8s.io/kwok")
_TOOLS = (
    _Tool("etcd", _KUBERNETES, "go.etcd.io/etcd/server/v3", 135),
    _Tool("kube-apiserver", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", 265),
    _Tool("kube-controller-manager", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-controller-manager", 55),
    _Tool("kube-scheduler", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-scheduler", 15),
    _Tool("kubectl", _KUBERNETES, "k8s.io/kubernetes/cmd/kubectl", 37, ask=("version", "--client")),
    _Tool("kwok", _KWOK, "sigs.k8s.io/kwok/cmd/kwok", 152),
)
_BUILD_FLAGS = ("-trimpath",)


@dataclass(frozen=True)
class Binaries:
    """Absolute paths of the control plane's programs."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    kwok: Path


@dataclass(frozen=True)
class _Search:
    """What was found, and what was seen and passed over."""

    found: Mapping[str, Path]  # tool name -> binary
    passed_over: tuple[str, ...]  # one line for each unfit binary on PATH

    @property
    def missing(self) -> tuple[_Tool, ...]:
        return tuple(tool for tool in _TOOLS if tool.name not in self.found)


def find_or_build(say: Say) -> Binaries:
    """The six binaries, downloaded or built into the cache where the machine has none.

    Raises FailedError for an unfit binary in KUBEBUILDER_ASSETS, for a missing or too old Go, and for a
    build that fails.
    """
    search = _search()
    if search.missing:
        for line in search.passed_over:
            say(line)
        if built := tuple(tool for tool in search.missing if tool.name not in downloads.NAMES):
            _require_go(built)  # before anything is waited for
        with locked(cache_folder() / "lock", lambda: say("another process gets them: waiting for it")):
            search = _search()
            downloads.take([tool.name for tool in search.missing], _cache(), say, unfit_by_name)
            search = _search()
            if search.missing:
                _require_go(search.missing)
                _build(search.missing, say)
                search = _search()
    return Binaries(**{tool.name.replace("-", "_"): search.found[tool.name] for tool in _TOOLS})


def why_unavailable() -> str | None:
    """Why there can be no embedded cluster on this machine (for a test's skip), or None if there can."""
    try:
        if missing := _search().missing:
            _require_go(missing)
    except FailedError as error:
        return str(error)
    return None


def cache_folder() -> Path:
    """Where this checkout's pins are built to: another pin is another folder, so nothing stale is run."""
    digest = hashlib.sha256()
    for module in (_KUBERNETES, _KWOK):
        digest.update(module.text)
    digest.update(repr((_BUILD_FLAGS, [tool.linker_flags for tool in _TOOLS], platform.machine())).encode())
    return _cache() / digest.hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-platform"


def kept(name: str) -> Path | None:
    """A binary that this project built or downloaded before, or None."""
    places = (cache_folder() / "bin" / name, downloads.folder(_cache()) / name)
    return next((place for place in places if place.is_file()), None)


def _search() -> _Search:
    found: dict[str, Path] = {}
    passed_over: list[str] = []
    assets = os.environ.get(_ASSETS)
    for tool in _TOOLS:
        if assets and (given := Path(assets).absolute() / tool.name).is_file():
            if problem := _unfit(tool, given):
                raise FailedError(f"{_ASSETS}={assets}: {problem}", f"unset {_ASSETS}")
            found[tool.name] = given
            continue
        if on_path := shutil.which(tool.name):
            if not (problem := _unfit(tool, Path(on_path))):
                found[tool.name] = Path(on_path).absolute()
                continue
            passed_over.append(f"not used: {problem}")
        if mine := kept(tool.name):
            found[tool.name] = mine
    return _Search(found, tuple(passed_over))


def _unfit(tool: _Tool, binary: Path) -> str | None:
    """Why a binary that was not built here cannot be used, or None."""
    try:
        done = subprocess.run([binary, *tool.ask], capture_output=True, text=True, timeout=30, check=True)
        version = _version(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"{binary} does not tell its version ({error}), so nobody knows if it fits"
    if tool.accepts(version):
        return None
    return f"{binary} is {'.'.join(map(str, version))}, but the cluster needs {tool.wanted}"


def unfit_by_name(name: str, binary: Path) -> str | None:
    """Why a binary cannot be used for what its name says, or None."""
    return _unfit(next(tool for tool in _TOOLS if tool.name == name), binary)


def _version(text: str, before: str = r"\bv?") -> Version:
    """The first x.y.z in a text; raises ValueError where there is none."""
    match = re.search(before + r"(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise ValueError(f"no version in {text.strip()[:80]!r}")
    return (int(match[1]), int(match[2]), int(match[3]))


def _go_environment() -> dict[str, str]:
    """The operator's own Go settings, less what would make the build depend on the machine."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "local"),
    }
    done = subprocess.run(
        ["go", "env", "GOPROXY"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    # A module that the proxy refuses must fail at once, not after minutes of cloning from its origin.
    if proxies := re.sub(r"[,|]direct\b", "", done.stdout.strip()):
        environment["GOPROXY"] = proxies
    return environment


def _require_go(missing: tuple[_Tool, ...]) -> None:
    names = ", ".join(tool.name for tool in missing)
    consequence = f"the embedded cluster needs {names}: not in {_ASSETS}, not on PATH, not built yet"
    wanted = max(_version(m.folder.joinpath("go.mod").read_text(), r"\ngo ") for m in (_KUBERNETES, _KWOK))
    release = ".".join(map(str, wanted))
    remedy = f"install Go {release} or newer, or `export {_ASSETS}=<folder with {names}>`"
    if shutil.which("go") is None:
        raise FailedError(f"no `go` on PATH to build with; {consequence}", remedy)
    try:
        done = subprocess.run(
            ["go", "env", "GOVERSION"],
            cwd=_KUBERNETES.folder,
            env=_go_environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        have = _version(done.stdout.strip() + ".0", "go")  # "go1.27" has no patch number
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise FailedError(f"`go env` fails ({error}); {consequence}", remedy) from error
    if have < wanted:
        version = done.stdout.strip()
        raise FailedError(
            f"{shutil.which('go')} is {version}, too old to build with; {consequence}",
            f"GOTOOLCHAIN=auto make cluster-up (fetches a newer Go), or {remedy}",
        )


def _build(tools: tuple[_Tool, ...], say: Say) -> None:
    folder = cache_folder()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    ahead = sum(tool.core_seconds for tool in tools)
    say(f"building {len(tools)} binaries into {folder}: once, 0.4 GB")
    passed, done, pace = 0.0, 0, 1 / (os.cpu_count() or 1)  # seconds for a second of one core
    for number, tool in enumerate(tools, 1):
        say(f"  {number} of {len(tools)}: {tool.name} ... about {_minutes((ahead - done) * pace)} left in all")
        started = time.monotonic()
        _build_one(tool, folder, folder / "bin" / tool.name)
        took = time.monotonic() - started
        say(f"  {number} of {len(tools)}: {tool.name} built in {took:.0f} s")
        # A machine with other work to do, or with some of it built before, has another pace.
        passed, done = passed + took, done + tool.core_seconds
        pace = passed / done


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _build_one(tool: _Tool, folder: Path, target: Path) -> None:
    """Build aside and rename: a build that is killed leaves no half binary under the name."""
    scratch = folder / "partial"
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed build; nobody else holds the lock
    scratch.mkdir()
    command = ["go", "build", *_BUILD_FLAGS, f"-ldflags={tool.linker_flags}", "-o", str(scratch / tool.name)]
    try:
        done = subprocess.run(
            [*command, tool.package],
            cwd=tool.module.folder,
            env={**_go_environment(), "GOTMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.strip().splitlines()[-8:])
            raise FailedError(
                f"go build {tool.package} failed, so there is no {tool.name} to run:\n{tail}",
                "see that `go env GOPROXY` names a proxy that can be reached, then run it again: "
                "what is built already is kept",
            )
        (scratch / tool.name).replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Generator[None]:
    """Hold an exclusive lock on a file; the kernel lets go of it when the process ends, however it ends."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it may have removed the folder: then this is a lock on nothing.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                yield
                return
