"""One embedded cluster for all tests of this folder that a worker runs, and a namespace for each test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.embedded_cluster.binaries import why_unavailable
from ops.embedded_cluster.control_plane import EmbeddedCluster
from tests.cluster import engine
from tests.cluster.engine import Engine
from tests.cluster.platform import NAMESPACES, Platform, eventually
from tests.cluster.ward import hand_cluster, ward
from tests.patience import kubectl_timeout

__all__ = ["eventually", "hand_cluster", "ward"]  # for the tests of this folder

Manifest = dict[str, Any]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def can_start() -> None:
    """Skip, with the reason, where the control plane's programs are neither there nor can be built."""
    if reason := why_unavailable():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(can_start: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """A running cluster with the default nodes `g2` and `system`; gone after the session."""
    with EmbeddedCluster.started(tmp_path_factory.mktemp("embedded") / "cluster") as cluster:
        yield cluster


@dataclass(frozen=True)
class Namespace:
    """A namespace of its own, and the few kubectl calls that the tests make in it."""

    cluster: EmbeddedCluster
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, *manifests: Manifest) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=json.dumps(items))

    def get(self, *what: str) -> Manifest:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def pods(self, app: str) -> list[Manifest]:
        return self.get("pods", "-l", f"app={app}")["items"]


@pytest.fixture
def namespace(cluster: EmbeddedCluster) -> Iterator[Namespace]:
    """An empty namespace; what was made in it has left the nodes when the test ends."""
    name = f"test-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    yield Namespace(cluster, name)
    # In this order a namespace goes at once; deleted with its pods inside, it takes 5 to 10 s.
    kinds = "deployment,statefulset,job,pod,pvc"
    cluster.kubectl("-n", name, "delete", kinds, "--all", "--cascade=foreground", kubectl_timeout(60))
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def platform(request: pytest.FixtureRequest, cluster: EmbeddedCluster) -> Iterator[Platform]:
    """The cluster as a stack finds it: nothing of the platform is there, and nothing is left after the test."""
    if "deploys" in request.fixturenames and (reason := engine.why_unavailable()):
        pytest.skip(reason)  # before there is anything to take down
    yield Platform(cluster)
    cluster.start_api_server()
    kinds = "deployment,statefulset,cronjob,job,pod,pvc"
    for name in NAMESPACES:
        cluster.kubectl("-n", name, "delete", kinds, "--all", "--cascade=foreground", kubectl_timeout(60))
    cluster.kubectl("delete", "namespace", *NAMESPACES, "--ignore-not-found", kubectl_timeout(60))
    cluster.kubectl("delete", "pv", "--all", kubectl_timeout(60))
    cluster.up()  # with the default nodes, now that no pod is on another


@pytest.fixture
def deploys(platform: Platform, tmp_path: Path) -> Callable[[str], Engine]:
    """Makes a stack on the real engine, deployed to the platform's cluster."""
    return lambda stack: Engine.prepared(tmp_path, stack, platform.cluster)
