"""`ops doctor` on a real API server: each finding is caused here.

The scheduler, the volume, Job, ReplicaSet and garbage controllers and admission are the real ones. What a kubelet, a
cloud's autoscaler or its disk driver does, a test writes as they write it (`by: hand`), in words that were recorded
from real clusters; ops/findings/causes.py says where each was read.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import cli
from ops.embedded_cluster import control_plane
from ops.embedded_cluster.control_plane import CONTEXT, EmbeddedCluster
from ops.findings import claims, workloads
from stacks.sections import GATEWAY, SERVING
from tests.checkout import PROJECT_DIR, clone
from tests.cluster import engine as real_engine
from tests.cluster import platform
from tests.cluster.conftest import eventually
from tests.cluster.platform import NAMESPACES, Manifest, Platform, named
from tests.patience import kubectl_timeout
from tests.support import NAME_LABEL

CHAT, STAGE, VLLM = "coder-chat", "stage-weights", "vllm"
BY_HAND = {"by": "hand"}  # an annotation: kwok leaves it to the test
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_LEFT_TO_TESTS = ("node-initialize", "pod-ready", "pod-complete")


@pytest.fixture(scope="module")
def cluster(can_start: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """A cluster of this module's own: what is marked has no kubelet but the test."""
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
    cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ward]:
    """The two namespaces, empty."""
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


# --- containers: init containers first, then those that run ------------------------------------------------------

HUB = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ@8e8ed24"
STAGING = [
    (
        "hub-rate-limit",
        f"stage: gave up on {HUB} after 600 s; last: the hub answers 429 Too Many Requests. The pod starts again",
        "describe pod",
        False,
    ),
    (
        "hub-rate-limit",
        "stage: HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/models/Qwen",
        "describe pod",
        False,
    ),
    ("hub-refused", f"stage: the hub refuses {HUB} (401): it is gated, private, or misspelt", "huggingFaceToken", True),
    ("hub-refused", f"stage: the hub refuses {HUB} (403) to the token it was shown", "huggingFaceToken", True),
    ("hub-unknown", f"stage: the hub does not know {HUB} (404). Correct model_id or revision", "ops pin", True),
    (
        "hub-away",
        (
            "stage: the hub cannot be reached: URLError: [Errno -3] Temporary failure in name resolution; "
            "trying again in 60 s"
        ),
        "describe pod",
        False,
    ),
    (
        "claim-full",
        (
            f"stage: the claim of {CHAT} has no room for {HUB}: 5.19 GiB more, and 0.20 of 1.00 GiB are free; then: "
            f"pulumi config set {CHAT}:claimGib 9 && pulumi up"
        ),
        f"pulumi config set {CHAT}:claimGib 9 && pulumi up",
        True,
    ),
    ("claim-full", "OSError: [Errno 28] No space left on device", f"pulumi config set {CHAT}:claimGib ", True),
    ("weights-wrong", f"stage: {HUB} has no file 'merges.txt', which the engine needs", "describe pod", True),
    ("claim-unusable", f"stage: the claim of {CHAT} cannot be used: [Errno 13] Permission denied", "describe", True),
]


def test_a_staging_that_fails_is_told_in_its_own_last_words(ward: Ward, subtests: pytest.Subtests) -> None:
    pod = ward.deployed(CHAT)
    for cause, message, command, final in STAGING:
        with subtests.test(message):
            ward.kubelet(
                pod,
                phase="Pending",
                initContainerStatuses=[crashed(STAGE, f"stage: downloading {HUB}, 5.19 GiB\n{message}\n")],
                containerStatuses=[waiting(VLLM, "PodInitializing")],
            )
            found = ward.one(cause)
            assert found["words"] in message
            assert found["state"].startswith("Init:CrashLoopBackOff, 4 restarts, exit code 1")
            assert found["where"] == f"{SERVING}/{pod['metadata']['name']}, container {STAGE}"
            assert found["about"] == [{"kind": "Deployment", "namespace": SERVING, "name": CHAT}]
            assert command in found["command"]
            assert found["final"] is final


