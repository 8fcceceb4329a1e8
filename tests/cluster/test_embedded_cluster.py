"""The embedded cluster behaves like the GKE cluster that it stands in for, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from models.machines import ACCELERATOR_LABEL, GPU_TAINT
from ops.cluster import commands
from ops.embedded_cluster import binaries, control_plane, downloads
from ops.embedded_cluster.control_plane import EmbeddedCluster
from ops.embedded_cluster.nodes import DEFAULT_NODES
from ops.errors import FailedError
from tests.checkout import CHECKOUT
from tests.cluster.conftest import Manifest, Namespace, eventually
from tests.patience import kubectl_timeout

# A pod that Pod Security admits at its strictest level.
RESTRICTED: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": 2000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_spec(**fields: Any) -> Manifest:
    return {"containers": [{"name": "main", "image": "engine", "securityContext": RESTRICTED}], **fields}


def requesting(spec: Manifest, **limits: str) -> Manifest:
    spec["containers"][0]["resources"] = {"limits": limits, "requests": limits}
    return spec


def gpu_spec() -> Manifest:
    return requesting(pod_spec(), **{GPU_TAINT: "1"})


def workload(kind: str, name: str, spec: Manifest, **fields: Any) -> Manifest:
    """A Deployment or StatefulSet of one replica, unless the fields say otherwise."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            **fields,
        },
    }


def claim(name: str, size: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec},
    }


