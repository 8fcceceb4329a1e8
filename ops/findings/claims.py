"""What is wrong with claims: those without a volume, and those that cannot grow. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ops.findings.causes import CAUSES
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

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_SILENT_S = 120  # a provisioner that is there makes a volume within seconds


def of_claim(claim: Object, snapshot: Snapshot) -> Iterator[Finding]:
    """Findings of a claim. One that waits for its first pod is as it should be, and so is a model at zero."""
    phase = claim.get("status", {}).get("phase")
    if phase == "Lost":
        yield _made("claim-lost", claim, "Lost", snapshot)
    elif phase == "Pending":
        yield from _pending(claim, snapshot)
    elif phase == "Bound" and (events := snapshot.events(claim, "VolumeResizeFailed")):
        asked = claim["spec"]["resources"]["requests"]["storage"]
        if claim["status"].get("capacity", {}).get("storage") != asked:
            yield _made("claim-growth", claim, f"grows to {asked}", snapshot, events[-1])


def _pending(claim: Object, snapshot: Snapshot) -> Iterator[Finding]:
    events = snapshot.events(claim, "FailedBinding", "ProvisioningFailed", "ExternalProvisioning", "Provisioning")
    newest = events[-1] if events else None
    name = claim["spec"].get("storageClassName")
    if newest and newest["reason"] == "FailedBinding" and name is None and not _default_classes(snapshot):
        yield _made("no-default-class", claim, "Pending", snapshot, newest, storage_class=_a_class(snapshot))
        return
    failed = [event for event in events if event["reason"] == "ProvisioningFailed"]
    if failed:
        words = failed[-1].get("message", "")
        row = next((n for n in ("no-class", "disk-quota") if CAUSES[n].found_in(words)), "provisioning-failed")
        yield _made(row, claim, "Pending, ProvisioningFailed", snapshot, failed[-1])
    elif newest and newest["reason"] == "FailedBinding" and name is not None:
        yield _made("provisioning-failed", claim, "Pending, FailedBinding", snapshot, newest)
    elif newest and newest["reason"] == "ExternalProvisioning":
        begun = time_of(newest.get("firstTimestamp") or newest["metadata"].get("creationTimestamp"))
        if older_than(snapshot, begun, _SILENT_S):
            yield _made("provisioner-silent", claim, "Pending, ExternalProvisioning", snapshot, newest)


def _default_classes(snapshot: Snapshot) -> list[Object]:
    return [c for c in snapshot.all("StorageClass") if c["metadata"].get("annotations", {}).get(_DEFAULT) == "true"]


def _a_class(snapshot: Snapshot) -> str:
    """The one to make the default, where there is just one."""
    names = [c["metadata"]["name"] for c in snapshot.all("StorageClass")]
    return names[0] if len(names) == 1 else ""


def _made(
    name: str, claim: Object, state: str, snapshot: Snapshot, event: Object | None = None, **blanks: str
) -> Finding:
    meta = claim["metadata"]
    workload = Workload("PersistentVolumeClaim", meta["namespace"], meta["name"])
    resize = condition(claim, "FileSystemResizePending")
    words = event.get("message", "") if event else (resize or {}).get("message", "")
    return snapshot.finding(
        CAUSES[name],
        workload,
        where=f"claim {meta['namespace']}/{meta['name']}",
        state=state,
        words=words,
        seen=event_time(event) if event else None,
        times=event_count(event) if event else 1,
        claim=meta["name"],
        **blanks,
    )
