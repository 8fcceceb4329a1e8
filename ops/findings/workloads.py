"""What is wrong with what makes pods (Deployments, StatefulSets, Jobs), and with nodes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.gateway import litellm_gateway, postgres
from components.kubernetes.pods import MANAGED_BY, PART_OF_LABEL
from models.machines import ACCELERATOR_LABEL, GPU_TAINT
from ops.findings.causes import ADMISSION, CAUSES, first
from ops.findings.finding import (
    Finding,
    Object,
    Snapshot,
    Workload,
    condition,
    event_count,
    event_time,
    older_than,
    time_of,
)
from stacks.ownership import MARK

NODE_CAUSES = (CAUSES["node-not-ready"], CAUSES["node-pressure"])
_MAKERS = ("ReplicaSet", "StatefulSet", "Job")
_PLUGIN_S = 600  # the driver and the device plugin of a new node are there by then
_REVISION = "deployment.kubernetes.io/revision"
# DaemonSets that enforce network policies, by their images or names. A cluster without any, on which flannel makes
# the network or that Google runs without Dataplane V2 or Calico, enforces none.
_ENFORCERS = re.compile(
    r"cilium|calico|canal|anetd|antrea|weave|kube-router|ovn|kube-network-policies|kindnet|azure-npm"
)


def refused(snapshot: Snapshot) -> Iterator[Finding]:
    """Pods that are not made at all: whoever would make them says why, in an event on itself."""
    for kind in _MAKERS:
        for maker in snapshot.all(kind):
            events = snapshot.events(maker, "FailedCreate")
            if not events or not _lacks_pods(kind, maker):
                continue
            words = events[-1].get("message", "")
            meta = maker["metadata"]
            row = first(ADMISSION, words) or CAUSES["create-refused"]
            owner = next((o["name"] for o in meta.get("ownerReferences", ()) if o["kind"] == "Deployment"), None)
            yield snapshot.finding(
                row,
                Workload("Deployment" if owner else kind, meta["namespace"], owner or meta["name"]),
                where=f"{meta['namespace']}/{owner or meta['name']}",
                state="no pod is made, FailedCreate",
                words=words,
                seen=event_time(events[-1]),
                times=sum(map(event_count, events)),  # each names another pod, so each is another event
                kind=kind.lower(),
                name=meta["name"],
            )


def _lacks_pods(kind: str, maker: Object) -> bool:
    spec, status = maker["spec"], maker.get("status", {})
    if kind == "Job":
        return not any(status.get(name) for name in ("active", "succeeded", "failed"))
    return status.get("replicas", 0) < spec.get("replicas", 1)


def stale(pod: Object, snapshot: Snapshot) -> bool:
    """Whether a pod is of an older version of its Deployment, which a newer one takes the place of."""
    owner = next((o for o in pod["metadata"].get("ownerReferences", ()) if o["kind"] == "ReplicaSet"), None)
    made_by = snapshot.get("ReplicaSet", pod["metadata"]["namespace"], owner["name"]) if owner else None
    deployment = snapshot.get(*snapshot.workload(pod))
    if not made_by or not deployment:
        return False
    mine = made_by["metadata"].get("annotations", {}).get(_REVISION)
    newest = deployment["metadata"].get("annotations", {}).get(_REVISION)
    return bool(mine and newest and mine != newest)


def healthy(workload: Workload, snapshot: Snapshot) -> bool:
    """Whether all that is wanted of a workload is there; a Job that is complete is."""
    found = snapshot.get(*workload)
    if not found:
        return False
    if workload.kind == "Job":
        done = condition(found, "Complete")
        return bool(done and done.get("status") == "True")
    wanted, status = found["spec"].get("replicas", 1), found.get("status", {})
    return status.get("readyReplicas", 0) >= wanted


def failed_jobs(snapshot: Snapshot) -> Iterator[tuple[Workload, Object, Object]]:
    """Jobs that gave up, each with its condition; of those that a CronJob makes, only one that no later one mends."""
    newest: dict[str, str] = {}
    for job in snapshot.all("Job"):
        cron = _cron(job)
        newest[cron] = max(newest.get(cron, ""), job["metadata"].get("creationTimestamp", ""))
    for job in snapshot.all("Job"):
        failed = condition(job, "Failed")
        cron = _cron(job)
        if not failed or failed.get("status") != "True":
            continue
        if cron and job["metadata"].get("creationTimestamp", "") != newest[cron]:
            continue
        yield Workload("Job", job["metadata"]["namespace"], job["metadata"]["name"]), job, failed


def _cron(job: Object) -> str:
    return next((o["name"] for o in job["metadata"].get("ownerReferences", ()) if o["kind"] == "CronJob"), "")


def of_job(workload: Workload, failed: Object, snapshot: Snapshot) -> Finding:
    """A Job that failed and whose pods say no more."""
    return snapshot.finding(
        CAUSES["job-failed"],
        workload,
        where=f"{workload.namespace}/{workload.name}",
        state=f"Failed, {failed.get('reason', '')}",
        words=failed.get("message", ""),
        seen=time_of(failed.get("lastTransitionTime")),
    )


def at_zero(snapshot: Snapshot) -> Iterator[Finding]:
    """Parts of the gateway that are never meant to be at zero."""
    for kind, name in (("StatefulSet", postgres.APP), ("Deployment", litellm_gateway.APP)):
        for item in snapshot.all(kind):
            meta = item["metadata"]
            if meta["name"] == name and item["spec"].get("replicas", 1) == 0:
                workload = Workload(kind, meta["namespace"], name)
                where = f"{meta['namespace']}/{name}"
                yield snapshot.finding(CAUSES["at-zero"], workload, where=where, state=f"{kind} of 0 replicas")


def _of_a_stack(item: Object) -> bool:
    """By the mark, or by the label that objects had before there was one."""
    metadata: Object = item["metadata"]
    annotations: Object = metadata.get("annotations") or {}
    labels: Object = metadata.get("labels") or {}
    return MARK in annotations or labels.get(PART_OF_LABEL) == MANAGED_BY


def not_deployed(snapshot: Snapshot) -> Iterator[Finding]:
    """Namespaces that are not there, or are without anything of a stack: nothing that is seen there is its own.

    Nothing is said where they could not be looked at.
    """
    if "Namespace" not in snapshot.objects:
        return
    there = {item["metadata"]["name"] for item in snapshot.all("Namespace")}
    marked = {
        item["metadata"].get("namespace", item["metadata"]["name"])
        for items in snapshot.objects.values()
        for item in items
        if _of_a_stack(item)
    }
    for name in snapshot.namespaces:
        if name not in there:
            state = "not there"
        elif name not in marked:
            state = "there, with nothing of this project in it"
        else:
            continue
        workload = Workload("Namespace", "", name)
        yield snapshot.finding(CAUSES["not-deployed"], workload, where=f"namespace {name}", state=state)


# --- nodes -----------------------------------------------------------------------------------------------------


def of_node(node: Object, snapshot: Snapshot) -> Iterator[Finding]:
    """A node that is not ready, runs out of something, or has a GPU to which nobody comes."""
    ready = condition(node, "Ready")
    if ready and ready.get("status") != "True":
        yield _node("node-not-ready", node, "NotReady", ready, snapshot)
        return
    for found in node.get("status", {}).get("conditions", ()):
        if found.get("type", "").endswith("Pressure") and found.get("status") == "True":
            yield _node("node-pressure", node, found["type"], found, snapshot)
    labels = node["metadata"].get("labels", {})
    born = time_of(node["metadata"].get("creationTimestamp"))
    gpus = node.get("status", {}).get("allocatable", {}).get(GPU_TAINT, "0")
    if labels.get(ACCELERATOR_LABEL) and gpus == "0" and older_than(snapshot, born, _PLUGIN_S):
        words = {"message": f"{ACCELERATOR_LABEL}={labels[ACCELERATOR_LABEL]}, allocatable {GPU_TAINT}: {gpus}"}
        yield _node("node-without-gpu", node, "Ready", words, snapshot)


def _node(cause: str, node: Object, state: str, found: Object, snapshot: Snapshot) -> Finding:
    name = node["metadata"]["name"]
    return snapshot.finding(
        CAUSES[cause],
        Workload("Node", "", name),
        where=f"node {name}",
        state=state,
        words=found.get("message", ""),
        seen=time_of(found.get("lastTransitionTime")),
        node=name,
    )


def unenforced(snapshot: Snapshot) -> Iterator[Finding]:
    """That nothing enforces network policies, where that is certain."""
    daemons = [d for d in snapshot.all("DaemonSet") if d["metadata"]["namespace"].startswith("kube-")]
    told = [" ".join([d["metadata"]["name"], *_images(d)]) for d in daemons]
    if any(_ENFORCERS.search(text) for text in told):
        return
    on_gke = any(
        "gke" in n.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "") for n in snapshot.all("Node")
    )
    flannel = any("flannel" in text for text in told)
    gke = on_gke and any("gke-metrics-agent" in text for text in told)  # its own DaemonSets could be seen
    if flannel or gke:
        names = ", ".join(sorted(d["metadata"]["name"] for d in daemons))
        yield snapshot.finding(
            CAUSES["policies-unenforced"],
            Workload("Cluster", "", snapshot.ways.context),
            where=f"cluster {snapshot.ways.context}",
            state="flannel alone" if flannel else "GKE without Dataplane V2 or Calico",
            words=f"DaemonSets: {names}",
        )


def _images(daemon: Object) -> list[str]:
    return [container.get("image", "") for container in daemon["spec"]["template"]["spec"]["containers"]]
