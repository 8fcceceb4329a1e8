"""A Kubernetes context that was named, through `kubectl`: its Secrets, its Deployments, and a port of a Service.

Nothing here ever uses the current context of a shell: either `--context` names one, or the stack's config file does.
What is read from a Secret stays in this process: it is in no argument, no output and no error.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components.gateway import keys as gateway_keys
from models.catalog import CATALOG, GROUPS
from ops.checkout import cluster_root
from ops.config_files import load
from ops.embedded_cluster.binaries import kept
from ops.errors import OpsError
from ops.interrupts import ending_on_signals
from stacks.problems import nearest
from stacks.sections import Namespaces
from stacks.settings import parse

_API_S = 20  # what one question to the API server may take
_FORWARD_S = 30  # until a forwarded port listens
_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How a command is told which cluster it is about."""
    parser.add_argument(
        "--stack", default="ai-dev", help="stack whose file names the namespaces, and the context if its target is one"
    )
    parser.add_argument("--context", help="context of the cluster, in place of the stack's")
    parser.add_argument("--kubeconfig", metavar="FILE", help="file that has --context (default: kubectl's own)")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def in_cluster(command: str, args: argparse.Namespace) -> str:
    """A command with the cluster that its arguments name, and with nothing else."""
    file = f" --kubeconfig {shlex.quote(args.kubeconfig)}" if args.kubeconfig else ""
    return f"{command}{file} --context {shlex.quote(args.context) if args.context else '<name>'}"


def named_cluster(args: argparse.Namespace, command: str, *, serves: bool = True) -> Kube:
    """The cluster that the arguments name, or the stack's file; `serves` is whether something there has to answer.

    Raises OpsError where neither names a context.
    """
    if args.context:
        return Kube(args.context, args.kubeconfig)
    if args.kubeconfig:
        raise OpsError(
            f"--kubeconfig {args.kubeconfig} without --context would use whatever context is current in it",
            f"{shlex.join(['kubectl', '--kubeconfig', args.kubeconfig, 'config', 'get-contexts'])}"
            "   # then add --context <name>",
        )
    try:
        raw = load(args.project_dir, args.stack)
    except OpsError as error:
        raise OpsError(error.problem.message, f"{command} --context <name>") from None
    settings, _ = parse(raw, CATALOG, GROUPS)
    platform = settings.platform
    if platform.target == "kubernetes" and platform.kube_context:
        path = args.project_dir / Path(platform.kubeconfig).expanduser() if platform.kubeconfig else None
        if path is not None and not path.is_file():
            raise _not_there(path, args.project_dir, f"{command} --context {platform.kube_context}", serves=serves)
        return Kube(platform.kube_context, str(path) if path else None, _program(path, args.project_dir))
    # As `gcloud container clusters get-credentials` names it.
    gcp = settings.gcp
    name = f"gke_{gcp.project}_{gcp.zone}_{settings.cloud_names.cluster}" if gcp else "<name>"
    raise OpsError(
        f"no cluster is named: stack '{args.stack}' has none in its file, and the current context is never used",
        f"{command} --context {name}",
    )


def namespaces(args: argparse.Namespace) -> Namespaces:
    """Where the stack's objects are by its file; the default ones where there is none, as with a context alone."""
    try:
        raw = load(args.project_dir, args.stack)
    except OpsError:
        return Namespaces()
    return parse(raw, CATALOG, GROUPS)[0].platform.namespaces


# What serves on one machine, in place of nodes that are simulated.
_SERVES = (
    "kind create cluster --name ai && "
    "ops up --set kubeconfig=$HOME/.kube/config --set kubeContext=kind-ai --model embeddings"
)


def _program(kubeconfig: Path | None, project_dir: Path) -> str:
    """kubectl: the user's, or the one that the embedded cluster brings."""
    own = kubeconfig is not None and kubeconfig.absolute().is_relative_to(cluster_root(project_dir))
    brought = kept("kubectl") if own and shutil.which("kubectl") is None else None
    return str(brought or "kubectl")


