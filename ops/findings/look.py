"""A moment of a cluster, read by kubectl: `get` and `logs` only, nothing is changed and no port is opened."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from ops.errors import OpsError
from ops.findings.containers import logs_wanted
from ops.findings.finding import Object, Snapshot, condition
from ops.findings.redact import Redactor
from ops.findings.ways import Ways

_KINDS = ("pods", "events", "persistentvolumeclaims", "deployments", "statefulsets", "replicasets", "jobs")
_CLUSTER_KINDS = ("nodes", "storageclasses")
# Without these a look says less, and no more: what looks like a key is hidden all the same.
_SPARED = ("secrets", "namespaces")
_ANSWER = "--request-timeout=20s"
_LINES, _BYTES = "--tail=200", "--limit-bytes=65536"
_MOST_LOGS = 12  # containers whose log is read; the same trouble of more of them reads the same


class Cluster(Protocol):
    """A kubectl about one context."""

    @property
    def context(self) -> str:
        """Its name."""
        ...

    def __call__(self, *arguments: str) -> str:
        """What kubectl prints. Raises OpsError."""
        ...

    def typed(self, *words: str) -> str:
        """The command as one types it."""
        ...


def look(
    cluster: Cluster, namespaces: Sequence[str], ways: Ways, *, redact: Redactor | None = None, wide: bool = False
) -> Snapshot:
    """What is there now. `redact` hides the values of Secrets; without it they are read, where that is allowed.

    `wide` also looks at what the cluster runs for itself. Raises OpsError where the cluster does not answer, or lets
    nobody see a pod.
    """
    reader = _Reader(cluster)
    for namespace in namespaces:
        reader.read((*_KINDS, *(() if redact else ("secrets",))), "-n", namespace)
    if wide:
        reader.read((*_CLUSTER_KINDS, "namespaces", "daemonsets"), "--all-namespaces")
        reader.complete("Namespace")
    else:
        reader.read(_CLUSTER_KINDS)
    if reader.blind:
        raise OpsError(
            f"context {cluster.context} lets nobody see the pods of {' or '.join(namespaces)}: {reader.unread[0]}",
            cluster.typed("auth", "can-i", "list", "pods", "-n", namespaces[0]),
        )
    objects = reader.objects
    return Snapshot(
        namespaces=tuple(namespaces),
        objects=objects,
        ways=ways,
        now=datetime.now(UTC),
        logs=dict(_logs(cluster, objects)),
        unread=tuple(reader.unread),
        redact=redact or Redactor(_values(objects.pop("Secret", []))),
    )


class _Reader:
    """Reads kinds of objects, one by one where not all of them may be seen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.objects: dict[str, list[Object]] = {}
        self.unread: list[str] = []
        self._seen: set[str] = set()

    @property
    def blind(self) -> bool:
        return "pods" not in self._seen

    def read(self, kinds: Sequence[str], *where: str) -> None:
        try:
            self._add(self._items(*where, ",".join(kinds)))
        except OpsError as error:
            if not _forbidden(error):
                raise
            if len(kinds) == 1:
                if kinds[0] in _SPARED:
                    return
                self.unread.append(f"{' '.join([*kinds, *where])}: {_reason(error)}")
                return
            for kind in kinds:
                self.read((kind,), *where)
            return
        self._seen |= set(kinds)

    def complete(self, kind: str) -> None:
        """Tell that there are none from that they could not be seen."""
        if f"{kind.lower()}s" in self._seen:
            self.objects.setdefault(kind, [])

    def _items(self, *words: str) -> list[Object]:
        text = self._cluster("get", *words, "-o", "json", _ANSWER)
        try:
            answer: dict[str, Any] = json.loads(text) if text.strip() else {"items": []}
        except ValueError:
            raise OpsError(
                f"context {self._cluster.context}: the answer to kubectl get is not JSON",
                self._cluster.typed("get", *words),
            ) from None
        return answer.get("items", [answer])

    def _add(self, items: Iterable[Object]) -> None:
        for item in items:
            self.objects.setdefault(item["kind"], []).append(item)


def _forbidden(error: OpsError) -> bool:
    return "(Forbidden)" in str(error) or "is forbidden" in str(error)


def _reason(error: OpsError) -> str:
    return error.problem.message.rpartition("(Forbidden): ")[2].splitlines()[0]


def _logs(cluster: Cluster, objects: Mapping[str, Sequence[Object]]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Last lines of containers in trouble, from nodes that have a kubelet and answer."""
    answering = {
        node["metadata"]["name"]
        for node in objects.get("Node", ())
        if not str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")).startswith("kwok-")
        and (condition(node, "Ready") or {}).get("status") == "True"
    }
    wanted = [
        (pod["metadata"]["namespace"], pod["metadata"]["name"], container, options)
        for pod in objects.get("Pod", ())
        if "Node" not in objects or pod["spec"].get("nodeName") in answering
        for container, options in logs_wanted(pod)
    ]
    for namespace, pod, container, options in wanted[:_MOST_LOGS]:
        command = ("-n", namespace, "logs", pod, "-c", container, _LINES, _BYTES, "--request-timeout=10s", *options)
        try:
            yield (namespace, pod, container), cluster(*command)
        except OpsError:
            continue  # gone meanwhile, or not ours to read: what its status says remains


def _values(secrets: Iterable[Object]) -> Iterator[str]:
    """Values of Secrets, which no output may show."""
    for secret in secrets:
        data: dict[str, str] = secret.get("data") or {}
        for value in data.values():
            try:
                yield base64.b64decode(value).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
