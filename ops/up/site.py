"""The cluster that a stack's config names, and kubectl on it: never the current context of the user's shell."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.checkout import LOCAL, cluster_root
from ops.embedded_cluster.binaries import Say, kept
from ops.embedded_cluster.control_plane import CONTEXT, EmbeddedCluster
from ops.embedded_cluster.planned_nodes import nodes_of
from ops.errors import FailedError
from stacks.plan import Plan

Object = dict[str, Any]  # of the Kubernetes API, as JSON


NO_KUBECTL = "gcloud components install kubectl   # or another way to have it: https://kubernetes.io/docs/tasks/tools"


@dataclass(frozen=True)
class Kubectl:
    """kubectl on one context of one file."""

    binary: str
    kubeconfig: Path
    context: str
    cache: Path

    @property
    def command(self) -> list[str]:
        """How to call it from a shell."""
        return [self.binary, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]

    def typed(self, *words: str) -> str:
        """A command about it, as one types it in a shell."""
        return shlex.join([*self.command, *words])

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints. Raises FailedError with its complaint if it fails."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            env={**os.environ, "KUBECACHEDIR": str(self.cache), "KUBERC": "off", "KUBECTL_APPLYSET": "true"},
            capture_output=True,
            text=True,
            errors="replace",  # a container's log may hold anything
            check=False,
        )
        if done.returncode != 0:
            raise FailedError(
                f"kubectl {' '.join(arguments[:6])}: {done.stderr.strip()}",
                f"{self.typed('get', 'events', '-A')}   # shows what the cluster makes of it; then run it again",
            )
        return done.stdout

    def get(self, *arguments: str) -> list[Object]:
        """Objects, an empty list if there are none."""
        text = self("get", "--ignore-not-found", "-o", "json", *arguments)
        found: Object = json.loads(text) if text.strip() else {"items": []}
        return found.get("items", [found])


@dataclass(frozen=True)
class Site:
    """Where a stack goes. `embedded` is the checkout's own cluster, if that is what config names."""

    kubectl: Kubectl
    embedded: EmbeddedCluster | None


def prepare(plan: Plan, project_dir: Path, say: Say) -> Site:
    """The cluster of a stack, started if it is the embedded one, and answering.

    Raises FailedError for a cluster that is not named, not there or not answering; FailedError for one that does not
    start.
    """
    platform = plan.settings.platform
    project_dir = project_dir.absolute()
    if platform.kubeconfig is None or platform.kube_context is None:
        missing = "kubeconfig" if platform.kubeconfig is None else "kubeContext"
        raise FailedError(
            f"{missing} is not set, and the current context of a shell is never used, so there is no cluster",
            f"ops up --stack {plan.settings.stack} --set {missing}=<value>",
        )
    # As the provider reads it, whose working directory is the project's.
    kubeconfig = project_dir / Path(platform.kubeconfig).expanduser()
    cluster = EmbeddedCluster(cluster_root(project_dir))
    cache = project_dir / LOCAL / "kubectl"
    if kubeconfig == cluster.kubeconfig:
        if platform.kube_context != CONTEXT:
            raise FailedError(
                f"kubeContext is '{platform.kube_context}', which the embedded cluster's kubeconfig does not have",
                f"ops up --stack {plan.settings.stack} --set kubeContext={CONTEXT}",
            )
        started = cluster.up(nodes_of(plan), say)
        say(f"embedded cluster: Kubernetes {cluster.version}, {'started' if started else 'was up already'}")
        return Site(Kubectl(str(cluster.kubectl_binary), kubeconfig, CONTEXT, cache), cluster)
    if not kubeconfig.is_file():
        raise FailedError(
            f"kubeconfig {kubeconfig} does not exist, so there is no cluster to deploy to",
            f"ops up --stack {plan.settings.stack} --set kubeconfig=<file> --set kubeContext=<context>",
        )
    kubectl = Kubectl(_own_kubectl(), kubeconfig, platform.kube_context, cache)
    kubectl("version", "--request-timeout=10s")
    return Site(kubectl, None)


def _own_kubectl() -> str:
    """The user's, or the one that an embedded cluster has."""
    binary = shutil.which("kubectl") or kept("kubectl")
    if binary is None:
        raise FailedError(
            "no kubectl on PATH, and the stack's cluster is not the embedded one, which brings its own",
            NO_KUBECTL,
        )
    return str(binary)
