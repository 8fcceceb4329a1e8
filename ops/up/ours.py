"""Before `ops up` writes anything: is what is there already of this stack, and can claims become what is planned?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from components.kubernetes.never_shrink import of_its_class, refused_adoption
from ops.engine import Registered
from ops.errors import OpsError
from ops.manifests import manifests
from ops.up.by_kubectl import APPLY_SET, set_id
from ops.up.secrets import SecretObject
from ops.up.site import Kubectl, Object
from stacks.ownership import Ownership, There
from stacks.plan import Plan
from stacks.problems import Problem


def refuse_what_is_not_ours(
    plan: Plan, resources: Sequence[Registered], secrets: Sequence[SecretObject], kubectl: Kubectl
) -> None:
    """Raises OpsError with every object of the plan that exists and is somebody else's, or a claim that stays as it is.

    To be asked before the values of Secrets are: those of others are none of ours.
    """
    settings = plan.settings

    def set_(place: Sequence[str], value: str) -> str:
        return f"ops up --stack {settings.stack} --set {'.'.join(place)}={value}"

    planned = [*manifests(resources), *(secret.manifest for secret in secrets)]
    namespaces = [There.of("Namespace", found["metadata"]) for found in kubectl.get("namespaces")]
    here = {namespace.name for namespace in namespaces}
    asked = [manifest for manifest in planned if manifest["metadata"].get("namespace", "") in {"", *here}]
    existing = _existing(asked, kubectl)
    problems = list(_of_claims(existing, asked))
    if not settings.platform.adopt:
        there = [There.of(found["kind"], found["metadata"]) for found in existing]
        places = sorted({m["metadata"]["namespace"] for m in asked if "namespace" in m["metadata"]})
        there += _other_sets(kubectl, places)
        problems = [*Ownership.of(settings, set_).problems(there, namespaces), *problems]
    if problems:
        first, *others = problems
        raise OpsError(first.message, first.remedy, *others)


def _of_claims(existing: Sequence[Object], planned: Sequence[Object]) -> Iterator[Problem]:
    """Claims that are to become what none can: the API server would say so in the middle of the update."""

    def place(claim: Object) -> tuple[str, str, str]:
        return claim["kind"], claim["metadata"].get("namespace", ""), claim["metadata"]["name"]

    there = {place(found): found for found in existing if found["kind"] == "PersistentVolumeClaim"}
    for new in planned:
        old = there.get(place(new))
        if old is not None and (message := refused_adoption(old, of_its_class(old, new))):
            what, _, remedy = message.partition("\n  remedy: ")
            yield Problem(what, remedy)


def _existing(planned: Sequence[Object], kubectl: Kubectl) -> list[Object]:
    """Those of a plan's objects that the cluster has."""
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": planned})
    text = kubectl("get", "--ignore-not-found", "-o", "json", "--filename=-", stdin=items)
    found: Object = json.loads(text) if text.strip() else {"items": []}
    return found.get("items", [found])


def _other_sets(kubectl: Kubectl, namespaces: Sequence[str]) -> list[There]:
    """ConfigMaps of the name of our ApplySet that stand for none: kubectl would stop at them, half way."""
    found = [cm for namespace in namespaces for cm in kubectl.get("--namespace", namespace, "configmap", APPLY_SET)]
    label = "applyset.kubernetes.io/id"
    return [
        There.of("ConfigMap", cm["metadata"])
        for cm in found
        if cm["metadata"].get("labels", {}).get(label) != set_id(cm["metadata"]["namespace"])
    ]