ENGINE = [
    (
        "gpu-memory",
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity "
            "of 22.03 GiB"
        ),
        "ops fit",
    ),
    (
        "gpu-memory",
        (
            "(EngineCore_DP0 pid=17374) ValueError: Free memory on device (3.22/22.03 GiB) on startup is less "
            "than desired GPU memory utilization (0.9, 19.8 GiB).\n"
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
        ),
        "ops fit",
    ),
    (
        "gpu-memory",
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (4.54 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (1.71 GiB)."
        ),
        "ops fit",
    ),
    (
        "bad-argument",
        ("usage: api_server.py [-h] [--headless]\napi_server.py: error: unrecognized arguments: --swap-space=4"),
        "jsonpath",
    ),
    ("bad-argument", "vllm serve: error: argument --max-num-seqs: invalid int value: 'many'", "jsonpath"),
    (
        "gpu-driver",
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update "
            "your GPU driver"
        ),
        "describe node g2",
    ),
    ("gpu-error", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "describe node g2"),
    ("no-user", "KeyError: 'getpwuid(): uid not found: 2000'", "describe pod"),
    ("unknown", "Traceback (most recent call last):\nValueError: something nobody has met\nINFO bye", "describe pod"),
]


def test_an_engine_that_ends_is_told_in_its_own_last_words(ward: Ward, subtests: pytest.Subtests) -> None:
    pod = ward.deployed(CHAT)
    for cause, message, command in ENGINE:
        with subtests.test(message):
            ward.kubelet(pod, phase="Running", containerStatuses=[crashed(VLLM, message)])
            found = ward.one(cause)
            assert found["words"]
            assert any(found["words"] in line for line in message.splitlines())
            assert "INFO bye" not in found["words"]
            assert command in found["command"]


def test_a_kill_for_memory_names_the_limit_of_the_container(ward: Ward) -> None:
    pod = ward.deployed(CHAT)
    ward.kubelet(pod, phase="Running", containerStatuses=[crashed(VLLM, "loading", code=137, reason="OOMKilled")])
    found = ward.one("memory")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] in found["words"]
    assert "exit code 137 (OOMKilled)" in found["state"]


def test_a_container_that_its_probe_ended_is_told_apart_from_one_that_was_killed_for_memory(ward: Ward) -> None:
    pod = ward.deployed(CHAT)
    ward.kubelet(pod, phase="Running", containerStatuses=[crashed(VLLM, "INFO loading weights", code=137)])
    ward.event(pod, "Unhealthy", 'Startup probe failed: Get "http://10.0.0.9:8000/health": connection refused', age=60)
    ward.event(pod, "Killing", f"Container {VLLM} failed startup probe, will be restarted")
    found = ward.one("probe")
    assert found["words"] == (
        f"Container {VLLM} failed startup probe, will be restarted; Startup probe failed: Get "
        '"http://10.0.0.9:8000/health": connection refused; INFO loading weights'
    )


IMAGES = [
    (
        "image-unknown",
        (
            'Failed to pull image "x": rpc error: code = NotFound desc = failed to pull and unpack image '
            '"docker.io/vllm/vllm-openai:v9": failed to resolve reference: not found'
        ),
        "ops pin",
    ),
    (
        "image-denied",
        (
            'Failed to pull image "x": failed to authorize: failed to fetch oauth token: unexpected status: '
            "403 Forbidden"
        ),
        "describe pod",
    ),
    (
        "image-rate-limit",
        (
            'Failed to pull image "x": failed to copy: httpReadSeeker: failed open: unexpected status '
            "code: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit."
        ),
        "describe",
    ),
    (
        "node-disk-full",
        ('Failed to pull image "x": failed to extract layer: write /var/lib/containerd/x: no space left on device'),
        "describe pod",
    ),
    (
        "image-pull",
        'Failed to pull image "x": dial tcp: lookup docker.io on 10.0.0.10:53: server misbehaving',
        "describe pod",
    ),
]


def test_an_image_that_cannot_be_pulled_is_told_in_the_registrys_words(ward: Ward, subtests: pytest.Subtests) -> None:
    pod = ward.deployed(CHAT)
    back_off = waiting(STAGE, "ImagePullBackOff", 'Back-off pulling image "x"')
    ward.kubelet(
        pod,
        phase="Pending",
        initContainerStatuses=[back_off],
        containerStatuses=[waiting(VLLM, "PodInitializing")],
    )
    for number, (cause, message, command) in enumerate(IMAGES):
        with subtests.test(message):
            ward.event(pod, "Failed", message, age=30 - number)
            found = ward.one(cause)
            assert found["words"] == message
            assert command in found["command"]