def mounting(name: str) -> Manifest:
    return pod_spec(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": name}}])


def grown(size: str) -> str:
    return json.dumps({"spec": {"resources": {"requests": {"storage": size}}}})


def nodes_of(pods: list[Manifest]) -> list[str | None]:
    return [pod["spec"].get("nodeName") for pod in pods]


def processes_naming(folder: Path) -> list[str]:
    """Command lines of all processes on this machine that mention a folder, this one's children or not."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


# --- what it simulates


def test_both_nodes_are_ready_with_the_room_and_labels_of_their_machines(cluster: EmbeddedCluster) -> None:
    items: list[Manifest] = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    nodes = {item["metadata"]["name"]: item for item in items}
    assert set(nodes) == {shape.name for shape in DEFAULT_NODES}
    for shape in DEFAULT_NODES:
        node = nodes[shape.name]
        assert node["status"]["allocatable"]["cpu"] == f"{shape.cpu * 1000:.0f}m"
        assert node["status"]["allocatable"].get(GPU_TAINT, "0") == str(shape.gpus)
        assert node["metadata"]["labels"].get(ACCELERATOR_LABEL, "") == shape.accelerator
        assert any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def test_another_set_of_nodes_replaces_the_one_before(cluster: EmbeddedCluster) -> None:
    bigger = dataclasses.replace(DEFAULT_NODES[0], cpu=15.89)
    extra = dataclasses.replace(DEFAULT_NODES[1], name="extra")
    try:
        assert not cluster.up([bigger, DEFAULT_NODES[1], extra])  # it ran already
        cpus = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.allocatable.cpu}")
        assert cpus.split() == ["3920m", "15890m", "3920m"]
    finally:
        cluster.up()
    assert cluster.kubectl("get", "nodes", "-o", "name").split() == ["node/g2", "node/system"]


def test_a_gpu_pod_runs_on_the_l4_node_and_is_given_its_toleration(namespace: Namespace) -> None:
    namespace.apply(workload("Deployment", "model", gpu_spec()))
    namespace.kubectl("rollout", "status", "deployment/model", kubectl_timeout(30))
    (pod,) = namespace.pods("model")
    assert pod["spec"]["nodeName"] == "g2"
    assert GPU_TAINT in [toleration.get("key") for toleration in pod["spec"]["tolerations"]]


def test_cpu_pods_never_land_on_the_l4_node(namespace: Namespace) -> None:
    """More of them than the system node holds: the rest wait, though the L4 node is empty."""
    namespace.apply(workload("Deployment", "busy", requesting(pod_spec(), cpu="1"), replicas=6))
    eventually(lambda: nodes_of(namespace.pods("busy")).count("system") == 3)
    eventually(lambda: sum("untolerated taint" in _reason(pod) for pod in namespace.pods("busy")) == 3)
    assert "g2" not in nodes_of(namespace.pods("busy"))


def _reason(pod: Manifest) -> str:
    conditions = pod["status"].get("conditions", ())
    return " ".join(c.get("message", "") for c in conditions if c["type"] == "PodScheduled")


def test_a_second_gpu_model_waits_until_the_first_is_scaled_to_zero(namespace: Namespace) -> None:
    namespace.apply(workload("Deployment", "first", gpu_spec()))
    namespace.kubectl("rollout", "status", "deployment/first", kubectl_timeout(30))
    namespace.apply(workload("Deployment", "second", gpu_spec()))
    eventually(lambda: f"Insufficient {GPU_TAINT}" in _reason(namespace.pods("second")[0]))
    namespace.kubectl("scale", "deployment/first", "--replicas=0")
    namespace.kubectl("rollout", "status", "deployment/second", kubectl_timeout(30))
    assert nodes_of(namespace.pods("second")) == ["g2"]


def test_init_containers_are_over_and_sidecars_run_in_a_ready_pod(namespace: Namespace) -> None:
    spec = pod_spec(
        initContainers=[
            {"name": "fetch", "image": "fetch"},
            {"name": "sidecar", "image": "sidecar", "restartPolicy": "Always"},
        ]
    )
    namespace.apply(workload("Deployment", "model", spec))
    namespace.kubectl("rollout", "status", "deployment/model", kubectl_timeout(30))
    (pod,) = namespace.pods("model")
    states = {s["name"]: s["state"] for s in pod["status"]["initContainerStatuses"]}
    assert states["fetch"]["terminated"]["exitCode"] == 0
    assert "running" in states["sidecar"]


def test_a_job_completes_and_its_pod_goes_with_it(namespace: Namespace) -> None:
    template = {"metadata": {"labels": {"app": "migrate"}}, "spec": pod_spec(restartPolicy="Never")}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}, "spec": {"template": template}}
    namespace.apply(job)
    namespace.kubectl("wait", "job/migrate", "--for=condition=complete", kubectl_timeout(30))
    namespace.kubectl("delete", "job/migrate", kubectl_timeout(30))
    eventually(lambda: not namespace.pods("migrate"))


# --- claims


def test_a_claim_binds_when_its_pod_has_a_node_and_grows_and_never_shrinks(namespace: Namespace) -> None:
    namespace.apply(claim("weights", "10Gi"))
    eventually(lambda: "WaitForFirstConsumer" in namespace.kubectl("get", "events"))
    assert namespace.get("pvc", "weights")["status"]["phase"] == "Pending"

    namespace.apply(workload("Deployment", "model", mounting("weights")))
    namespace.kubectl("rollout", "status", "deployment/model", kubectl_timeout(30))
    bound = namespace.get("pvc", "weights")
    assert (bound["status"]["phase"], bound["spec"]["storageClassName"]) == ("Bound", "standard-rwo")
    volume = bound["spec"]["volumeName"]

    namespace.kubectl("patch", "pvc", "weights", "-p", grown("20Gi"))
    eventually(lambda: namespace.get("pvc", "weights")["status"]["capacity"]["storage"] == "20Gi")
    eventually(lambda: namespace.get("pv", volume)["spec"]["capacity"]["storage"] == "20Gi")
    with pytest.raises(FailedError, match="can not be less than"):
        namespace.kubectl("patch", "pvc", "weights", "-p", grown("10Gi"))

    namespace.kubectl("delete", "deployment/model", "pvc/weights", kubectl_timeout(30))
    eventually(lambda: volume not in namespace.kubectl("get", "pv", "-o", "name"))


def test_a_claim_binds_to_the_static_volume_that_is_kept_for_it(namespace: Namespace) -> None:
    """How a database's disk outlives its cluster: the volume outlives the claim, whatever its size."""
    disk = f"disk-of-{namespace.name}"
    volume: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": disk},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "20Gi"},
            "storageClassName": "standard-rwo",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace.name, "name": "database"},
            "csi": {"driver": "pd.csi.storage.gke.io", "volumeHandle": f"projects/p/zones/z/disks/{disk}"},
        },
    }
    namespace.apply(volume, claim("database", "10Gi", volumeName=disk, storageClassName="standard-rwo"))
    try:
        eventually(lambda: namespace.get("pvc", "database")["status"]["phase"] == "Bound")
        namespace.apply(workload("Deployment", "database", mounting("database")))
        namespace.kubectl("rollout", "status", "deployment/database", kubectl_timeout(30))
        assert namespace.get("pvc", "database")["status"]["capacity"]["storage"] == "20Gi"
        namespace.kubectl("delete", "deployment/database", "pvc/database", kubectl_timeout(30))
        eventually(lambda: namespace.get("pv", disk)["status"]["phase"] == "Released")
    finally:
        namespace.kubectl("delete", "pv", disk, "--ignore-not-found", kubectl_timeout(30))