def _not_there(kubeconfig: Path, project_dir: Path, command: str, *, serves: bool) -> OpsError:
    if kubeconfig.absolute().is_relative_to(cluster_root(project_dir)):
        if not serves:
            return OpsError("the embedded cluster is not up, so there is nothing to look at", "make up")
        return OpsError(
            "the embedded cluster is not up, and on its simulated nodes nothing would answer either; docs/local.md "
            "says what serves on this machine",
            _SERVES,
        )
    return OpsError(f"kubeconfig {kubeconfig} is not there, so no cluster is named", f"{command} --kubeconfig <file>")


def _credentials(context: str) -> str | None:
    """The command that makes the context of a GKE cluster, by its name; None for another one's."""
    if match := re.fullmatch(r"gke_([^_]+)_([^_]+)_([^_]+)", context):
        project, zone, cluster = match.groups()
        return f"gcloud container clusters get-credentials {cluster} --zone {zone} --project {project} --dns-endpoint"
    return None


@dataclass(frozen=True)
class Scale:
    """Replicas of a Deployment."""

    wanted: int
    ready: int


@dataclass(frozen=True)
class Kube:
    """One context. Making the object asks nothing."""

    context: str
    kubeconfig: str | None = None  # path; None is kubectl's default
    program: str = "kubectl"

    @property
    def named(self) -> list[str]:
        """The options by which kubectl, and `ops`, are told of it."""
        return [*(["--kubeconfig", self.kubeconfig] if self.kubeconfig else []), "--context", self.context]

    def typed(self, *words: str) -> str:
        """A kubectl command about it, as one types it in a shell."""
        return shlex.join([self.program, *self.named, *words])

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; a log's bytes that are no text are replaced.

        Raises OpsError with its complaint.
        """
        return self._run(list(arguments), " ".join(arguments[:6]), stdin)

    def _run(self, arguments: Sequence[str], what: str, stdin: str | None = None) -> str:
        """What kubectl prints; raises OpsError with its complaint about `what`."""
        try:
            done = subprocess.run(
                [*self._command(), *arguments],
                capture_output=True,
                input=(stdin or "").encode(),
                timeout=2 * _API_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._failed(what, f"no answer within {2 * _API_S} s") from None
        if done.returncode:
            raise self._failed(what, done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace")

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """What a Secret holds, decoded.

        Raises OpsError.
        """
        found: dict[str, str] = self._get(namespace, "secret", name).get("data") or {}
        try:
            return {key: base64.b64decode(value).decode() for key, value in found.items()}
        except (binascii.Error, UnicodeDecodeError):
            raise OpsError(f"Secret {namespace}/{name} does not hold text", "pulumi up") from None

    def job(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A Job; None where there is none. Raises OpsError."""
        text = self("-n", namespace, "get", "job", name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def delete_job(self, namespace: str, name: str) -> None:
        """In the foreground: when it is gone, its pod has let go of what it held. Raises OpsError."""
        self(
            *("-n", namespace, "delete", "job", name),
            *("--ignore-not-found", "--cascade=foreground", "--wait=true", "--timeout=35s"),
        )

    def apply(self, manifest: Mapping[str, Any], *options: str) -> str:
        """Make an object as it is written. Raises OpsError."""
        words = ("apply", "--server-side", "--force-conflicts", "--filename=-", *options)
        return self(*words, stdin=json.dumps(manifest))

    def deployments(self, namespace: str) -> Mapping[str, Scale]:
        """Deployments of a namespace by name.

        Raises OpsError.
        """
        return {
            item["metadata"]["name"]: Scale(
                wanted=item["spec"].get("replicas", 1), ready=item.get("status", {}).get("readyReplicas", 0)
            )
            for item in self._get(namespace, "deployments")["items"]
        }

    def _get(self, namespace: str, *what: str) -> Any:
        asked = f"get {' '.join(what)}"
        arguments = [f"--namespace={namespace}", "get", *what, "-o", "json", f"--request-timeout={_API_S}s"]
        try:
            return json.loads(self._run(arguments, f"{asked} in namespace {namespace}"))
        except (ValueError, RecursionError):
            raise self._failed(asked, "the answer is not JSON") from None

    def _kubectl(self, namespace: str) -> list[str]:
        return [*self._command(), f"--namespace={namespace}"]

    def _command(self) -> list[str]:
        if shutil.which(self.program) is None:
            raise OpsError(
                "there is no kubectl on PATH, and the cluster is reached by it",
                "gcloud components install kubectl   # or another way: https://kubernetes.io/docs/tasks/tools",
            )
        file = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        return [self.program, *file, f"--context={self.context}"]

    def _failed(self, what: str, output: str) -> OpsError:
        # kubectl repeats itself before it gives up; the last line is the reason.
        lines = [line for line in output.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "no reason given"
        return OpsError(f"context {self.context}: kubectl {what}: {reason}", self._remedy(reason))

    def _remedy(self, reason: str) -> str:
        if "(NotFound)" in reason:
            return "pulumi up"
        if re.search(r"context .*does not exist|no context exists", reason):
            file = ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
            contexts = shlex.join(["kubectl", *file, "config", "get-contexts", "-o", "name"])
            return _credentials(self.context) or f"{contexts}   # those that there are"
        return self.typed("get", "namespaces")

    def refuse_simulated(self) -> None:
        """Raises OpsError where every node is simulated; says nothing where that cannot be seen."""
        try:
            nodes = self._get("default", "nodes")["items"]
        except OpsError:
            return
        versions = [str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")) for node in nodes]
        if versions and all(version.startswith("kwok-") for version in versions):
            raise OpsError(
                f"context {self.context}: its nodes are simulated, so nothing runs on them and no port leads anywhere; "
                "docs/local.md says what serves on this machine",
                _SERVES,
            )

    @contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Generator[str]:
        """The URL on loopback that leads to a port of a Service, for the length of the block.

        Raises OpsError if the port cannot be had.
        """
        what = f"port-forward svc/{service}"
        command = [*self._kubectl(namespace), "port-forward", "--address=127.0.0.1", "--pod-running-timeout=10s"]
        with ending_on_signals(), tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*command, f"svc/{service}", f":{port}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                local = _listening_port(process)
                if local is None:
                    self.refuse_simulated()
                    errors.seek(0)
                    told = errors.read().decode(errors="replace")
                    raise self._failed(
                        f"{what} in namespace {namespace}", told or f"nothing listens after {_FORWARD_S} s"
                    )
                yield f"http://127.0.0.1:{local}"
            finally:
                _end(process)


def _listening_port(process: subprocess.Popen[bytes]) -> int | None:
    """The port that kubectl says it listens on; None if it leaves, or says nothing in time."""
    output = cast("Any", process.stdout)
    said, deadline = b"", time.monotonic() + _FORWARD_S
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            piece: bytes = output.read1(4096)
            if not piece:
                return None
            said += piece
            if match := _FORWARDING.search(said):
                return int(match.group(1))
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def secret_value(kube: Kube, namespace: str, name: str, key: str) -> str:
    """One value of a Secret.

    Raises OpsError, with the names of those that there are.
    """
    values = kube.secret(namespace, name)
    if key in values:
        return values[key]
    remedy = "pulumi up"
    if name == gateway_keys.APP and values:
        near = nearest(key, values) or min(values)
        remedy = f"{shlex.join(['ops', 'smoke', *kube.named, '--key', near])}   # or give the stack a key '{key}'"
    raise OpsError(
        f"Secret {namespace}/{name} holds no '{key}'; it has: {', '.join(sorted(values)) or 'nothing'}", remedy
    )