def test_a_secret_that_is_not_there_is_named_and_the_stack_brings_it(ward: Ward) -> None:
    pod = ward.deployed("litellm", GATEWAY)
    words = 'secret "litellm-master-key" not found'
    ward.kubelet(pod, phase="Pending", containerStatuses=[waiting("litellm", "CreateContainerConfigError", words)])
    ward.event(pod, "Failed", f"Error: {words}")
    found = ward.one("missing-object")
    assert (found["words"], found["command"]) == (words, "pulumi up")
    assert found["final"]


MOUNTS = (
    ("missing-object", "FailedMount", 'MountVolume.SetUp failed for volume "config" : configmap "c" not found'),
    ("claim-elsewhere", "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used'),
    ("mount", "FailedMount", 'MountVolume.MountDevice failed for volume "pvc-1" : exit status 32'),
)


def test_a_volume_that_is_not_mounted_is_told(ward: Ward, subtests: pytest.Subtests) -> None:
    pod = ward.deployed(CHAT)
    ward.kubelet(pod, phase="Pending", initContainerStatuses=[waiting(STAGE, "PodInitializing")])
    for number, (cause, reason, message) in enumerate(MOUNTS):
        with subtests.test(message):
            ward.event(pod, reason, message, age=30 - number)
            assert ward.one(cause)["words"] == message


def test_a_container_that_the_node_does_not_start_is_told(ward: Ward) -> None:
    pod = ward.deployed(CHAT)
    words = "failed to create containerd task: runc create failed: nvidia-container-cli: requirement error: "
    words += "unsatisfied condition: cuda>=13.0"
    ward.kubelet(pod, phase="Running", containerStatuses=[waiting(VLLM, "RunContainerError", words)])
    assert ward.one("gpu-driver")["words"] == words
    words = "container has runAsNonRoot and image will run as root"
    ward.kubelet(pod, containerStatuses=[waiting(VLLM, "CreateContainerConfigError", words)])
    assert ward.one("container-refused")["words"] == words


def test_an_evicted_pod_is_told_until_another_one_is_ready(ward: Ward) -> None:
    pod = ward.deployed(CHAT)
    words = "The node was low on resource: ephemeral-storage. Threshold quantity: 2146223340, available: 1883424Ki."
    ward.kubelet(pod, phase="Failed", reason="Evicted", message=words)
    assert ward.one("evicted")["words"] == words
    eventually(lambda: len(ward.pods(CHAT)) == 2)
    (other,) = (each for each in ward.pods(CHAT) if each["metadata"]["name"] != pod["metadata"]["name"])
    ready = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
    ward.kubelet(other, phase="Running", conditions=ready)
    eventually(lambda: ward.is_up(CHAT))
    assert ward.doctor(code=0) == []


# --- the gateway -------------------------------------------------------------------------------------------------


def test_a_gateway_whose_database_is_away_is_told_once_and_the_database_comes_first(ward: Ward) -> None:
    gateway = ward.deployed("litellm", GATEWAY)
    words = "Error: P1001: Can't reach database server at `litellm-db.gateway.svc.cluster.local`:`5432`"
    ward.kubelet(gateway, phase="Running", containerStatuses=[crashed("litellm", words)])
    assert ward.one("database-away")["words"] == words
    database = by_hand(named(planned(), "StatefulSet", "litellm-db"))
    ward.apply(*claims_of(database), database)
    eventually(lambda: any(ward.nodes_of("litellm-db", GATEWAY)))
    (pod,) = ward.pods("litellm-db", GATEWAY)
    full = 'FATAL:  could not write to file "pg_wal/xlogtemp.31": No space left on device'
    ward.kubelet(pod, phase="Running", containerStatuses=[crashed("postgres", full)])
    found = ward.one("claim-full")
    assert found["command"].startswith("pulumi config set --path gateway.databaseGib ")
    assert found["words"] == " ".join(full.split())


def test_a_database_that_does_not_start_on_its_data_is_told(ward: Ward, subtests: pytest.Subtests) -> None:
    database = by_hand(named(planned(), "StatefulSet", "litellm-db"))
    ward.apply(*claims_of(database), database)
    eventually(lambda: any(ward.nodes_of("litellm-db", GATEWAY)))
    (pod,) = ward.pods("litellm-db", GATEWAY)
    for cause, words in (
        ("database-data", "FATAL:  database files are incompatible with server"),
        ("database-password", 'FATAL:  password authentication failed for user "litellm"'),
    ):
        with subtests.test(words):
            ward.kubelet(pod, phase="Running", containerStatuses=[crashed("postgres", words)])
            assert ward.one(cause)["words"] == " ".join(words.split())


def a_job(prefix: str, **spec: Any) -> Manifest:
    """A Job of the plan by the start of its name."""
    (job,) = (m for m in planned() if m["kind"] == "Job" and m["metadata"]["name"].startswith(prefix))
    job["spec"] |= spec
    return by_hand(job)


def failed(ward: Ward, prefix: str, message: str, code: int) -> str:
    """Let a Job of the plan fail as its pod does; its name."""
    job = a_job(prefix, backoffLimit=0)
    app = job["spec"]["template"]["metadata"]["labels"][NAME_LABEL]
    ward.apply(job)
    eventually(lambda: any(ward.nodes_of(app, GATEWAY)))
    (pod,) = ward.pods(app, GATEWAY)
    container = pod["spec"]["containers"][0]["name"]
    ended = crashed(container, message, code=code)["lastState"]
    status = {**waiting(container, ""), "state": ended}
    ward.kubelet(pod, phase="Failed", containerStatuses=[status])
    return job["metadata"]["name"]


def test_keys_that_were_refused_are_told_with_every_refusal(ward: Ward) -> None:
    said = "refused: /key/update: 403 Team does not have access to model\nkey 'ci' created\nproblem: key 'x' exists\n"
    name = failed(ward, "litellm-keys-", f"{said}not in sync\n", 1)
    found = ward.one("keys-refused")
    assert found["words"] == "refused: /key/update: 403 Team does not have access to model; problem: key 'x' exists"
    assert found["state"].startswith("Job failed: ")
    assert found["about"] == [{"kind": "Job", "namespace": GATEWAY, "name": name}]


def test_keys_that_could_not_reach_the_gateway_are_told(ward: Ward) -> None:
    failed(ward, "litellm-keys-", "giving up, the gateway stays out of reach: /health/readiness: refused", 3)
    assert ward.one("gateway-away")["final"] is False


def test_a_migration_that_failed_is_told(ward: Ward) -> None:
    words = "Error: P3009: migrate found failed migrations in the target database"
    failed(ward, "litellm-migrate-", words, 1)
    assert ward.one("migration-failed")["words"] == words


def test_a_job_whose_time_was_over_is_told_in_its_controllers_words(ward: Ward) -> None:
    ward.apply(a_job("litellm-migrate-", activeDeadlineSeconds=1))
    assert ward.one("job-failed")["words"] == "Job was active longer than specified deadline"


def test_a_gateway_scaled_to_zero_by_hand_is_told(ward: Ward) -> None:
    manifest = named(planned(), "Deployment", "litellm")
    manifest["spec"]["replicas"] = 0
    ward.apply(manifest)
    assert ward.one("at-zero")["command"] == "pulumi up"


def test_a_cluster_without_the_platform_is_told(ward: Ward) -> None:
    ward.cluster.kubectl("delete", "namespace", *NAMESPACES, kubectl_timeout(60))
    (found,) = ward.doctor()
    assert (found["cause"], found["command"]) == ("not-deployed", "pulumi up")
    assert [about["name"] for about in found["about"]] == [SERVING, GATEWAY]


# --- the scheduler and the autoscaler ----------------------------------------------------------------------------


def test_a_gpu_that_another_model_holds_is_told_with_its_holder(ward: Ward) -> None:
    ward.apply(*(by_hand_all(planned("coder-mini:replicas=1"), "coder-mini")))
    eventually(lambda: ward.nodes_of("coder-mini") == ["g2"])
    (holder,) = ward.pods("coder-mini")
    ward.kubelet(holder, phase="Running", conditions=[{"type": "PodScheduled", "status": "True"}])
    ward.apply(*by_hand_all(planned(f"{CHAT}:replicas=1"), CHAT))
    found = ward.one("gpu-taken")
    assert "Insufficient nvidia.com/gpu" in found["words"]
    assert found["command"] == "pulumi config set coder-mini:replicas 0 && pulumi up"
    assert found["about"] == [{"kind": "Deployment", "namespace": SERVING, "name": CHAT}]


def by_hand_all(objects: list[Manifest], alias: str) -> list[Manifest]:
    """A model's Deployment and claim."""
    deployment = by_hand(named(objects, "Deployment", alias))
    return [named(objects, "PersistentVolumeClaim", f"{alias}-model-cache"), deployment]


def pending(ward: Ward, **changes: Any) -> Manifest:
    """A pod that no node takes."""
    manifest = by_hand(named(planned(f"{CHAT}:replicas=1"), "Deployment", CHAT))
    manifest["spec"]["template"]["spec"] |= changes
    ward.apply(*claims_of(manifest), manifest)

    def refused() -> bool:
        (pod,) = ward.pods(CHAT)
        return any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", ()))

    eventually(refused)
    return ward.pods(CHAT)[0]


def test_a_node_that_nobody_has_is_told_in_the_schedulers_words(ward: Ward) -> None:
    pending(ward, nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-b200"})
    found = ward.one("no-node")
    assert "didn't match Pod's node affinity/selector" in found["words"]
    assert "get nodes" in found["command"]


def test_a_node_without_room_is_told_in_the_schedulers_words(ward: Ward) -> None:
    manifest = by_hand(named(planned(), "Deployment", "litellm"))
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"memory": "900Gi"}}
    ward.apply(manifest)
    assert "Insufficient memory" in ward.one("node-full")["words"]


