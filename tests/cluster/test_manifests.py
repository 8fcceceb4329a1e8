"""The real API server accepts everything that a plan can make of a stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ops.embedded_cluster.control_plane import EmbeddedCluster
from ops.errors import FailedError
from ops.manifests import manifests
from stacks.sections import SERVING
from tests.catalog import CATALOG, GROUPS
from tests.cluster.platform import NAMESPACES, Manifest, Platform, named, planned
from tests.gguf_entries import ALIAS, FILES, recorded_with_gguf
from tests.guide_entries import ENTRIES, recorded_with_guide
from tests.patience import kubectl_timeout
from tests.support import SERVED_ALIASES, TEI_ALIASES, VLLM_ALIASES

CRDS = Path(__file__).parents[3] / "shared" / "crds"
_FILLED = {spec.group for spec in CATALOG.values()}
_GROUPS = [name for name, group in GROUPS.items() if group.unavailable is None and name in _FILLED]
_SIZES = {
    **dict.fromkeys(VLLM_ALIASES, ("maxModelLen=4096", "gpuMemoryUtilization=0.8", "maxNumSeqs=16")),
    **dict.fromkeys(TEI_ALIASES, ("maxBatchTokens=2048", "maxClientBatchSize=8")),
}
# Everything that changes a manifest, as `ops plan --set` takes it.
_EVERYWHERE: dict[str, tuple[str, ...]] = {
    "as committed": (),
    "every model up": (
        *("gpuQuota=8", "machineType=g2-standard-16", "maxHourlyUsd=100", "maxMonthlyUsd=100000"),
        *(f"{a}:replicas=1" for a in SERVED_ALIASES),
    ),
    "larger disks": ("gateway.databaseGib=2048", *(f"{a}:claimGib=100" for a in SERVED_ALIASES)),
    "every override": tuple(f"{alias}:{size}" for alias, sizes in _SIZES.items() for size in sizes),
    **{
        f"only {group}": (*(f"groups.{other}={str(other == group).lower()}" for other in _GROUPS), "keys={}")
        for group in _GROUPS
    },
    "two gateways": ("gateway.replicas=2",),
    "weights not kept": ("retainWeights=false",),
    "no GPU": ("gpuQuota=0",),
}
_ON_GKE: dict[str, tuple[str, ...]] = {
    "Cloud SQL": ("gateway.database=cloud-sql",),
    "shared spot GPU": ("spot=true", "gpuSharingClients=2", "coder-fim:gpuMemoryUtilization=0.4"),
}
_CONFIGS = [
    pytest.param(stack, sets, id=f"{stack}, {name}")
    for stack, configs in (("local", _EVERYWHERE), ("ai-dev", _EVERYWHERE | _ON_GKE))
    for name, sets in configs.items()
]
# What was accepted once in this process is not sent again: configs differ in a few objects.
_accepted: set[str] = set()


@pytest.fixture(scope="module")
def namespaces(cluster: EmbeddedCluster) -> Iterator[None]:
    """The plan's own namespaces, since nothing can be sent into one that is not there."""
    Platform(cluster).apply(*(m for m in planned() if m["kind"] == "Namespace"))
    yield
    cluster.kubectl("delete", "namespace", *NAMESPACES, kubectl_timeout(60))


