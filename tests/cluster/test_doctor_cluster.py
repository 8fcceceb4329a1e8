"""`ops doctor` on a real API server: what the scheduler, volumes, admission and nodes say. See test_doctor.py."""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from ops.errors import FailedError
from ops.findings import claims, workloads
from stacks.sections import GATEWAY, SERVING
from tests.cluster.platform import Manifest, eventually, named
from tests.cluster.ward import (
    BY_HAND,
    CHAT,
    Ward,
    by_hand,
    claim,
    claims_of,
    default_class,
    planned,
)

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
    ward.cluster.kubectl("delete", "pv", volume, "--wait=false")
    # Its protection is not put back on what is being deleted.
    ward.cluster.kubectl("patch", "pv", volume, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
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
        _in_force(ward, "judge.example.com")
        ward.apply(named(planned(), "Deployment", "litellm"))
        assert 'failed calling webhook "judge.example.com"' in ward.one("webhook-away")["words"]
    finally:
        ward.cluster.kubectl("delete", "validatingwebhookconfiguration", "judge")


def _in_force(ward: Ward, said: str) -> None:
    """Wait until the API server refuses the gateway's pod in these words: what was just made counts a moment later."""
    template = named(planned(), "Deployment", "litellm")["spec"]["template"]
    metadata = {**template["metadata"], "name": "asked", "namespace": GATEWAY}
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})

    def refused() -> bool:
        try:
            ward.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=pod)
        except FailedError as error:
            return said in str(error)
        return False

    eventually(refused)


def test_what_a_policy_of_the_cluster_refuses_is_told(ward: Ward) -> None:
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "no-pods"}}
    rules = {"matchConstraints": {"resourceRules": [pods]}, "validations": [{"expression": "false", "message": "no"}]}
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GATEWAY}}}
    binding = {"policyName": "no-pods", "validationActions": ["Deny"], "matchResources": only}
    ward.apply({**api, "kind": "ValidatingAdmissionPolicy", "spec": rules})
    ward.apply({**api, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    try:
        _in_force(ward, "denied request: no")
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