def test_nodes_that_take_no_pods_are_told(ward: Ward) -> None:
    with ward.cordoned("g2", "system"):
        ward.apply(by_hand(named(planned(), "Deployment", "litellm")))
        assert "were unschedulable" in ward.one("cordoned")["words"]


def test_a_volume_in_another_zone_is_told(ward: Ward) -> None:
    there = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-central1-f"]}
    volume: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "elsewhere"},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard-rwo",
            "csi": {"driver": "pd.csi.storage.gke.io", "volumeHandle": "elsewhere"},
            "claimRef": {"namespace": SERVING, "name": f"{CHAT}-model-cache"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [there]}]}},
        },
    }
    ward.apply(volume)
    pending(ward)
    assert "didn't match PersistentVolume's node affinity" in ward.one("claim-elsewhere")["words"]


SCALER = [
    (
        "FailedScaleUp",
        "node-quota",
        (
            "Node scale up in zones us-central1-c associated with this pod failed: GCE quota "
            "exceeded. Pod is at risk of not being scheduled."
        ),
    ),
    (
        "FailedScaleUp",
        "stock-out",
        (
            "Node scale up in zones us-central1-a associated with this pod failed: GCE out of "
            "resources. Pod is at risk of not being scheduled."
        ),
    ),
    (
        "FailedScaleUp",
        "scale-up-failed",
        (
            "Node scale up in zones us-central1-a associated with this pod failed: "
            "Internal error. Pod is at risk of not being scheduled."
        ),
    ),
    (
        "NotTriggerScaleUp",
        "scale-up-failed",
        (
            "pod didn't trigger scale-up: 1 node(s) didn't match Pod's node "
            "affinity/selector, 1 in backoff after failed scale-up"
        ),
    ),
    (
        "NotTriggerScaleUp",
        "pool-full",
        (
            "pod didn't trigger scale-up: 12 node(s) didn't match Pod's node "
            "affinity/selector, 3 max node group size reached"
        ),
    ),
    (
        "NotTriggerScaleUp",
        "no-node",
        ("pod didn't trigger scale-up: 2 node(s) didn't match Pod's node affinity/selector"),
    ),
]


