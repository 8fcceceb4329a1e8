"""Every finding of a moment of a cluster, causes before what follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from components.gateway import postgres
from ops.findings import claims, containers, scheduling, workloads
from ops.findings.causes import CAUSES, last_words
from ops.findings.finding import Finding, Object, Snapshot, Workload, condition, merged

# What is told of somebody else's failure, and of whose: not told where that one's own finding is.
_FOLLOWS = {"database-away": (postgres.APP,), "gateway-away": (postgres.APP, "litellm")}


def diagnose(snapshot: Snapshot) -> list[Finding]:
    """What is wrong, each once; an empty list if nothing is, as far as the snapshot shows."""
    found = [
        *workloads.not_deployed(snapshot),
        *(finding for node in snapshot.all("Node") for finding in workloads.of_node(node, snapshot)),
        *_of_claims(snapshot),
        *workloads.refused(snapshot),
        *workloads.at_zero(snapshot),
    ]
    found += _of_pods(snapshot, {workload for finding in found for workload in finding.workloads})
    found += _of_jobs(snapshot, {workload for finding in found for workload in finding.workloads})
    found += workloads.unenforced(snapshot)
    found += _of_the_rest(snapshot, {workload for finding in found for workload in finding.workloads})
    return _without_consequences(list(merged(found)))


def of(findings: Iterable[Finding], namespace: str, *names: str) -> Finding | None:
    """The first finding about something in a namespace: about one of these names, or about anything there."""
    for finding in findings:
        for workload in finding.workloads:
            if workload.namespace == namespace and (not names or workload.name in names):
                return finding
    return None


def _of_claims(snapshot: Snapshot) -> Iterator[Finding]:
    for claim in snapshot.all("PersistentVolumeClaim"):
        users = dict.fromkeys(snapshot.workload(pod) for pod in _users(claim, snapshot))
        for finding in claims.of_claim(claim, snapshot):
            yield replace(finding, workloads=(*finding.workloads, *users))


def _users(claim: Object, snapshot: Snapshot) -> Iterator[Object]:
    meta = claim["metadata"]
    for pod in snapshot.all("Pod"):
        names = [v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["spec"].get("volumes", ())]
        if pod["metadata"]["namespace"] == meta["namespace"] and meta["name"] in names:
            yield pod


def _of_pods(snapshot: Snapshot, told: set[Workload]) -> Iterator[Finding]:
    nodes_told = any(workload.kind == "Node" for workload in told)
    for pod in snapshot.all("Pod"):
        workload = snapshot.workload(pod)
        if workload.kind == "Job" or workloads.stale(pod, snapshot):
            continue
        if not (scheduling.waits_for_claim(pod) and workload in told):
            yield from (
                finding
                for finding in scheduling.of_pod(pod, snapshot)
                if not (nodes_told and finding.cause in workloads.NODE_CAUSES)
            )
        gone = pod.get("status", {}).get("phase") == "Failed"
        if not (gone and workloads.healthy(workload, snapshot)):
            yield from containers.of_pod(pod, snapshot)


def _of_jobs(snapshot: Snapshot, told: set[Workload]) -> Iterator[Finding]:
    """Of a Job's pods the newest that ended tells, and one that cannot start; of a Job that is complete none does."""
    failed = {workload: why for workload, _, why in workloads.failed_jobs(snapshot)}
    newest: dict[Workload, Object] = {}
    for pod in sorted(snapshot.all("Pod"), key=lambda pod: pod["metadata"].get("creationTimestamp", "")):
        workload = snapshot.workload(pod)
        job = snapshot.get(*workload) if workload.kind == "Job" else None
        ended = condition(job, "Failed") if job else None
        if job is None or workloads.healthy(workload, snapshot) or (ended and workload not in failed):
            continue
        if pod.get("status", {}).get("phase") == "Failed":
            newest[workload] = pod
        else:
            yield from scheduling.of_pod(pod, snapshot)
            yield from containers.of_pod(pod, snapshot)
    said: set[Workload] = set()
    for workload, pod in newest.items():
        for finding in containers.of_pod(pod, snapshot):
            said.add(workload)
            yield replace(finding, state=f"Job failed: {finding.state}") if workload in failed else finding
    for workload, why in failed.items():
        if workload not in said | told:
            yield workloads.of_job(workload, why, snapshot)


def _of_the_rest(snapshot: Snapshot, told: set[Workload]) -> Iterator[Finding]:
    """Deployments whose time is over, and of which nothing above says why."""
    for deployment in snapshot.all("Deployment"):
        meta = deployment["metadata"]
        workload = Workload("Deployment", meta["namespace"], meta["name"])
        late = condition(deployment, "Progressing")
        if workload in told or not late or late.get("reason") != "ProgressDeadlineExceeded":
            continue
        if workloads.healthy(workload, snapshot):
            continue
        for pod in snapshot.pods_of(workload)[-1:]:
            warnings = [event for event in snapshot.events(pod) if event.get("type") == "Warning"]
            words = warnings[-1].get("message", "") if warnings else last_words(_logs(pod, snapshot))
            state = "not ready, its time is over"
            yield snapshot.about_pod(CAUSES["unknown"], pod, state=state, words=words or late.get("message", ""))


def _logs(pod: Object, snapshot: Snapshot) -> str:
    mine = (pod["metadata"]["namespace"], pod["metadata"]["name"])
    return "\n".join(text for (*pod_of, _), text in snapshot.logs.items() if tuple(pod_of) == mine)


def _without_consequences(found: Sequence[Finding]) -> list[Finding]:
    def follows(finding: Finding) -> bool:
        whose = _FOLLOWS.get(finding.cause.name, ())
        return any(
            other is not finding and other.cause.name not in _FOLLOWS and workload.name in whose
            for other in found
            for workload in other.workloads
        )

    return [finding for finding in found if not follows(finding)]
