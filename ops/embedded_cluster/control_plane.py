"""The embedded cluster's life: start, find again, stop, wipe.

All of it lives in one folder: etcd's data, certificates, tokens, logs, the kubeconfig, and `state.json`,
which says what runs. The API server listens on one loopback port, remembered with the data; etcd listens on
a socket in the folder, since its port would give every user of the machine every Secret; the others listen
nowhere. The API server signs its own certificate, and its key signs service account tokens too: both end
with the folder.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ops.embedded_cluster.binaries import Binaries, Say, find_or_build, locked
from ops.embedded_cluster.nodes import DEFAULT_NODES, STORAGE_CLASS, Manifest, NodeShape
from ops.errors import FailedError
from ops.interrupts import held_back

CONTEXT = "ai-platform-embedded"  # the one context of the cluster's own kubeconfig

_HERE = Path(__file__).parent
_STAGES = _HERE / "stages.yaml"
# In the order of their start; they end in the reverse one.
_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
_SERVICES = "10.96.0.0/16"
_PODS = "10.244.0.0/16"
_PATIENCE = 600.0  # s until a start counts as failed; it takes 5 on two idle cores, and ends at once if a program ends
_SETTLED = 60.0  # s in which nodes of a cluster that runs are ready, also after a pause; it takes 10
_GRACE = 10.0  # s between SIGTERM and SIGKILL
# Below the ports that the kernel hands to outgoing connections: one of those could take the API server's
# port while it restarts.
_PORTS = range(20000, 32000)
# Soft limits on the heap: without them Go lets garbage grow to twice what is live.
_MEMORY = {"kube-apiserver": "800MiB"}
_MEMORY_OTHERS = "150MiB"


class _Process(BaseModel):
    """A process that was started here; the command line tells it from a later owner of its number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    argv: list[str]

    @property
    def alive(self) -> bool:
        try:
            cmdline = Path(f"/proc/{self.pid}/cmdline").read_bytes()  # empty for a zombie
        except OSError:
            return False
        # The program itself may be a wrapper that runs another: its arguments, which name the folder, remain.
        arguments = [os.fsencode(part) for part in self.argv[1:]]
        return cmdline.split(b"\0")[:-1][-len(arguments) :] == arguments

    def resume(self) -> None:
        """Let it go on, if it was stopped."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, signal.SIGCONT)
            finally:
                os.close(handle)

    def end(self, *, grace: float) -> None:
        """Stop it: politely for so many seconds, then by force; returns when it is gone."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)  # holds the process: its number cannot pass to another now
            try:
                if self.alive and grace:
                    signal.pidfd_send_signal(handle, signal.SIGTERM)
                    select.select([handle], [], [], grace)
                if self.alive:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], _GRACE)
            finally:
                os.close(handle)
        with suppress(ChildProcessError):  # a child of this very program stays as a zombie until it is read
            os.waitpid(self.pid, os.WNOHANG)


class _State(BaseModel):
    """`state.json`: what must be remembered between two runs of the program."""

    model_config = ConfigDict(extra="forbid")

    port: int
    kubectl: str
    tokens: dict[str, str]  # user -> bearer token
    processes: dict[str, _Process] = {}

    @property
    def complete(self) -> bool:
        """Whether all programs run; a start that was killed half way leaves some of them."""
        return all(name in self.processes and self.processes[name].alive for name in _PROGRAMS)


def _silent(_line: str) -> None:
    pass