def test_what_the_autoscaler_says_comes_before_the_scheduler(ward: Ward, subtests: pytest.Subtests) -> None:
    pod = pending(ward, nodeSelector={"no": "such-node"})
    for number, (reason, cause, words) in enumerate(SCALER):
        with subtests.test(words):
            ward.event(pod, reason, words, "cluster-autoscaler", age=60 - number)
            assert ward.one(cause)["words"].startswith(words)
    # A node is on its way now.
    ward.event(pod, "TriggeredScaleUp", "pod triggered scale-up: [{https://x 0->1 (max: 1)}]", "cluster-autoscaler")
    assert ward.doctor(code=0) == []


# --- claims ------------------------------------------------------------------------------------------------------


def claim(name: str, storage_class: str | None = None) -> Manifest:
    resources = {"requests": {"storage": "1Gi"}}
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    meta = {"name": name, "namespace": SERVING}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def test_a_cluster_without_a_default_class_is_told_for_all_claims_at_once(ward: Ward) -> None:
    default_class(ward.cluster, there=False)
    ward.apply(claim("one"), claim("two"))
    eventually(lambda: len(ward.one("no-default-class")["about"]) == 2)
    found = ward.one("no-default-class")
    assert "no storage class is set" in found["words"]
    assert "patch storageclass standard-rwo" in found["command"]
    assert found["final"]
    ward.cluster.kubectl(*shlex.split(found["command"])[1:])  # and it mends
    eventually(lambda: ward.doctor(code=0) == [])


