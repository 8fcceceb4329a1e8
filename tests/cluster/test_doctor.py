"""`ops doctor` on a real API server: each finding is caused here.

The scheduler, the volume, Job, ReplicaSet and garbage controllers and admission are the real ones. What a kubelet, a
cloud's autoscaler or its disk driver does, a test writes as they write it (`by: hand`), in words that were recorded
from real clusters; ops/findings/causes.py says where each was read.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import cli
from ops.embedded_cluster.control_plane import CONTEXT
from ops.findings.finding import condition
from stacks.sections import GATEWAY, SERVING
from tests.checkout import clone
from tests.cluster import engine as real_engine
from tests.cluster.platform import NAMESPACES, Manifest, eventually, named
from tests.cluster.ward import (
    BY_HAND,
    CHAT,
    STAGE,
    VLLM,
    Ward,
    by_hand,
    claim,
    claims_of,
    crashed,
    default_class,
    planned,
    waiting,
)
from tests.patience import kubectl_timeout
from tests.support import NAME_LABEL

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
    ("bad-argument", "error: invalid argument: --ctx-size=2048", "jsonpath"),
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
    name = job["metadata"]["name"]
    eventually(lambda: condition(ward.get(GATEWAY, "job", name), "Failed"))  # its controller says so a moment later
    return name


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
