"""A plan applied by `kubectl apply --server-side`, for a machine without the Pulumi CLI.

It keeps the order that the program declares and the rules of its two providers. What holds data is created and
updated, and never pruned; everything else is an ApplySet in each namespace, and what left the plan is removed. Changes
made by hand, or by Pulumi, are overridden in both: whose an object is was judged before (`ops/up/ours.py`). Run twice,
it changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.kubernetes.never_shrink import of_its_class
from components.kubernetes.secrets import fingerprint
from ops.embedded_cluster.binaries import Say
from ops.engine import Registered
from ops.errors import FailedError
from ops.manifests import is_kubernetes, manifests, pod_template, read_keys
from ops.up.secrets import SecretObject, existing
from ops.up.site import Kubectl, Object
from ops.up.watch import Watch
from stacks.ownership import MARK
from stacks.secrets import SALT_KEY

_CLAIM = "PersistentVolumeClaim"
KEPT = ("Namespace", "PersistentVolume", "PersistentVolumeClaim")  # in no set, so never pruned
APPLY_SET = "ai-platform"  # the ConfigMap in each namespace that stands for its set
_AWAITED = ("StatefulSet", "Job", "Deployment")
_PATIENCE_S = 600  # the Kubernetes provider's own default
_MOMENT = "2s"  # for which one workload is watched before the next is looked at

Identity = tuple[str, str, str]  # kind, namespace, name


def deploy(
    kubectl: Kubectl,
    resources: Sequence[Registered],
    secrets: Sequence[SecretObject],
    values: Mapping[str, str],
    *,
    say: Say,
    watch: Watch,
) -> None:
    """Bring a cluster to what a plan says, and wait until all of it is available.

    Raises FailedError where the API server refuses an object, or a workload is not available in its time; earlier
    where `watch` finds what waiting does not mend.
    """
    objects = manifests(resources, lambda manifest: reads(manifest, secrets, values))
    kept = [manifest for manifest in objects if manifest["kind"] in KEPT]
    rest = {_identity(manifest): manifest for manifest in objects if manifest["kind"] not in KEPT}
    say(f"applying {len(kept)} namespaces and claims, {len(secrets)} Secrets, {len(rest)} other objects")
    kept = [*_of_their_class(kubectl, kept)]
    for level in (KEPT[:1], KEPT[1:]):
        _apply(kubectl, [manifest for manifest in kept if manifest["kind"] in level], "--force-conflicts")
    _apply_secrets(kubectl, secrets, values)
    namespaces = sorted({namespace for _, namespace, _ in rest} - {""})
    for namespace in namespaces:
        _remove_stale_deployments(kubectl, namespace, rest)
    _apply_in_order(kubectl, rest, resources, say, watch)
    for namespace in namespaces:
        _prune(kubectl, namespace, [m for (_, where, _), m in rest.items() if where == namespace])


def _apply_in_order(
    kubectl: Kubectl, objects: Mapping[Identity, Object], resources: Sequence[Registered], say: Say, watch: Watch
) -> None:
    """Apply each object as soon as the workloads that it follows are ready; return when all are."""
    before, patience = follows(resources), _patience(resources)
    waiting, deadlines, told = dict(objects), dict[Identity, float](), dict[Identity, str]()
    ready: set[Identity] = set()
    while waiting or deadlines:
        due = {identity: manifest for identity, manifest in waiting.items() if before[identity] <= ready}
        for identity, manifest in due.items():
            del waiting[identity]
            if manifest["kind"] == "Job":
                _clear_the_way(kubectl, manifest)
            if identity in patience:
                deadlines[identity] = time.monotonic() + patience[identity]
        _apply(kubectl, map(_in_set, due.values()), "--force-conflicts")
        for identity in list(deadlines):
            try:
                _check(kubectl, objects[identity], deadlines[identity], watch)
            except _NotYetError as state:
                watch.require_hope()
                if told.get(identity) != str(state):
                    told[identity] = str(state)
                    say(f"  waiting for {_shown(identity)} (up to {patience[identity]} s in all): {state}")
            else:
                ready.add(identity)
                del deadlines[identity]
                say(f"  {_shown(identity)} is {'complete' if identity[0] == 'Job' else 'available'}")


def _identity(manifest: Mapping[str, Any]) -> Identity:
    return manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def follows(resources: Sequence[Registered]) -> dict[Identity, set[Identity]]:
    """For each object of a plan, the workloads that have to be ready before it, directly or not."""
    before: dict[str, set[Identity]] = {}
    known: dict[str, Registered] = {}
    for resource in resources:  # a dependency is registered before what depends on it
        before[resource.urn] = set()
        for dependency in (known[urn] for urn in resource.dependencies if urn in known):
            waits = _must_become_ready(dependency)
            before[resource.urn] |= {_identity(dependency.inputs)} if waits else before[dependency.urn]
        known[resource.urn] = resource
    return {_identity(r.inputs): before[r.urn] for r in resources if is_kubernetes(r)}


def _patience(resources: Sequence[Registered]) -> dict[Identity, int]:
    """The workloads to wait for, each with the seconds that Pulumi would wait."""
    workloads = filter(_must_become_ready, resources)
    return {_identity(r.inputs): int(r.timeout.removesuffix("s") or _PATIENCE_S) for r in workloads}


def _must_become_ready(resource: Registered) -> bool:
    return resource.short_type in _AWAITED and resource.inputs["spec"].get("replicas") != 0


# --- applying ------------------------------------------------------------------------------------------------


def _apply(kubectl: Kubectl, objects: Iterable[Object], *options: str) -> None:
    items = list(objects)
    if items:
        kubectl("apply", "--server-side", "--validate=strict", "--filename=-", *options, stdin=_list(items))


def _of_their_class(kubectl: Kubectl, kept: Sequence[Object]) -> Iterator[Object]:
    """Claims as they are planned, but for the storage class of those that are there: a claim keeps its own.

    One that is planned without, and was made without, goes on so: to name its class would be a write.
    """
    places = sorted({m["metadata"]["namespace"] for m in kept if m["kind"] == _CLAIM})
    asked = (kubectl.get("--namespace", place, "pvc", "--show-managed-fields") for place in places)
    there = {_identity(claim): claim for claims in asked for claim in claims}
    for manifest in kept:
        found = there.get(_identity(manifest))
        classed = "storageClassName" in manifest.get("spec", {}) or (found and _names_its_class(found))
        yield of_its_class(found, manifest) if found and classed else manifest


def _names_its_class(claim: Object) -> bool:
    """Whether somebody who wrote it did: what a writer no longer names, the API server takes for a change."""
    fields = (entry.get("fieldsV1", {}) for entry in claim["metadata"].get("managedFields", ()))
    return any("f:storageClassName" in owned.get("f:spec", {}) for owned in fields)


def _list(items: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def set_id(namespace: str) -> str:
    """The id of a namespace's set, as KEP-3659 derives it from the parent; kubectl refuses another one."""
    digest = hashlib.sha256(f"{APPLY_SET}.{namespace}.ConfigMap.".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"


def _in_set(manifest: Object) -> Object:
    """As a member of its namespace's set, so that it is one from its first moment."""
    metadata = manifest["metadata"]
    if "namespace" not in metadata:
        return manifest
    labels = {**metadata.get("labels", {}), "applyset.kubernetes.io/part-of": set_id(metadata["namespace"])}
    return {**manifest, "metadata": {**metadata, "labels": labels}}


def _remove_stale_deployments(kubectl: Kubectl, namespace: str, planned: Container[Identity]) -> None:
    """Those of the set that left the plan go before anything comes: one may hold the GPU that another waits for."""
    ours = f"applyset.kubernetes.io/part-of={set_id(namespace)}"
    found = kubectl.get("--namespace", namespace, "deployments", "--selector", ours)
    if stale := [_identity(there)[2] for there in found if _identity(there) not in planned]:
        kubectl("delete", "deployment", *stale, "--namespace", namespace)


def _prune(kubectl: Kubectl, namespace: str, members: Sequence[Object]) -> None:
    """Remove what is of the namespace's set and no member any more."""
    options = ("--namespace", namespace, f"--applyset=configmaps/{APPLY_SET}", "--prune", "--force-conflicts")
    _apply(kubectl, members, *options)


def _apply_secrets(kubectl: Kubectl, secrets: Sequence[SecretObject], values: Mapping[str, str]) -> None:
    """Create what is absent, and change what differs; `settle` has refused what may not."""
    found = {(secret.namespace, secret.name): there for secret, there in existing(secrets, kubectl)}
    differing = [s for s in secrets if _differs(s, found.get((s.namespace, s.name)), values)]
    _apply(kubectl, [{**s.manifest, "data": s.data(values)} for s in differing], "--force-conflicts")


def _differs(secret: SecretObject, there: Object | None, values: Mapping[str, str]) -> bool:
    if there is None:
        return True
    marks = (o["metadata"].get("annotations", {}).get(MARK) for o in (there, secret.manifest))
    return there.get("data") != secret.data(values) or len(set(marks)) > 1


def reads(manifest: Mapping[str, Any], secrets: Sequence[SecretObject], values: Mapping[str, str]) -> str:
    """What stands in a workload for the secrets that its pods run with: another value is another pod."""
    namespace, spec = manifest["metadata"]["namespace"], (pod_template(manifest) or {}).get("spec", {})
    # What an init container read is of no use to a pod that runs.
    named = set(read_keys({key: value for key, value in spec.items() if key != "initContainers"}))
    found = {
        f"{secret.name}/{key}": values[source]
        for secret in secrets
        if secret.namespace == namespace and not secret.immutable
        for key, source in secret.sources.items()
        if (secret.name, key) in named
    }
    return fingerprint(found, values[SALT_KEY.key])


def _clear_the_way(kubectl: Kubectl, job: Object) -> None:
    """Remove a Job that has failed, or that cannot become the planned one: neither would ever run again."""
    kind, namespace, name = _identity(job)
    where = ("--namespace", namespace)
    found = kubectl.get(*where, kind, name)
    if not found:
        return
    try:
        if not _has_failed(found[0]):
            _apply(kubectl, [_in_set(job)], "--force-conflicts", "--dry-run=server")
            return
    except FailedError as error:
        if "field is immutable" not in str(error):
            raise
    kubectl("delete", kind, name, *where, "--cascade=foreground")


# --- waiting -------------------------------------------------------------------------------------------------


class _NotYetError(Exception):
    """What a workload waits for."""


def _check(kubectl: Kubectl, manifest: Object, deadline: float, watch: Watch) -> None:
    """Return if a workload is ready, or becomes so in a moment.

    Raises _NotYetError if not, and FailedError if it never will or its time is over.
    """
    kind, namespace, name = _identity(manifest)
    what, where = f"{kind.lower()}/{name}", ("--namespace", namespace)
    check = ("wait", "--for=condition=complete", what) if kind == "Job" else ("rollout", "status", what)
    try:
        kubectl(*check, *where, f"--timeout={_MOMENT}")
    except FailedError as error:
        lost = "timed out" not in str(error) or (kind == "Job" and any(map(_has_failed, kubectl.get(*where, what))))
        over = lost or time.monotonic() >= deadline
        found = watch.last(_identity(manifest)) if over else watch.about(_identity(manifest))
        state = found.told if found else _state(kubectl, manifest)
        if not over:
            raise _NotYetError(state) from error
        describe = f"{kubectl.typed('-n', namespace, 'describe', what)}   # once that is mended, run it again"
        raise FailedError(
            f"{_shown((kind, namespace, name))} is not available: {state}", found.command if found else describe
        ) from error


def _shown(identity: Identity) -> str:
    kind, namespace, name = identity
    return f"{namespace}/{name} ({kind})"


def _has_failed(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)


def _state(kubectl: Kubectl, manifest: Object) -> str:
    """What the pods of a workload say of themselves."""
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = kubectl.get("--namespace", manifest["metadata"]["namespace"], "pods", "--selector", selector)
    return "; ".join(f"{pod['metadata']['name']} {_pod_state(pod)}" for pod in pods) or "it has no pods yet"


def _pod_state(pod: Object) -> str:
    status = pod["status"]
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    reasons = [
        f"{container['name']}: {state.get('reason', '')} {state.get('message', '')}".strip()
        for container in containers
        for kind, state in container.get("state", {}).items()
        if kind != "running" and state.get("exitCode") != 0
    ]
    reasons += [c["message"] for c in status.get("conditions", ()) if c["status"] == "False" and c.get("message")]
    return " ".join([status.get("phase", "Unknown"), *([f"({', '.join(dict.fromkeys(reasons))})"] if reasons else [])])