def test_a_claim_of_a_class_that_is_not_there_is_told(ward: Ward) -> None:
    ward.apply(claim("one", "fast"))
    assert ward.one("no-class")["words"] == 'storageclass.storage.k8s.io "fast" not found'


def test_a_claim_that_waits_for_its_first_pod_is_no_finding(ward: Ward) -> None:
    ward.apply(claim("one"))
    (made,) = ward.items(SERVING, "pvc")
    ward.event(made, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    assert ward.doctor(code=0) == []


def test_a_provisioner_that_answers_nothing_is_told_once_it_is_late(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nobody"}}
    ward.apply({**nobody, "provisioner": "example.com/nobody"})
    ward.apply(claim("one", "nobody"))
    eventually(lambda: any(e["reason"] == "ExternalProvisioning" for e in ward.items(SERVING, "events")))
    assert ward.doctor(code=0) == []
    monkeypatch.setattr(claims, "_SILENT_S", 0)
    assert "example.com/nobody" in ward.one("provisioner-silent")["words"]


DRIVER = (
    (
        "disk-quota",
        (
            'failed to provision volume with StorageClass "standard-rwo": rpc error: code = '
            "ResourceExhausted desc = googleapi: Error 403: Quota 'SSD_TOTAL_GB' exceeded. Limit: 100.0 in region us"
        ),
    ),
    (
        "provisioning-failed",
        (
            'failed to provision volume with StorageClass "standard-rwo": rpc error: code = '
            "InvalidArgument desc = CreateVolume failed"
        ),
    ),
)


def test_a_volume_that_cannot_be_made_is_told_in_the_drivers_words(ward: Ward, subtests: pytest.Subtests) -> None:
    ward.apply(claim("one"))
    (made,) = ward.items(SERVING, "pvc")
    for number, (cause, words) in enumerate(DRIVER):
        with subtests.test(words):
            ward.event(made, "ProvisioningFailed", words, "pd.csi.storage.gke.io", age=30 - number)
            assert ward.one(cause)["words"] == words


def test_a_claim_whose_volume_is_gone_and_one_that_cannot_grow_are_told(ward: Ward) -> None:
    ward.deployed(CHAT)
    (made,) = ward.items(SERVING, "pvc")
    eventually(lambda: ward.items(SERVING, "pvc")[0]["status"]["phase"] == "Bound")
    ward.cluster.kubectl("-n", SERVING, "annotate", "pvc", made["metadata"]["name"], "by=hand")
    grown = json.dumps({"status": {"capacity": {"storage": "1Gi"}}})
    where = ("-n", SERVING, "patch", "pvc", made["metadata"]["name"], "--subresource=status", "--type=merge")
    words = "googleapi: Error 400: Disk cannot be resized"
    ward.event(made, "VolumeResizeFailed", words, "external-resizer pd.csi.storage.gke.io")
    ward.cluster.kubectl(*where, "-p", grown)
    assert ward.doctor(code=1)[0]["words"] == words
    volume = ward.items(SERVING, "pvc")[0]["spec"]["volumeName"]
    ward.cluster.kubectl("patch", "pv", volume, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    ward.cluster.kubectl("delete", "pv", volume, kubectl_timeout(60))
    assert ward.one("claim-lost")["state"] == "Lost"


# --- admission ---------------------------------------------------------------------------------------------------


def test_what_pod_security_refuses_is_told(ward: Ward) -> None:
    manifest = named(planned(), "Deployment", "litellm")
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    ward.apply(manifest)
    found = ward.one("pod-security")
    assert 'violates PodSecurity "restricted:latest"' in found["words"]
    assert found["about"] == [{"kind": "Deployment", "namespace": GATEWAY, "name": "litellm"}]


def test_what_a_quota_refuses_is_told(ward: Ward) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": GATEWAY}}
    ward.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    ward.apply(named(planned(), "Deployment", "litellm"))
    found = ward.one("resource-quota")
    assert "exceeded quota: few" in found["words"]
    assert "describe resourcequota" in found["command"]


def test_a_webhook_that_does_not_answer_is_told(ward: Ward) -> None:
    hook: Manifest = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "judge"},
        "webhooks": [
            {
                "name": "judge.example.com",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "judge", "namespace": GATEWAY}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GATEWAY}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            }
        ],
    }
    ward.apply(hook)
    try:
        ward.apply(named(planned(), "Deployment", "litellm"))
        assert 'failed calling webhook "judge.example.com"' in ward.one("webhook-away")["words"]
    finally:
        ward.cluster.kubectl("delete", "validatingwebhookconfiguration", "judge")