def test_a_stateful_set_gets_a_volume_for_each_pod(namespace: Namespace) -> None:
    template = claim("data", "1Gi")
    namespace.apply(
        workload("StatefulSet", "db", pod_spec(), serviceName="db", replicas=2, volumeClaimTemplates=[template])
    )
    namespace.kubectl("rollout", "status", "statefulset/db", kubectl_timeout(30))
    claims = {item["metadata"]["name"]: item["status"]["phase"] for item in namespace.get("pvc")["items"]}
    assert claims == {"data-db-0": "Bound", "data-db-1": "Bound"}


# --- admission


def test_a_restricted_namespace_refuses_a_root_pod_and_takes_a_careful_one(namespace: Namespace) -> None:
    namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    pod: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "careful"}, "spec": pod_spec()}
    namespace.apply(pod)
    root = json.loads(json.dumps(pod).replace('"runAsUser": 2000', '"runAsUser": 0').replace("careful", "root"))
    with pytest.raises(FailedError, match="violates PodSecurity"):
        namespace.apply(root)


def test_a_misspelt_field_is_refused(namespace: Namespace) -> None:
    with pytest.raises(FailedError, match="replcas"):
        namespace.apply(workload("Deployment", "model", pod_spec(), replcas=1))


# --- its life


def test_an_api_server_that_crashes_comes_back_with_its_data_and_the_controllers_go_on(
    cluster: EmbeddedCluster, namespace: Namespace
) -> None:
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}})
    uid = namespace.get("configmap", "kept")["metadata"]["uid"]
    cluster.stop_api_server()
    assert not cluster.running
    with pytest.raises(FailedError, match="refused"):
        namespace.kubectl("get", "configmap", "kept")
    cluster.start_api_server()
    assert namespace.get("configmap", "kept")["metadata"]["uid"] == uid
    namespace.apply(workload("Deployment", "after", pod_spec()))
    namespace.kubectl("rollout", "status", "deployment/after", kubectl_timeout(60))


