"""A finding, and what findings are made from: objects of the Kubernetes API as they were at one moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from components.kubernetes.pods import NAME_LABEL
from ops.findings.causes import Cause
from ops.findings.redact import Redactor
from ops.findings.ways import Ways

Object = Mapping[str, Any]  # of the API, as JSON
_SHOWN = 400  # characters of last words that are worth reading


class Workload(NamedTuple):
    """What a finding is about: the Deployment, StatefulSet or Job of a pod, or a claim or a node itself."""

    kind: str
    namespace: str  # empty for a node
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind.lower(), self.namespace, self.name) if part)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with something, with its evidence."""

    cause: Cause
    workloads: tuple[Workload, ...]  # one, or all that it holds for in the same words
    where: str  # "serving/coder-chat-5d-x, container vllm"
    state: str  # "CrashLoopBackOff, 4 restarts"
    words: str  # the container's, the scheduler's or a controller's own, without secrets
    command: str
    final: bool = False  # waiting does not mend it
    seen: datetime | None = None  # when its evidence was last made

    @property
    def told(self) -> str:
        """The whole in a line."""
        more = [str(workload) for workload in self.workloads[1:]]
        also = f" (and {', '.join(more[:3])}{' and others' if len(more) > 3 else ''})" if more else ""
        said = f": {self.words}" if self.words else ""
        return f"{self.where}{also}: {self.state}: {self.cause.means}{said}"

    def json(self) -> dict[str, object]:
        """For `--format json`: `cause` is a stable name."""
        return {
            "cause": self.cause.name,
            "about": [workload._asdict() for workload in self.workloads],
            "where": self.where,
            "state": self.state,
            "means": self.cause.means,
            "words": self.words,
            "command": self.command,
            "final": self.final,
            "seen": self.seen.isoformat() if self.seen else None,
        }


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of a cluster. `logs` are last lines by namespace, pod and container; `unread` is what we may not see."""

    namespaces: tuple[str, ...]
    objects: Mapping[str, Sequence[Object]]  # by kind, "Pod"
    ways: Ways
    now: datetime
    logs: Mapping[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    unread: tuple[str, ...] = ()
    redact: Redactor = field(default_factory=Redactor, repr=False)

    def all(self, kind: str) -> Sequence[Object]:
        """Objects of a kind."""
        return self.objects.get(kind, ())

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object."""
        return self._index.get((kind, namespace, name))

    @cached_property
    def _index(self) -> Mapping[tuple[str, str, str], Object]:
        return {
            (kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
            for kind, items in self.objects.items()
            for item in items
        }

    def events(self, about: Object, *reasons: str) -> list[Object]:
        """Events of an object (by its UID, so none of an older one of its name), the newest last."""
        found = self._events.get(about["metadata"].get("uid", ""), [])
        return [event for event in found if not reasons or event.get("reason") in reasons]

    @cached_property
    def _events(self) -> Mapping[str, list[Object]]:
        by_uid: dict[str, list[Object]] = {}
        for event in sorted(self.all("Event"), key=lambda event: event_time(event) or datetime.min.replace(tzinfo=UTC)):
            by_uid.setdefault(event.get("involvedObject", {}).get("uid", ""), []).append(event)
        return by_uid

    def pods_of(self, workload: Workload) -> list[Object]:
        """Pods that a workload has now, those that end too."""
        return [pod for pod in self.all("Pod") if self.workload(pod) == workload]

    def workload(self, pod: Object) -> Workload:
        """Whose pod it is."""
        namespace = pod["metadata"]["namespace"]
        owner = next((o for o in pod["metadata"].get("ownerReferences", ()) if o.get("controller")), None)
        if owner is None:
            return Workload("Pod", namespace, pod["metadata"]["name"])
        if owner["kind"] == "ReplicaSet":
            above = self.get("ReplicaSet", namespace, owner["name"])
            owners = above["metadata"].get("ownerReferences", ()) if above else ()
            name = next((o["name"] for o in owners if o["kind"] == "Deployment"), owner["name"].rpartition("-")[0])
            return Workload("Deployment", namespace, name)
        return Workload(owner["kind"], namespace, owner["name"])

    def simulated(self, node: str | None) -> bool:
        """Whether a node is kwok's, so that none of its containers has a log."""
        found = self.get("Node", "", node or "")
        version = found.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "") if found else ""
        return str(version).startswith("kwok-")

    # -- making a finding

    def finding(
        self,
        cause: Cause,
        workload: Workload,
        *,
        where: str,
        state: str,
        words: str = "",
        seen: datetime | None = None,
        times: int = 1,
        **blanks: str,
    ) -> Finding:
        """A finding whose command has its blanks filled in; `times` is how often it has happened."""
        shown = " ".join(self.redact(words).split())
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        names = {"namespace": workload.namespace, "kind": workload.kind.lower(), "name": workload.name, **blanks}
        return Finding(
            cause=cause,
            workloads=(workload,),
            where=where,
            state=state,
            words=shown,
            command=self.ways.command(cause.command, names),
            final=cause.final and times >= cause.tries,
            seen=seen,
        )

    def about_pod(
        self,
        cause: Cause,
        pod: Object,
        *,
        state: str,
        words: str = "",
        container: str = "",
        seen: datetime | None = None,
        times: int = 1,
        **blanks: str,
    ) -> Finding:
        """A finding about a pod, or one container of it."""
        meta, node = pod["metadata"], pod["spec"].get("nodeName")
        names = {
            "pod": meta["name"],
            "container": container or pod["spec"]["containers"][0]["name"],
            "alias": meta.get("labels", {}).get(NAME_LABEL, ""),
            "node": node or "",
            "no_logs": "yes" if self.simulated(node) or not node else "",
        }
        return self.finding(
            cause,
            self.workload(pod),
            where=f"{meta['namespace']}/{meta['name']}" + (f", container {container}" if container else ""),
            state=state,
            words=words,
            seen=seen,
            times=times,
            **{**names, **blanks},
        )


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The same of several things is told once."""
    known: dict[tuple[str, str], Finding] = {}
    for found in findings:
        key = (found.cause.name, found.words)
        if before := known.get(key):
            others = tuple(w for w in found.workloads if w not in before.workloads)
            known[key] = replace(
                before,
                workloads=before.workloads + others,
                final=before.final or found.final,
                seen=_later(before, found),
            )
        else:
            known[key] = found
    yield from known.values()


def _later(one: Finding, other: Finding) -> datetime | None:
    return max((at for at in (one.seen, other.seen) if at is not None), default=None)


def time_of(text: str | None) -> datetime | None:
    """A time as the API writes it: "2026-11-26T01:02:03Z", or with microseconds."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        return None


def event_time(event: Object) -> datetime | None:
    """When an event was seen last."""
    series: Object = event.get("series") or {}
    times: tuple[str | None, ...] = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    written = next((at for at in times if at), None) or event.get("metadata", {}).get("creationTimestamp")
    return time_of(written)


def event_count(event: Object) -> int:
    """How often it was seen."""
    series: Object = event.get("series") or {}
    return int(series.get("count") or event.get("count") or 1)


def condition(item: Object, kind: str) -> Object | None:
    """A condition of an object's status."""
    return next((c for c in item.get("status", {}).get("conditions", ()) if c.get("type") == kind), None)


def older_than(snapshot: Snapshot, at: datetime | None, seconds: float) -> bool:
    """Whether a moment lies so far back. Nothing is known of one that is not told."""
    return at is not None and snapshot.now - at >= timedelta(seconds=seconds)