def test_what_a_policy_of_the_cluster_refuses_is_told(ward: Ward) -> None:
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "no-pods"}}
    rules = {"matchConstraints": {"resourceRules": [pods]}, "validations": [{"expression": "false", "message": "no"}]}
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GATEWAY}}}
    binding = {"policyName": "no-pods", "validationActions": ["Deny"], "matchResources": only}
    ward.apply({**api, "kind": "ValidatingAdmissionPolicy", "spec": rules})
    ward.apply({**api, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    try:
        ward.apply(named(planned(), "Deployment", "litellm"))
        assert "denied request: no" in ward.one("webhook-refused")["words"]
    finally:
        ward.cluster.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "no-pods")


def test_what_the_api_server_refuses_for_another_reason_is_told(ward: Ward) -> None:
    manifest = named(planned(), "Deployment", "litellm")
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    ward.apply(manifest)
    assert 'serviceaccount "nobody" not found' in ward.one("create-refused")["words"]


# --- nodes -------------------------------------------------------------------------------------------------------


@contextmanager
def a_node(ward: Ward, name: str, labels: Manifest, **status: Any) -> Generator[None]:
    """A node whose kubelet is the test."""
    meta = {"name": name, "labels": labels, "annotations": BY_HAND}
    ward.apply({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"unschedulable": True}})
    body = json.dumps({"status": status})
    ward.cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", body)
    try:
        yield
    finally:
        ward.cluster.kubectl("delete", "node", name)


SICK = (
    ("node-not-ready", "Ready", "False", "container runtime network not ready: cni plugin not initialized"),
    ("node-pressure", "DiskPressure", "True", "kubelet has disk pressure"),
)


