"""The platform on a cluster where a test is the kubelet of what it marks: it writes statuses and events as one does."""

from __future__ import annotations

import copy
import functools
import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from ops import cli
from ops.embedded_cluster import control_plane
from ops.embedded_cluster.control_plane import CONTEXT, EmbeddedCluster
from stacks.sections import SERVING
from tests.checkout import PROJECT_DIR
from tests.cluster import platform
from tests.cluster.platform import NAMESPACES, Manifest, Platform, eventually, named
from tests.patience import kubectl_timeout

CHAT, STAGE, VLLM = "coder-chat", "stage-weights", "vllm"
BY_HAND = {"by": "hand"}  # an annotation: kwok leaves it to the test
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_LEFT_TO_TESTS = ("node-initialize", "pod-ready", "pod-complete")


@pytest.fixture(scope="session")
def hand_cluster(can_start: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """A cluster of its own: what is marked has no kubelet but the test."""
    folder = tmp_path_factory.mktemp("doctor")
    stages = list(yaml.safe_load_all(control_plane._STAGES.read_text()))  # pyright: ignore[reportPrivateUsage]
    for stage in stages:
        if stage["metadata"]["name"] in _LEFT_TO_TESTS:
            unmarked = {"jq": {"key": ".metadata.annotations.by", "operator": "DoesNotExist"}}
            stage["spec"]["selector"]["matchExpressions"].append(unmarked)
        if stage["metadata"]["name"] == "claim-grow":
            marked = "has(self.metadata.annotations) && 'by' in self.metadata.annotations"
            stage["spec"]["selector"]["matchExpressions"].append({"cel": {"expression": f"!({marked})"}})
    (folder / "stages.yaml").write_text(yaml.safe_dump_all(stages))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(control_plane, "_STAGES", folder / "stages.yaml")
        with EmbeddedCluster.started(folder / "cluster") as cluster:
            yield cluster


@dataclass(frozen=True)
class Ward(Platform):
    """The platform's namespaces, and the hands of a kubelet."""

    out: Callable[[], str]

    def doctor(self, *arguments: str, code: int = 1) -> list[dict[str, Any]]:
        """What `ops doctor` finds."""
        place = ("--kubeconfig", str(self.cluster.kubeconfig), "--context", CONTEXT)
        assert cli.main(["doctor", *place, "--format", "json", *arguments]) == code
        return json.loads(self.out())["findings"]

    def one(self, cause: str) -> dict[str, Any]:
        """The one finding that comes to be, which is of a cause."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            place = ("--kubeconfig", str(self.cluster.kubeconfig), "--context", CONTEXT)
            cli.main(["doctor", *place, "--format", "json"])
            found[:] = json.loads(self.out())["findings"]
            return [each["cause"] for each in found] == [cause]

        eventually(is_there)
        self.run(found[0]["command"])
        return found[0]

    def run(self, command: str) -> None:
        """A command of a finding about the cluster, as typed."""
        if command.startswith(("kubectl", str(self.cluster.kubectl_binary))) and " patch " not in command:
            self.cluster.kubectl(*shlex.split(command)[1:], "--request-timeout=20s")

    def kubelet(self, pod: Manifest, **status: Any) -> None:
        """Write the status of a pod as its kubelet does."""
        where = ("-n", pod["metadata"]["namespace"], "patch", "pod", pod["metadata"]["name"])
        self.cluster.kubectl(*where, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def event(self, about: Manifest, reason: str, message: str, source: str = "kubelet", *, age: int = 5) -> None:
        """Write an event about an object."""
        at = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = about["metadata"]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {"kind": about["kind"], **{k: meta[k] for k in ("name", "namespace", "uid")}},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 3,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "source": {"component": source},
        }
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(event))

    def deployed(self, name: str, namespace: str = SERVING, **changes: Any) -> Manifest:
        """A Deployment of the plan, with a pod on a node; the pod is the test's."""
        manifest = by_hand(named(planned(f"{CHAT}:replicas=1"), "Deployment", name))
        manifest["spec"]["template"]["spec"] |= changes
        self.apply(*claims_of(manifest), manifest)
        eventually(lambda: any(node for node in self.nodes_of(name, namespace)))
        return next(pod for pod in self.pods(name, namespace) if "nodeName" in pod["spec"])


@functools.cache
def _plan(*assignments: str) -> list[Manifest]:
    return platform.planned(*assignments)


def planned(*assignments: str) -> list[Manifest]:
    """The manifests of a plan, planned once."""
    return copy.deepcopy(_plan(*assignments))


def by_hand(manifest: Manifest) -> Manifest:
    """Whose pods have no kubelet but the test."""
    meta = manifest["spec"]["template"]["metadata"]
    meta["annotations"] = {**meta.get("annotations", {}), **BY_HAND}
    return manifest


def claims_of(manifest: Manifest) -> list[Manifest]:
    """The claims that a workload of the plan mounts."""
    volumes = manifest["spec"]["template"]["spec"].get("volumes", ())
    names = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    return [named(planned(f"{CHAT}:replicas=1"), "PersistentVolumeClaim", name) for name in names]


@pytest.fixture
def ward(
    hand_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ward]:
    """The two namespaces, empty."""
    cluster = hand_cluster
    monkeypatch.setenv("PATH", f"{cluster.kubectl_binary.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(PROJECT_DIR)  # whose stack says the namespaces
    ward = Ward(cluster, lambda: capsys.readouterr().out)
    ward.apply(*(m for m in planned() if m["kind"] == "Namespace"))
    yield ward
    default_class(cluster, there=True)
    kinds = "deployment,statefulset,cronjob,job,pvc,resourcequota,event,networkpolicy"
    for name in NAMESPACES:
        cluster.kubectl("-n", name, "delete", kinds, "--all", "--wait=false")
        cluster.kubectl("-n", name, "delete", "pod", "--all", "--force", "--grace-period=0", kubectl_timeout(60))
        eventually(lambda name=name: not ward.items(name, "pods,pvc,replicaset"))
    cluster.kubectl("delete", "pv", "--all", kubectl_timeout(60))


def default_class(cluster: EmbeddedCluster, *, there: bool) -> None:
    value = f"{_DEFAULT_CLASS}={str(there).lower()}"
    cluster.kubectl("annotate", "--overwrite", "storageclass", "standard-rwo", value)


def crashed(container: str, message: str, *, code: int = 1, reason: str = "Error", restarts: int = 4) -> Manifest:
    """A container between two starts, as a kubelet writes it."""
    ended = {"exitCode": code, "reason": reason, "message": message, "containerID": "containerd://1"}
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    back_off = f"back-off 1m20s restarting failed container={container}"
    return {
        "name": container,
        "image": "x",
        "imageID": "x",
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": back_off}},
        "lastState": {"terminated": {**ended, "startedAt": at, "finishedAt": at}},
    }


def waiting(container: str, reason: str, message: str = "") -> Manifest:
    """A container that is not started."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def claim(name: str, storage_class: str | None = None) -> Manifest:
    resources = {"requests": {"storage": "1Gi"}}
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    meta = {"name": name, "namespace": SERVING}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}
