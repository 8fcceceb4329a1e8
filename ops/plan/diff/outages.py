"""What restarts, goes away or is made anew while calls come in, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from models.cold_start import IDLE_NODE_S
from ops.plan.diff.lines import Line, duration, grouped
from ops.plan.diff.resources import Difference, Operation, PlanData, Resource, mapping

# Of a node pool, what the API changes on the nodes that are there; anything else below nodeConfig makes them anew.
# Source: "Update Kubernetes node labels and taints for node pools" and "network tags" in the docs of GKE.
_KEEPS_NODES = ("labels", "taints", "tags", "resourceLabels", "resourceManagerTags")
_GPU = "nvidia.com/gpu"
_ANEW = (Operation.REPLACED, Operation.DELETED)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """What is away, and for how long at most: 0 is not at all, None is for good or nobody knows."""

    what: str  # "coder-chat"
    how: str  # "restarts"
    seconds: int | None


def outages(
    found: Sequence[Difference], olds: Mapping[str, Resource], news: Mapping[str, Resource], new: PlanData
) -> tuple[Outage, ...]:
    """Of everything that answers before and that is changed, the longest first."""
    if clusters := [d for d in found if d.kind == "Cluster" and d.operation in _ANEW]:
        names = ", ".join(d.where for d in clusters)
        return (Outage(what="everything", how=f"goes away with the cluster {names}", seconds=None),)
    by_urn = {d.urn: d for d in found}
    moved = {*_pools(found, olds)}
    namespaces = {d.where for d in found if d.kind == "Namespace" and d.operation in _ANEW}
    workloads = [
        _of_workload(old, news.get(urn), by_urn.get(urn), moved, new) or _of_namespace(old, namespaces)
        for urn, old in olds.items()
        if _replicas(old)
    ]
    told = [*filter(None, workloads), *_of_services(found, olds), *_of_databases(found)]
    return tuple(sorted(told, key=lambda o: -(1e9 if o.seconds is None else o.seconds)))


def _replicas(resource: Resource) -> int:
    """Pods that it keeps; 0 for what keeps none."""
    return int(mapping(resource.inputs, "spec").get("replicas") or 0) if _is_workload(resource) else 0


def _is_workload(resource: Resource) -> bool:
    return resource.kind in ("Deployment", "StatefulSet")


def _of_workload(
    old: Resource, after: Resource | None, change: Difference | None, moved: set[bool], new: PlanData
) -> Outage | None:
    name = old.where.rpartition("/")[2]
    if after is None or not _replicas(after):
        how = "is deleted" if after is None else f"goes down{_instead(name, new)}"
        return Outage(what=name, how=how, seconds=None)
    if change is not None and change.operation is Operation.REPLACED:
        return Outage(what=name, how="is deleted and made anew", seconds=_start(after))
    new_pod = change is not None and any(c.path.startswith("spec.template.") for c in change.changes)
    if _on_gpu(after) in moved:
        return _moved(name, after, new)
    if new_pod and _rolls(after):
        return Outage(what=name, how="rolls: a new pod serves before an old one stops", seconds=0)
    return Outage(what=name, how="restarts", seconds=_start(after)) if new_pod else None


def _moved(name: str, after: Resource, new: PlanData) -> Outage:
    """A pool with other nodes: where the quota does not hold both, the old node has to be gone first."""
    seconds, gpus = _start(after), mapping(mapping(new, "machines"), "gpu")
    if seconds is None or not _on_gpu(after) or gpus.get("roomForTwo", True):
        return Outage(what=name, how="restarts on another node", seconds=seconds)
    return Outage(what=name, how="restarts on another node once the old one is gone", seconds=seconds + IDLE_NODE_S)


def _instead(alias: str, new: PlanData) -> str:
    """Who answers, as the plan says of models; nothing is known of anything else."""
    model = next((m for m in new["models"] if m["alias"] == alias), None)
    if model is None:
        return ""
    fallback = model.get("fallback") if model["state"] == "off" else None
    return f": {fallback} answers in its place" if fallback else ": calls get an error that says so"


def _of_namespace(old: Resource, namespaces: set[str]) -> Outage | None:
    namespace, _, name = old.where.rpartition("/")
    if namespace not in namespaces:
        return None
    return Outage(what=name, how="is made anew with its namespace", seconds=_start(old))


def _rolls(resource: Resource) -> bool:
    """Whether a new pod is there before an old one goes."""
    strategy = mapping(mapping(resource.inputs, "spec"), "strategy")
    return mapping(strategy, "rollingUpdate").get("maxUnavailable") == 0 and strategy.get("type") != "Recreate"


def _start(resource: Resource) -> int | None:
    """Seconds until it answers again, at most: what its own deadlines allow."""
    spec = mapping(resource.inputs, "spec")
    deadline = spec.get("progressDeadlineSeconds")
    if isinstance(deadline, int):
        return deadline
    pod = mapping(mapping(spec, "template"), "spec")
    containers = cast("list[Mapping[str, Any]]", pod.get("containers", []))
    probes = [mapping(container, "startupProbe") for container in containers]
    budgets = [
        p["periodSeconds"] * p["failureThreshold"] for p in probes if {"periodSeconds", "failureThreshold"} <= p.keys()
    ]
    return int(pod.get("terminationGracePeriodSeconds", 0)) + max(budgets) if budgets else None


def _on_gpu(resource: Resource) -> bool:
    pod = mapping(mapping(mapping(resource.inputs, "spec"), "template"), "spec")
    containers = cast("list[Mapping[str, Any]]", pod.get("containers", []))
    return any(_GPU in mapping(mapping(container, "resources"), "limits") for container in containers)


def _pools(found: Sequence[Difference], olds: Mapping[str, Resource]) -> Iterator[bool]:
    """Of each pool that loses its nodes, whether it has GPUs."""
    for difference in found:
        old = olds.get(difference.urn)
        if difference.kind != "NodePool" or old is None:
            continue
        if difference.operation is Operation.CHANGED and not any(map(_makes_nodes_anew, difference.changes)):
            continue
        yield bool(mapping(old.inputs, "nodeConfig").get("guestAccelerators"))


def _makes_nodes_anew(change: Any) -> bool:
    first, _, rest = str(change.path).partition(".")
    return first == "version" or (
        first == "nodeConfig" and rest.partition(".")[0].partition("[")[0] not in _KEEPS_NODES
    )


def _of_services(found: Sequence[Difference], olds: Mapping[str, Resource]) -> Iterator[Outage]:
    for difference in found:
        if difference.urn in olds and difference.kind == "Service" and difference.where.count("/"):
            name = f"Service {difference.where}"
            if difference.operation is Operation.REPLACED:
                yield Outage(what=name, how="is deleted and made anew, under another address", seconds=None)


def _of_databases(found: Sequence[Difference]) -> Iterator[Outage]:
    """Cloud SQL restarts an instance for another machine: "Edit instances" in its docs."""
    for difference in found:
        if difference.kind != "DatabaseInstance":
            continue
        if difference.operation is Operation.REPLACED:
            yield Outage(what=f"database {difference.where}", how="is deleted and made anew", seconds=None)
        elif any(change.path in ("settings.tier", "settings.edition") for change in difference.changes):
            yield Outage(what=f"database {difference.where}", how="restarts on another machine", seconds=None)


# --- lines ---------------------------------------------------------------------------------------------------


def outage_lines(found: Sequence[Outage]) -> list[Line]:
    """What is away, and how long."""
    return grouped(_line(outage) for outage in found)


def _line(outage: Outage) -> Line:
    if outage.seconds == 0:
        return Line(subject=outage.what, text=f"none, it {outage.how}")
    if outage.seconds is None:
        return Line(subject=outage.what, text=outage.how, loud=outage.what == "everything")
    return Line(subject=outage.what, text=f"{outage.how}: away for at most {duration(outage.seconds)}")