def dry_run(cluster: EmbeddedCluster, objects: list[Manifest]) -> None:
    """Raise FailedError with whatever the API server has against the objects, warnings included."""
    strictly = ("--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "--force-conflicts")
    items = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl("apply", *strictly, "-f", "-", stdin=json.dumps(items))


def pods_of(objects: list[Manifest]) -> list[Manifest]:
    """A pod of each template, as a controller would make it."""
    found: list[Manifest] = []
    for owner in objects:
        spec = owner.get("spec", {})
        template = spec.get("jobTemplate", {"spec": spec})["spec"].get("template")
        if template:
            name, namespace = f"{owner['kind'].lower()}-{owner['metadata']['name']}", owner["metadata"]["namespace"]
            metadata = {**template["metadata"], "name": name, "namespace": namespace}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return found


def custom_kinds(cluster: EmbeddedCluster, objects: list[Manifest]) -> set[tuple[str, str]]:
    """Group and kind of objects that a bare API server does not know."""
    served = cluster.kubectl("api-resources", "--no-headers").splitlines()
    known = {(line.split()[-3].rpartition("/")[0], line.split()[-1]) for line in served}
    return {(o["apiVersion"].rpartition("/")[0], o["kind"]) for o in objects} - known


def install_crds(cluster: EmbeddedCluster, kinds: set[tuple[str, str]]) -> None:
    """Teach the API server kinds, from the schemas beside the checkout; skip where they are not."""
    if kinds and not CRDS.is_dir():
        pytest.skip(f"no {CRDS}: the schemas of {sorted(kinds)} are not at hand")
    for group, kind in sorted(kinds):
        (path,) = (
            p for p in CRDS.glob(f"{group}_*.yaml") if yaml.safe_load(p.read_text())["spec"]["names"]["kind"] == kind
        )
        # Larger than the annotation of a client-side apply may be.
        cluster.kubectl("apply", "--server-side", "-f", str(path))
        cluster.kubectl("wait", "--for=condition=established", "-f", str(path), kubectl_timeout(30))


@pytest.mark.parametrize(("stack", "sets"), _CONFIGS)
def test_the_api_server_accepts_every_manifest_and_every_pod_without_a_warning(
    cluster: EmbeddedCluster, namespaces: None, stack: str, sets: tuple[str, ...]
) -> None:
    """Strict field validation, and Pod Security at the level that the namespaces declare."""
    objects = planned(*sets, stack=stack)
    new = [o for o in objects + pods_of(objects) if json.dumps(o, sort_keys=True) not in _accepted]
    if new:
        install_crds(cluster, custom_kinds(cluster, new))
        dry_run(cluster, new)
    _accepted.update(json.dumps(o, sort_keys=True) for o in new)


@pytest.mark.parametrize("stack", ["local", "ai-dev"])
@pytest.mark.parametrize("quantization", [file.quantization for file in FILES])
def test_the_api_server_accepts_a_model_on_llama_cpp(
    cluster: EmbeddedCluster, namespaces: None, stack: str, quantization: str
) -> None:
    """Which is in no stack of tests/project."""
    settings = (f"{ALIAS}:quantization={quantization}", f"{ALIAS}:promptCacheMib=64", f"{ALIAS}:replicas=1")
    objects = manifests(recorded_with_gguf(*settings, stack=stack).resources)
    assert named(objects, "Deployment", ALIAS)
    dry_run(cluster, [o for o in objects + pods_of(objects) if ALIAS in json.dumps(o)])


@pytest.mark.parametrize("stack", ["local", "ai-dev"])
def test_the_api_server_accepts_models_that_hear_rank_see_and_embed(
    cluster: EmbeddedCluster, namespaces: None, stack: str
) -> None:
    """Which are in no stack of tests/project either."""
    objects = manifests(recorded_with_guide(stack=stack).resources)
    assert all(named(objects, "Deployment", alias) for alias in ENTRIES)
    dry_run(cluster, [o for o in objects + pods_of(objects) if any(alias in json.dumps(o) for alias in ENTRIES)])


def test_every_namespace_enforces_the_strictest_pod_security(cluster: EmbeddedCluster, namespaces: None) -> None:
    """A pod that would be root is refused in each, so that acceptance above means something."""
    objects = planned()
    for namespace in (o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"):
        pod = next(p for p in pods_of(objects) if p["metadata"]["namespace"] == namespace)
        root = {**pod, "spec": {**pod["spec"], "securityContext": {"runAsUser": 0}}}
        with pytest.raises(FailedError, match='violates PodSecurity "restricted'):
            dry_run(cluster, [root])


def test_a_warning_counts_as_a_refusal(cluster: EmbeddedCluster, namespaces: None) -> None:
    """Of a Deployment the API server only warns that its pods would be refused."""
    deployment = named(planned(), "Deployment", "coder-chat")
    template = deployment["spec"]["template"]
    careless = {**template, "spec": {**template["spec"], "hostNetwork": True}}
    with pytest.raises(FailedError, match="host namespaces"):
        dry_run(cluster, [{**deployment, "spec": {**deployment["spec"], "template": careless}}])


def test_a_custom_resource_is_held_to_its_schema(cluster: EmbeddedCluster, namespaces: None) -> None:
    """No plan has one yet; the one that comes first is checked by the same steps."""
    spec: Manifest = {"selector": {}, "endpoints": [{"port": "http", "interval": "30s"}]}
    scrape: Manifest = {
        "apiVersion": "monitoring.googleapis.com/v1",
        "kind": "PodMonitoring",
        "metadata": {"name": "models", "namespace": SERVING},
        "spec": spec,
    }
    kinds = custom_kinds(cluster, [scrape])
    assert kinds == {("monitoring.googleapis.com", "PodMonitoring")}
    install_crds(cluster, kinds)
    dry_run(cluster, [scrape])
    with pytest.raises(FailedError, match="unknown field"):
        dry_run(cluster, [{**scrape, "spec": {**spec, "endpoint": []}}])
    cluster.kubectl("delete", "crd", "podmonitorings.monitoring.googleapis.com")