class EmbeddedCluster:
    """A control plane with simulated nodes, in one folder. Making the object starts nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.kubeconfig = self.root / "kubeconfig"

    @classmethod
    @contextmanager
    def started(
        cls, root: Path, nodes: Sequence[NodeShape] = DEFAULT_NODES, say: Say = _silent
    ) -> Generator[EmbeddedCluster]:
        """A running cluster that is gone afterwards, with its folder, even if this process is killed."""
        cluster = cls(root)
        with _guard(cluster.root):
            try:
                cluster.up(nodes, say)
                yield cluster
            finally:
                cluster.down(wipe=True)

    def up(self, nodes: Sequence[NodeShape] = DEFAULT_NODES, say: Say = _silent) -> bool:
        """Start whatever does not run, on the data that is there; False if all of it ran already.

        Returns when the nodes are ready. Raises FailedError, and leaves nothing running, if that fails.
        """
        # From the first moment, which may be a build of minutes: a `down` meanwhile waits, and takes it all away.
        with self._locked(say):
            state = self._load()
            if state is not None and state.complete:
                self._revive(state, nodes)
                return False
            binaries = find_or_build(say)
            state = state or self._new_state(binaries)
            try:
                self._start(state, binaries)
                self._publish(state, nodes)
            except BaseException:
                with held_back():  # a second Ctrl-C would leave what this one has not come to
                    self._stop(state, grace=_GRACE)
                raise
        return True

    def down(self, *, wipe: bool, say: Say = _silent) -> bool:
        """Stop every process; with `wipe`, remove the folder too. False if there was nothing to do.

        Waits for another command that works on the cluster, so what that starts is stopped too.
        """
        if not any((self.root / name).exists() for name in ("lock", "state.json")):
            return False
        with self._locked(say), held_back():
            state = self._load()
            if state is None:  # another one wiped it while this one waited, or a start has not come far
                if wipe and {path.name for path in self.root.iterdir()} == {"lock"}:
                    shutil.rmtree(self.root)
                return False
            ran = any(process.alive for process in state.processes.values())
            self._stop(state, grace=0 if wipe else _GRACE)
            if wipe:
                shutil.rmtree(self.root)
        return ran or wipe

    @property
    def running(self) -> bool:
        """Whether every process of the control plane is there."""
        state = self._load()
        return state is not None and state.complete

    @property
    def processes(self) -> dict[str, int | None]:
        """Process id by program; None for one that does not run."""
        state = self._load()
        known = state.processes if state else {}
        return {name: known[name].pid if name in known and known[name].alive else None for name in _PROGRAMS}

    @property
    def server(self) -> str:
        """The API server's URL, e.g. "https://127.0.0.1:24680"."""
        return f"https://127.0.0.1:{self._state.port}"

    @property
    def version(self) -> str:
        """The API server's release, e.g. "v1.36.3"."""
        return json.loads(self._request(self._state, "GET", "/version")[1])["gitVersion"]

    @property
    def kubectl_binary(self) -> Path:
        """The kubectl that fits the API server."""
        return Path(self._state.kubectl)

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs, to reach this cluster and leave nothing in the user's home."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.root / "cache"),
            "KUBERC": "off",
        }

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 1200) -> str:
        """What kubectl prints; raises FailedError with its complaint if it fails."""
        command = [self._state.kubectl, *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            what = " ".join(["kubectl", *arguments])
            raise FailedError(f"{what}: {done.stderr.strip()}", f"export KUBECONFIG={self.kubeconfig}")
        return done.stdout

    def stop_api_server(self) -> None:
        """Kill the API server as a crash would: no request in flight gets its answer."""
        self._state.processes["kube-apiserver"].end(grace=0)

    def start_api_server(self) -> None:
        """Start the API server again, on the same port and data; returns when it is ready.

        A controller that ended for want of it is started again too, as a real control plane would.
        """
        with self._locked():
            state = self._state
            for name in _PROGRAMS:
                binary, *arguments = state.processes[name].argv
                self._ensure(state, name, binary, *arguments)
                if name == "kube-apiserver":
                    self._await_api(state)

    # -- state

    @property
    def _state(self) -> _State:
        state = self._load()
        if state is None:
            raise FailedError(f"no cluster in {self.root}", "make cluster-up")
        return state

    def _load(self) -> _State | None:
        try:
            return _State.model_validate_json((self.root / "state.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise FailedError(
                f"{self.root / 'state.json'} is not this program's ({error}): what runs is unknown",
                f"end the processes that `pgrep -af {self.root}` lists, then rm -r {self.root}",
            ) from error

    def _save(self, state: _State) -> None:
        self._write("state.json", state.model_dump_json(indent=2))

    def _write(self, name: str, text: str) -> Path:
        """Write a private file in one step: a reader sees the old one or the new one."""
        path, partial = self.root / name, self.root / f".{name}.partial"
        partial.touch(mode=0o600)
        partial.write_text(text)
        partial.replace(path)
        return path

    @contextmanager
    def _locked(self, say: Say = _silent) -> Generator[None]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.root / "lock", lambda: say(f"another command works on the cluster in {self.root}: waiting")):
            yield

    def _new_state(self, binaries: Binaries) -> _State:
        strangers = sorted(path.name for path in self.root.iterdir() if path.name != "lock")
        if strangers:
            raise FailedError(
                f"{self.root} holds {', '.join(strangers[:3])} and no cluster: a wipe would remove them",
                "choose an empty folder",
            )
        self.root.chmod(0o700)
        users = ("admin", "system:kube-controller-manager", "system:kube-scheduler", "kwok")
        state = _State(
            port=_free_port(),
            kubectl=str(binaries.kubectl),
            tokens={user: secrets.token_hex(16) for user in users},
        )
        self._save(state)
        return state

    # -- processes

    def _start(self, state: _State, binaries: Binaries) -> None:
        state.kubectl = str(binaries.kubectl)
        for name in [name for name, process in state.processes.items() if not process.alive]:
            state.processes.pop(name).end(grace=0)
        for folder in ("log", "tmp", "pki"):
            (self.root / folder).mkdir(mode=0o700, exist_ok=True)
        # The scheduler has its own role; the others act for many controllers and are given them all.
        groups = {user: "" if user == "system:kube-scheduler" else "system:masters" for user in state.tokens}
        rows = "".join(f'{token},{user},{user},"{groups[user]}"\n' for user, token in state.tokens.items())
        tokens = self._write("tokens.csv", rows)
        certificate = self.root / "pki" / "apiserver.crt"
        key = certificate.with_suffix(".key")
        # Sockets are named from the working folder: a socket's full path is limited to 107 bytes. What is
        # advertised nobody dials, but etcd wants a port in it.
        self._ensure(
            state,
            "etcd",
            binaries.etcd,
            "--name=embedded",
            f"--data-dir={self.root / 'etcd'}",
            "--listen-client-urls=unix://etcd.sock",
            "--advertise-client-urls=unix://etcd.sock:0",
            "--listen-peer-urls=unix://peer.sock",
            "--initial-advertise-peer-urls=unix://peer.sock:0",
            "--initial-cluster=embedded=unix://peer.sock:0",
            "--unsafe-no-fsync",  # a power cut may cost the data, which `make cluster-down` throws away anyway
            "--log-level=warn",
        )
        self._ensure(
            state,
            "kube-apiserver",
            binaries.kube_apiserver,
            "--etcd-servers=unix://etcd.sock",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={state.port}",
            "--endpoint-reconciler-type=none",  # no pod can reach loopback, so no endpoints for `kubernetes`
            f"--cert-dir={certificate.parent}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--service-cluster-ip-range={_SERVICES}",
            "--allow-privileged=true",  # as on GKE: Pod Security decides, not the server
            "--enable-admission-plugins=ExtendedResourceToleration",  # as on GKE
        )
        self._await_api(state)
        ca = base64.b64encode(certificate.read_bytes()).decode()
        files = {
            user: self._write(name, _kubeconfig(f"https://127.0.0.1:{state.port}", ca, state.tokens[user]))
            for user, name in (
                ("admin", self.kubeconfig.name),
                ("system:kube-controller-manager", "controller-manager.kubeconfig"),
                ("system:kube-scheduler", "scheduler.kubeconfig"),
                ("kwok", "kwok.kubeconfig"),
            )
        }
        quick = ("--kube-api-qps=200", "--kube-api-burst=400")  # the defaults protect a server that is shared
        self._ensure(
            state,
            "kube-controller-manager",
            binaries.kube_controller_manager,
            f"--kubeconfig={files['system:kube-controller-manager']}",
            f"--root-ca-file={certificate}",
            "--leader-elect=false",
            "--secure-port=0",
            *quick,
        )
        self._ensure(
            state,
            "kube-scheduler",
            binaries.kube_scheduler,
            f"--kubeconfig={files['system:kube-scheduler']}",
            "--leader-elect=false",
            "--secure-port=0",
            *quick,
        )
        self._ensure(
            state,
            "kwok",
            binaries.kwok,
            f"--kubeconfig={files['kwok']}",
            f"--config={_STAGES}",
            "--manage-all-nodes=true",
            "--node-ip=127.0.0.1",
            f"--cidr={_PODS}",
            "--node-lease-duration-seconds=40",
        )

    def _ensure(self, state: _State, name: str, binary: Path | str, *arguments: str) -> None:
        """Start a program unless it runs."""
        process = state.processes.get(name)
        if process is None or not process.alive:
            if name == "kube-apiserver":
                _check_port(state.port, self.root)
            self._spawn(state, name, str(binary), arguments)

    def _spawn(self, state: _State, name: str, binary: str, arguments: Iterable[str]) -> None:
        argv = [binary, *arguments]
        # Together, or nobody would know of the process.
        with held_back(), (self.root / "log" / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                cwd=self.root,
                env={
                    "HOME": str(self.root),
                    "PATH": os.defpath,
                    "TMPDIR": str(self.root / "tmp"),
                    "KWOK_WORKDIR": str(self.root / "tmp"),  # or kwok reads the user's ~/.kwok
                    "GOMEMLIMIT": _MEMORY.get(name, _MEMORY_OTHERS),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the operator's terminal is not for them
                umask=0o077,
            )
            process = state.processes[name] = _Process(pid=child.pid, argv=argv)
            self._save(state)
        # The kernel shows a new program's command line a moment after it has begun.
        _wait_until(lambda: process.alive or child.poll() is not None, f"{name} to begin", _GRACE)
        child.returncode = 0  # it is meant to outlive this program: no warning when the object goes

    def _stop(self, state: _State, *, grace: float) -> None:
        """End the processes, clients before servers."""
        for name in reversed(_PROGRAMS):
            if name in state.processes:
                state.processes[name].end(grace=grace)
                del state.processes[name]
        self._save(state)

    # -- the API

    def _await_api(self, state: _State) -> None:
        def ready() -> bool:
            self._check_alive(state, "etcd", "kube-apiserver")
            with suppress(OSError, http.client.HTTPException):
                return self._request(state, "GET", "/readyz")[0] == http.HTTPStatus.OK
            return False  # not listening yet

        _wait_until(ready, "the API server to be ready", _PATIENCE, self.root / "log")

    def _revive(self, state: _State, nodes: Sequence[NodeShape]) -> None:
        """Bring a cluster that runs to what was asked for, also after a pause: a machine that slept, a stopped kwok.

        The node controller then has called the nodes not ready. kwok answers for them again, or is started anew.
        """
        for process in state.processes.values():
            process.resume()
        self._await_api(state)
        try:
            self._publish(state, nodes, patience=_SETTLED)
        except FailedError:
            binary, *arguments = state.processes["kwok"].argv
            state.processes["kwok"].end(grace=0)
            self._ensure(state, "kwok", binary, *arguments)
            self._publish(state, nodes)

    def _publish(self, state: _State, nodes: Sequence[NodeShape], *, patience: float = _PATIENCE) -> None:
        """Bring nodes and disk class to what was asked for, and wait until pods can be placed."""
        for node in nodes:
            self._apply(state, f"/api/v1/nodes/{node.name}", node.manifest)
            self._apply(state, f"/api/v1/nodes/{node.name}/status", node.status_manifest)
        name = STORAGE_CLASS["metadata"]["name"]
        self._apply(state, f"/apis/storage.k8s.io/v1/storageclasses/{name}", STORAGE_CLASS)
        wanted = {node.name for node in nodes}
        for stale in {item["metadata"]["name"] for item in self._nodes(state)} - wanted:
            self._request(state, "DELETE", f"/api/v1/nodes/{stale}")

        def ready() -> bool:
            self._check_alive(state, *_PROGRAMS)
            account = "/api/v1/namespaces/default/serviceaccounts/default"  # made by the controller manager
            return {
                item["metadata"]["name"] for item in self._nodes(state) if _is_ready(item)
            } == wanted and self._request(state, "GET", account)[0] == http.HTTPStatus.OK

        _wait_until(ready, "the simulated nodes to be ready", patience, self.root / "log")

    def _nodes(self, state: _State) -> list[Manifest]:
        return json.loads(self._request(state, "GET", "/api/v1/nodes")[1])["items"]

    def _apply(self, state: _State, path: str, manifest: Manifest) -> None:
        """Server-side apply."""
        query = "?fieldManager=embedded-cluster&force=true"
        status, answer = self._request(state, "PATCH", path + query, json.dumps(manifest))
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise FailedError(
                f"the API server refuses {path}: {answer.decode()}", f"see the logs in {self.root / 'log'}"
            )

    def _request(self, state: _State, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        trust = ssl.create_default_context(cafile=self.root / "pki" / "apiserver.crt")
        headers = {"Authorization": f"Bearer {state.tokens['admin']}"}
        if body is not None:
            headers["Content-Type"] = "application/apply-patch+yaml"  # the only bodies sent here
        connection = http.client.HTTPSConnection("127.0.0.1", state.port, timeout=60, context=trust)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _check_alive(self, state: _State, *names: str) -> None:
        for name in names:
            if not state.processes[name].alive:
                log = self.root / "log" / f"{name}.log"
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise FailedError(
                    f"{name} ended during the start, so there is no cluster: {''.join(last)[-400:]}",
                    f"see {log}; `make cluster-down` removes this cluster's data, `make cluster-up` begins anew",
                )


def _kubeconfig(server: str, ca: str, token: str) -> str:
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
    }
    return json.dumps(content, indent=2)


def _is_ready(node: Manifest) -> bool:
    """Whether pods can go to a node: it says so, and the controller has taken its taint for new nodes off."""
    conditions = node["status"].get("conditions", ())
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "node.kubernetes.io/not-ready" not in taints


def _free_port() -> int:
    for port in random.sample(_PORTS, len(_PORTS)):
        if _port_is_free(port):
            return port
    raise FailedError(f"no free port from {_PORTS.start} to {_PORTS.stop} on loopback", "ss -ltnp")


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _check_port(port: int, root: Path) -> None:
    if not _port_is_free(port):
        raise FailedError(
            f"port {port} of the cluster in {root} is taken by another program, and stacks know it by that port",
            f"`ss -ltnp sport = {port}` names the program; end it, or `make cluster-down` to begin anew",
        )


def _wait_until(done: Callable[[], bool], what: str, limit: float, logs: Path | None = None) -> None:
    deadline = time.monotonic() + limit
    while not done():
        if time.monotonic() > deadline:
            raise FailedError(f"waited {limit:.0f} s for {what}", f"see the logs in {logs}" if logs else "retry")
        time.sleep(0.05)


@contextmanager
def _guard(root: Path) -> Generator[None]:
    """A process that wipes the cluster when this one is killed: its standard input ends with us."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "ops.embedded_cluster.guard", str(root)],
        env={**os.environ, "PYTHONPATH": str(_HERE.parents[1])},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate()
