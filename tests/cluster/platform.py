"""The platform on the embedded cluster: what a plan makes of it through kubectl, and what is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ops.embedded_cluster.control_plane import EmbeddedCluster
from ops.errors import FailedError
from ops.manifests import manifests
from stacks.sections import GATEWAY, SERVING
from tests.patience import kubectl_timeout, patient
from tests.support import NAME_LABEL, recorded

Manifest = dict[str, Any]
NAMESPACES = (SERVING, GATEWAY)
GPU_NODE, SYSTEM_NODE = "g2", "system"  # of the embedded cluster's default nodes


def planned(*assignments: str, stack: str = "local") -> list[Manifest]:
    """The manifests of a plan, namespaces first, Secrets by reference."""
    return manifests(recorded(*assignments, stack=stack).resources)


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of a kind and name."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


@dataclass(frozen=True)
class Platform:
    """What the tests do to the platform and read of it."""

    cluster: EmbeddedCluster

    def apply(self, *objects: Manifest) -> None:
        """As a GitOps user does."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        strictly = ("--server-side", "--force-conflicts", "--validate=strict")
        self.cluster.kubectl("apply", *strictly, "-f", "-", stdin=json.dumps(items))

    def items(self, namespace: str, kind: str, *arguments: str) -> list[Manifest]:
        """All objects of a kind in a namespace."""
        return json.loads(self.cluster.kubectl("-n", namespace, "get", kind, *arguments, "-o", "json"))["items"]

    def get(self, namespace: str, kind: str, name: str) -> Manifest:
        """One object."""
        return json.loads(self.cluster.kubectl("-n", namespace, "get", kind, name, "-o", "json"))

    def uids(self, namespace: str, kind: str) -> dict[str, str]:
        """UID by name: another one is another object."""
        return {o["metadata"]["name"]: o["metadata"]["uid"] for o in self.items(namespace, kind)}

    def pods(self, app: str, namespace: str = SERVING) -> list[Manifest]:
        """Pods of an app."""
        return self.items(namespace, "pods", "-l", f"{NAME_LABEL}={app}")

    def nodes_of(self, app: str, namespace: str = SERVING) -> list[str | None]:
        """Where its pods are; None for one that waits."""
        return [pod["spec"].get("nodeName") for pod in self.pods(app, namespace)]

    def wanted(self, alias: str) -> int:
        """Replicas of a model's Deployment, as the API server has them."""
        return self.get(SERVING, "deployment", alias)["spec"]["replicas"]

    def is_up(self, alias: str) -> bool:
        """Whether a model serves."""
        return self.get(SERVING, "deployment", alias)["status"].get("availableReplicas", 0) > 0

    def scale(self, alias: str, replicas: int) -> None:
        """By hand, past every gate of the program."""
        self.cluster.kubectl("-n", SERVING, "scale", f"deployment/{alias}", f"--replicas={replicas}")

    def rolled_out(self, what: str, namespace: str = SERVING) -> None:
        """Wait for a Deployment or StatefulSet."""
        self.cluster.kubectl("-n", namespace, "rollout", "status", what, kubectl_timeout(30))

    @contextmanager
    def cordoned(self, *nodes: str) -> Generator[None]:
        """Nodes that take no new pod."""
        self.cluster.kubectl("cordon", *nodes)
        try:
            yield
        finally:
            self.cluster.start_api_server()
            self.cluster.kubectl("uncordon", *nodes)


def eventually(check: Callable[[], object], seconds: float = 30) -> None:
    """Wait until a check is true; on the last try its own error or value is what the test fails with."""
    for _ in patient(seconds):
        with suppress(AssertionError, FailedError, KeyError, IndexError):
            if check():
                return
    assert check()