def listening(pid: int) -> set[str]:
    """Addresses, as `/proc/net/tcp` writes them, on which a process accepts TCP connections."""
    sockets = {str(handle.readlink()) for handle in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [row.split() for v in ("tcp", "tcp6") for row in Path(f"/proc/net/{v}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_only_the_api_server_listens_and_only_on_loopback(cluster: EmbeddedCluster) -> None:
    """A port of etcd's would give every user of the machine every Secret."""
    port = int(cluster.server.rpartition(":")[2])
    open_to = {name: listening(pid) for name, pid in cluster.processes.items() if pid}
    assert len(open_to) == 5
    assert open_to.pop("kube-apiserver") == {f"0100007F:{port:04X}"}
    assert set().union(*open_to.values()) == set()


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing but a kubeconfig of the user's own; the binaries are still found."""
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    (home / ".kube" / "config").write_text("apiVersion: v1\nkind: Config\ncurrent-context: production\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(binaries.cache_folder().parents[1]))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return home


def test_up_and_down_from_the_command_line(
    cluster: EmbeddedCluster, empty_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside another cluster: up twice, down with the data kept, up again after a crash, and gone."""
    root = tmp_path / "cluster"
    own = EmbeddedCluster(root)
    home = sorted(empty_home.rglob("*"))
    config = (empty_home / ".kube" / "config").read_text()
    try:
        assert commands.up(root) == 0
        own.kubectl("create", "configmap", "kept")
        address, credentials = own.server, own.kubeconfig.read_text()
        for path in (root, own.kubeconfig, root / "tokens.csv", root / "etcd", root / "pki" / "apiserver.key"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert address != cluster.server

        before = own.processes
        assert commands.up(root) == 0
        assert "was up already: Kubernetes v1.36" in capsys.readouterr().out
        assert own.processes == before

        assert commands.down(root, wipe=False) == 0
        assert commands.status(root) == 1
        assert not processes_naming(root)

        assert commands.up(root) == 0
        scheduler = own.processes["kube-scheduler"]
        assert scheduler
        os.kill(scheduler, signal.SIGKILL)
        eventually(lambda: not own.running)
        assert commands.up(root) == 0
        assert own.processes["kube-scheduler"] not in (scheduler, None)
        assert (own.server, own.kubeconfig.read_text()) == (address, credentials)
        own.kubectl("get", "configmap", "kept")
        assert commands.status(root) == 0
    finally:
        commands.down(root, wipe=True)
    assert not processes_naming(root)
    assert not root.exists()
    assert sorted(empty_home.rglob("*")) == home
    assert (empty_home / ".kube" / "config").read_text() == config
    assert commands.down(root, wipe=True) == 0
    assert cluster.running


def test_a_start_that_fails_half_way_leaves_no_process(
    can_start: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dataclasses.replace(binaries.find_or_build(print), kube_scheduler=Path("/bin/false"))

    def find_broken(_say: binaries.Say) -> binaries.Binaries:
        return broken

    monkeypatch.setattr(control_plane, "find_or_build", find_broken)
    cluster = EmbeddedCluster(tmp_path / "cluster")
    with pytest.raises(FailedError, match="kube-scheduler ended during the start"):
        cluster.up()
    assert not processes_naming(cluster.root)
    cluster.down(wipe=True)


def test_a_killed_owner_takes_its_cluster_with_it(can_start: None, tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    program = (
        "import pathlib, signal; from ops.embedded_cluster.control_plane import EmbeddedCluster\n"
        f"with EmbeddedCluster.started(pathlib.Path({str(root)!r})): print('up', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "up\n"
        owner.kill()
    eventually(lambda: not root.exists() and not processes_naming(root))


def test_down_never_ends_a_process_that_only_has_a_remembered_number(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state = {
            "port": 20000,
            "kubectl": "kubectl",
            "tokens": {},
            "processes": {"etcd": {"pid": stranger.pid, "argv": ["/bin/etcd", str(tmp_path)]}},
        }
        (tmp_path / "state.json").write_text(json.dumps(state))
        EmbeddedCluster(tmp_path).down(wipe=False)
        assert stranger.poll() is None
        stranger.kill()


def test_a_folder_with_other_files_is_not_taken_for_a_cluster(can_start: None, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FailedError, match=r"thesis\.txt"):
        commands.up(tmp_path)
    assert commands.down(tmp_path, wipe=True) == 0
    assert (tmp_path / "thesis.txt").exists()


# --- where its binaries come from: a folder of fakes that only tell a version, and a `go` that only copies

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")


def fake(folder: Path, name: str, prints: str) -> None:
    script(folder / name, f"echo '{prints}'")


def script(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing built, no Go and an empty folder `bin` on PATH (and the system's own)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv(downloads.SOURCE, "off")
    (tmp_path / "bin").mkdir()
    return tmp_path


def fit(name: str) -> str:
    """A version line that the cluster accepts of a program."""
    return {"etcd": "etcd Version: 3.5.21", "kwok": "kwok version v0.8.0"}.get(name, "Kubernetes v1.36.0")


GO = """
case "$1" in
  env) case "$2" in GOVERSION) echo go1.99.0 ;; GOPROXY) echo https://proxy.invalid,direct ;; esac ;;
  build)
    while [ "$1" != -o ]; do shift; done
    echo "$GOPROXY" >> {log}
    echo half > "$2"
    {then}
esac
"""


def fake_go(machine: Path, then: str) -> Path:
    log = machine / "builds"
    script(machine / "bin" / "go", GO.format(log=log, then=then))
    return log


def test_binaries_come_from_kubebuilder_assets_first_and_then_from_path(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        fake(machine / "bin", name, fit(name))
    for name in ("etcd", "kube-apiserver", "kubectl"):
        fake(machine / "assets", name, fit(name))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(machine / "assets"))
    found = binaries.find_or_build(print)
    assert found.kube_apiserver == machine / "assets" / "kube-apiserver"
    assert found.kwok == machine / "bin" / "kwok"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("etcd", "etcd Version: 3.4.23"),
        ("etcd", "etcd Version: 3.5.12"),
        ("kube-apiserver", "Kubernetes v1.33.1"),
        ("kwok", "nothing"),
    ],
)
def test_an_unfit_binary_in_kubebuilder_assets_is_refused_with_its_version(
    machine: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    fake(machine / "assets", name, version)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(machine / "assets"))
    with pytest.raises(FailedError, match=re.escape(version.rsplit(maxsplit=1)[-1].lstrip("v"))) as refusal:
        binaries.find_or_build(print)
    assert "unset KUBEBUILDER_ASSETS" in str(refusal.value)


def test_an_unfit_binary_on_path_is_passed_over_and_the_operator_told(machine: Path) -> None:
    for name in NAMES:
        fake(machine / "bin", name, fit(name))
    fake(machine / "bin", "etcd", "etcd Version: 3.4.23")
    fake_go(machine, then="exit 0")
    said: list[str] = []
    found = binaries.find_or_build(said.append)
    assert found.etcd.is_relative_to(machine / "cache")
    assert any("3.4.23" in line for line in said)


def test_a_machine_without_go_and_binaries_says_what_to_install(machine: Path) -> None:
    reason = binaries.why_unavailable()
    assert reason
    assert "no `go` on PATH" in reason
    assert re.search(r"install Go \d+\.\d+\.\d+ or newer", reason)


def test_an_old_go_is_refused_before_it_builds_for_minutes(machine: Path) -> None:
    script(machine / "bin" / "go", "echo go1.21")
    assert "go1.21, too old" in (binaries.why_unavailable() or "")


def test_a_build_that_fails_leaves_nothing_under_the_name_and_keeps_what_was_built(machine: Path) -> None:
    log = fake_go(machine, then='case "$2" in *scheduler) echo no such module; exit 1 ;; esac')
    with pytest.raises(FailedError, match="no such module"):
        binaries.find_or_build(print)
    built = {path.name for path in (binaries.cache_folder() / "bin").iterdir()}
    assert built == {"etcd", "kube-apiserver", "kube-controller-manager"}
    assert log.read_text().split()[0] == "https://proxy.invalid"  # never straight from a module's origin
    fake_go(machine, then="exit 0")
    binaries.find_or_build(print)
    assert len(log.read_text().split()) == 4 + 3  # the one that failed and the two after it
    assert not (binaries.cache_folder() / "partial").exists()


def test_two_builds_at_once_build_each_binary_once(machine: Path) -> None:
    log = fake_go(machine, then="sleep 0.1")
    builders = [threading.Thread(target=binaries.find_or_build, args=(print,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(log.read_text().split()) == len(NAMES)
