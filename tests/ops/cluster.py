"""A cluster as JSON, for what `ops.findings` makes of it: objects as the API server gives them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.errors import FailedError
from ops.findings.diagnose import diagnose
from ops.findings.finding import Finding, Snapshot
from ops.findings.redact import Redactor
from ops.findings.ways import Ways
from ops.up.watch import Watch

Json = dict[str, Any]
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
NAME = "app.kubernetes.io/name"


def typed(*words: str) -> str:
    return shlex.join(["kubectl", "--context", "c", *words])


WAYS = Ways(typed, "c")


def ago(seconds: float) -> str:
    """A time as the API writes it."""
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str = "real", version: str = "v1.36.3-gke.1", ready: str = "True") -> Json:
    status = {"nodeInfo": {"kubeletVersion": version}, "conditions": [{"type": "Ready", "status": ready}]}
    return {"kind": "Node", "metadata": {"name": name, "creationTimestamp": ago(9999)}, "status": status}


def pod(name: str, app: str, namespace: str = "serving", *, owner: Json | None = None, **status: Any) -> Json:
    """A pod of one container `main` and an init container `first`, on the node `real`."""
    meta: Json = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": {NAME: app}}
    if owner:
        meta["ownerReferences"] = [{**owner, "controller": True}]
    spec = {"nodeName": "real", "containers": [{"name": "main"}], "initContainers": [{"name": "first"}]}
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running", **status}}


def container(state: Json, *, last: Json | None = None, restarts: int = 0, **more: Any) -> Json:
    entry = {"name": "main", "ready": False, "restartCount": restarts, "state": state, "lastState": last or {}}
    return {**entry, **more}


def ended(code: int = 1, message: str = "", reason: str = "Error", seconds_ago: float = 5) -> Json:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": ago(seconds_ago)}}


def snapshot(*objects: Json, logs: Mapping[tuple[str, str, str], str] | None = None, ways: Ways = WAYS) -> Snapshot:
    by_kind: dict[str, list[Json]] = {}
    for item in objects:
        by_kind.setdefault(item["kind"], []).append(item)
    return Snapshot(namespaces=("serving", "gateway"), objects=by_kind, ways=ways, now=NOW, logs=logs or {})


def found(*objects: Json, **more: Any) -> list[Finding]:
    return diagnose(snapshot(*objects, **more))


@dataclass
class Answers:
    """A kubectl on a cluster of objects, which keeps what it was asked."""

    objects: Sequence[Json] = ()
    logs: Mapping[str, str] = field(default_factory=dict[str, str])  # by container
    refused: str = ""  # a kind that nobody may see
    away: bool = False
    context: str = "c"
    asked: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def __call__(self, *arguments: str) -> str:
        self.asked.append(arguments)
        if self.away:
            raise FailedError("kubectl: connection refused", "kubectl")
        words = list(arguments)
        namespace = words[words.index("-n") + 1] if "-n" in words else ""
        if "logs" in words:
            if (name := words[words.index("-c") + 1]) not in self.logs:
                raise FailedError("kubectl logs: not found", "kubectl")
            return self.logs[name]
        kinds = next(word for word in words if word[0] != "-" and word not in ("get", namespace)).split(",")
        if self.refused in kinds:
            raise FailedError(f'Error from server (Forbidden): {self.refused} is forbidden: User "u"', "kubectl")
        singular = {kind.removesuffix("es" if kind.endswith("classes") else "s") for kind in kinds}
        items = [
            item
            for item in self.objects
            if item["kind"].lower() in singular and item["metadata"].get("namespace", "") == namespace
        ]
        return json.dumps({"items": items})

    def typed(self, *words: str) -> str:
        return typed(*words)


# A watch that sees nothing.
NOBODY = Watch(Answers(away=True), ("serving", "gateway"), (), WAYS, Redactor())