def test_a_node_in_trouble_is_told_in_its_kubelets_words(ward: Ward, subtests: pytest.Subtests) -> None:
    for cause, kind, status, words in SICK:
        told = {"type": kind, "status": status, "reason": "Kubelet", "message": words}
        others = [] if kind == "Ready" else [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
        with subtests.test(words), a_node(ward, "sick", {}, conditions=[told, *others]):
            found = ward.one(cause)
            assert found["words"] == words
            assert found["command"].endswith("describe node sick")


def test_a_gpu_node_that_offers_no_gpu_is_told_once_its_driver_is_late(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
    with a_node(ward, "bare", {"cloud.google.com/gke-accelerator": "nvidia-l4"}, conditions=ready):
        assert ward.doctor(code=0) == []
        monkeypatch.setattr(workloads, "_PLUGIN_S", 0)
        assert ward.one("node-without-gpu")["where"] == "node bare"


# --- the command itself ------------------------------------------------------------------------------------------


def test_that_nothing_enforces_policies_is_told(ward: Ward) -> None:
    meta = {"name": "kube-flannel-ds", "namespace": "kube-system"}
    labels = {"app": "flannel"}
    spec = {"containers": [{"name": "kube-flannel", "image": "ghcr.io/flannel-io/flannel:v0.27.0"}]}
    template = {
        "metadata": {"labels": labels, "annotations": BY_HAND},
        "spec": {**spec, "nodeSelector": {"no": "node"}},
    }
    ward.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
    )
    try:
        assert "kube-flannel-ds" in ward.one("policies-unenforced")["words"]
    finally:
        ward.cluster.kubectl("-n", "kube-system", "delete", "daemonset", "kube-flannel-ds")


def test_a_healthy_platform_is_no_finding_and_says_what_was_looked_at(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.apply(named(planned(), "Deployment", "litellm"))
    eventually(lambda: ward.get(GATEWAY, "deployment", "litellm")["status"].get("readyReplicas"))
    place = ("--kubeconfig", str(ward.cluster.kubeconfig), "--context", CONTEXT)
    assert cli.main(["doctor", *place]) == 0
    assert capsys.readouterr().out == f"nothing is wrong with 1 pods of {SERVING}, {GATEWAY} in {CONTEXT}\n"


def test_a_finding_is_a_line_and_its_command_and_shows_no_secret(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "plainlookingsecretvalue"
    meta = {"name": "some", "namespace": SERVING}
    ward.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": value}})
    pod = ward.deployed(CHAT)
    hidden = f"{value} hf_abcdefghijklmn sk-{'a' * 20} Bearer abcdef.ghijkl postgresql://u:pass@db/x"
    ward.kubelet(pod, phase="Running", containerStatuses=[crashed(VLLM, f"RuntimeError: \x1b[31m{hidden}")])
    place = ("--kubeconfig", str(ward.cluster.kubeconfig), "--context", CONTEXT)
    assert cli.main(["doctor", *place]) == 1
    out = capsys.readouterr().out
    first, second = out.splitlines()
    assert first.startswith(f"- {SERVING}/{pod['metadata']['name']}, container {VLLM}: CrashLoopBackOff")
    assert first.endswith("RuntimeError: *** hf_*** sk-*** Bearer *** postgresql://u:***@db/x")
    assert f"--kubeconfig {ward.cluster.kubeconfig} --context {CONTEXT}" in second
    ward.cluster.kubectl("-n", SERVING, "delete", "secret", "some")


def test_a_user_who_may_see_little_is_told_what_was_not_looked_at(
    ward: Ward, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.cluster.kubectl("-n", GATEWAY, "create", "serviceaccount", "guest")
    for name in NAMESPACES:
        ward.cluster.kubectl(
            *("-n", name, "create", "rolebinding", "guest", "--clusterrole=view"),
            f"--serviceaccount={GATEWAY}:guest",
        )
    config = yaml.safe_load(ward.cluster.kubeconfig.read_text())
    token = ward.cluster.kubectl("-n", GATEWAY, "create", "token", "guest").strip()
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    place = ("--kubeconfig", str(tmp_path / "config"), "--context", CONTEXT)
    assert cli.main(["doctor", *place]) == 2
    told = capsys.readouterr()
    assert "not looked at: nodes" in told.err
    ward.apply(claim("one", "fast"))
    eventually(lambda: any(e["reason"] == "ProvisioningFailed" for e in ward.items(SERVING, "events")))
    assert cli.main(["doctor", *place]) == 1
    capsys.readouterr()
    for name in NAMESPACES:
        ward.cluster.kubectl("-n", name, "delete", "rolebinding", "guest")
    assert cli.main(["doctor", *place]) == 2
    assert "lets nobody see the pods" in capsys.readouterr().err
    ward.cluster.kubectl("-n", GATEWAY, "delete", "serviceaccount", "guest")


# --- what waits for a cluster ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["kubectl", "pulumi"])
def test_an_up_ends_early_where_no_claim_will_ever_be_bound(
    ward: Ward, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wait for the database would take 600 s."""
    if engine == "pulumi":
        if reason := real_engine.why_unavailable():
            pytest.skip(reason)
        monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
        (tmp_path / "home").mkdir()
        if (plugins := Path.home() / ".pulumi" / "plugins").is_dir():
            (tmp_path / "home" / "plugins").symlink_to(plugins)
    project = clone(tmp_path / "project")
    (project / ".venv").symlink_to(sys.prefix)
    default_class(ward.cluster, there=False)
    place = [f"kubeconfig={ward.cluster.kubeconfig}", f"kubeContext={CONTEXT}"]
    asked = [f"--project-dir={project}", *(f"--set={one}" for one in place)]
    begun = time.monotonic()
    assert cli.main(["up", f"--engine={engine}", *asked]) == 1
    assert time.monotonic() - begun < 300
    told = capsys.readouterr().err
    assert "no persistent volumes available for this claim and no storage class is set" in told
    assert "600" not in told
    (remedy,) = re.findall(r"remedy: (.*)", told)
    assert "patch storageclass standard-rwo" in remedy
    ward.cluster.kubectl(*shlex.split(remedy)[3:])
    assert cli.main(["up", f"--engine={engine}", *asked]) == 0
