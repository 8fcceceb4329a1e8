"""Why a pod has no node, in the scheduler's and the autoscaler's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.kubernetes.pods import NAME_LABEL
from models.catalog import CATALOG
from models.machines import GPU_TAINT
from ops.findings.causes import CAUSES, SCHEDULING, Cause, first
from ops.findings.finding import Finding, Object, Snapshot, condition, event_time, older_than, time_of

_SCALE_UP = ("TriggeredScaleUp", "NotTriggerScaleUp", "FailedScaleUp")
_NODE_COMES_S = 900  # a node that the autoscaler asked for is there by then
_FULL = re.compile(r"max node group size reached|max limit reached|max cluster .* limit reached")
_CLAIM = re.compile(
    r"unbound immediate PersistentVolumeClaims|persistentvolumeclaim \S+ (not found|bound to non-existent)|"
    r"didn't find available persistent volumes to bind|is being deleted"
)
# Of the scheduler's reasons, the one that decides comes first: nodes of the other pool always do not match.
_REASONS = (
    (CAUSES["node-not-ready"], r"node\.kubernetes\.io/(not-ready|unreachable)"),
    (CAUSES["node-pressure"], r"node\.kubernetes\.io/\w+-pressure"),
    (CAUSES["node-full"], r"Insufficient (cpu|memory|ephemeral-storage)|Too many pods"),
    (CAUSES["cordoned"], r"were unschedulable"),
    (CAUSES["claim-elsewhere"], CAUSES["claim-elsewhere"].pattern),
    (CAUSES["no-node"], r"didn't match|untolerated taint|didn't tolerate|no nodes available"),
)


def of_pod(pod: Object, snapshot: Snapshot) -> Iterator[Finding]:
    """A finding of a pod that no node takes; none while the autoscaler makes one for it."""
    unplaced = condition(pod, "PodScheduled")
    if pod["metadata"].get("deletionTimestamp") or not unplaced or unplaced.get("status") != "False":
        return
    words, seen = unplaced.get("message", ""), time_of(unplaced.get("lastTransitionTime"))
    scaler = next(reversed(snapshot.events(pod, *_SCALE_UP)), None)
    if scaler and scaler["reason"] == "TriggeredScaleUp":
        if not older_than(snapshot, event_time(scaler), _NODE_COMES_S):
            return
        scaler = None
    holder = _holder(pod, snapshot)
    if _CLAIM.search(words):
        cause = CAUSES["unschedulable"]
    elif scaler:
        cause = _by_autoscaler(scaler, holder)
        words, seen = f"{scaler.get('message', '')} (scheduler: {words})", event_time(scaler)
    else:
        cause = _by_scheduler(words, holder)
    if cause.name == "gpu-taken":
        words = f"{words} (the GPU is held by {holder})"
    yield snapshot.about_pod(cause, pod, state="Pending", words=words, seen=seen, holder=holder)


def waits_for_claim(pod: Object) -> bool:
    """Whether the scheduler says that a claim of the pod is what it waits for."""
    unplaced = condition(pod, "PodScheduled")
    return bool(unplaced and unplaced.get("status") == "False" and _CLAIM.search(unplaced.get("message", "")))


def _by_autoscaler(event: Object, holder: str) -> Cause:
    said = event.get("message", "")
    if event["reason"] == "FailedScaleUp":
        return first(SCHEDULING[:3], said) or CAUSES["scale-up-failed"]
    if _FULL.search(said):
        return CAUSES["gpu-taken" if holder else "pool-full"]
    return CAUSES["scale-up-failed" if "in backoff after failed scale-up" in said else "no-node"]


def _by_scheduler(said: str, holder: str) -> Cause:
    if f"Insufficient {GPU_TAINT}" in said:
        return CAUSES["gpu-taken" if holder else "no-node"]
    return next((cause for cause, pattern in _REASONS if re.search(pattern, said)), CAUSES["unschedulable"])


def _holder(pod: Object, snapshot: Snapshot) -> str:
    """The model whose pod has a GPU that this one could have; empty if this one asks for none, or nobody has one."""
    if not _gpus(pod):
        return ""
    for other in snapshot.all("Pod"):
        alias = other["metadata"].get("labels", {}).get(NAME_LABEL, "")
        placed = other["spec"].get("nodeName") and other.get("status", {}).get("phase") in ("Pending", "Running")
        if placed and _gpus(other) and alias in CATALOG and snapshot.workload(other) != snapshot.workload(pod):
            return alias
    return ""


def _gpus(pod: Object) -> int:
    limits = [container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"]]
    return sum(int(limit.get(GPU_TAINT, 0)) for limit in limits)
