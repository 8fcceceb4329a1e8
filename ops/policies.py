"""The rules of admission that show in the resources themselves, for a policy pack (policy/) or any recorded plan.

Admission judges config before anything is registered; these judge what was registered, by whatever program. Numbers
come from the resources: the quota is what the GPU pools may grow to, unless a team sets one. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from models.machines import ACCELERATOR_LABEL, GPU_TAINT
from stacks.problems import Problem
from stacks.sections import Platform

DEFAULT_QUOTA = Platform().gpu_quota
Properties = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as a policy sees it. `properties` have the names of the wire: nodeConfig, metadata."""

    type: str  # "kubernetes:apps/v1:Deployment"
    name: str
    urn: str
    properties: Properties
    protect: bool

    @property
    def where(self) -> str:
        """`serving/coder-chat`, or the name in the program."""
        metadata = _map(self.properties, "metadata")
        name = metadata.get("name", self.name)
        return f"{metadata['namespace']}/{name}" if "namespace" in metadata else str(name)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of the pack. One of a resource alone stops it before it is touched."""

    name: str
    description: str
    check: Callable[[Resource], Iterator[Problem]]


@dataclass(frozen=True, kw_only=True)
class StackRule:
    """A rule that needs all resources and the GPU quota: judged at the end of a preview, and of an update."""

    name: str
    description: str
    check: Callable[[Iterable[Resource], int], Iterator[Problem]]


# --- reading -------------------------------------------------------------------------------------------------


def _map(properties: Properties, *path: str) -> Properties:
    """The object at a path, empty where there is none."""
    value: Any = properties
    for key in path:
        value = cast("Properties", value).get(key) if isinstance(value, Mapping) else None
    return cast("Properties", value) if isinstance(value, Mapping) else {}


def _list(properties: Properties, *path: str) -> list[Properties]:
    value = _map(properties, *path[:-1]).get(path[-1])
    return cast("list[Properties]", value) if isinstance(value, list) else []


def _pod(resource: Resource) -> Properties:
    """The pod of a workload; of a CronJob, that of its Job."""
    spec = _map(resource.properties, "spec")
    return _map(spec, "jobTemplate", "spec", "template", "spec") or _map(spec, "template", "spec")


def _containers(pod: Properties) -> list[Properties]:
    return [*_list(pod, "initContainers"), *_list(pod, "containers")]


def _gpus(pod: Properties) -> int:
    """GPUs that a pod holds: those of its containers together, or of a hungrier init container."""

    def held(container: Properties) -> int:
        of = _map(container, "resources")
        return int(_map(of, "limits").get(GPU_TAINT) or _map(of, "requests").get(GPU_TAINT) or 0)

    initial = max((held(c) for c in _list(pod, "initContainers")), default=0)
    return max(initial, sum(held(c) for c in _list(pod, "containers")))


def _accelerators(pool: Resource) -> list[Properties]:
    if pool.type != "gcp:container/nodePool:NodePool":
        return []
    return _list(pool.properties, "nodeConfig", "guestAccelerators")


def _is(resource: Resource, *kinds: str) -> bool:
    return resource.type.rpartition(":")[2] in kinds


def _problem(resource: Resource, what: str, remedy: str) -> Problem:
    return Problem(f"{resource.type.rpartition(':')[2]} {resource.where} {what}", remedy)


# --- one resource --------------------------------------------------------------------------------------------


def _gpu_pods(resource: Resource) -> Iterator[Problem]:
    pod = _pod(resource)
    if not _gpus(pod):
        return
    if not any(t.get("key", GPU_TAINT) == GPU_TAINT for t in _list(pod, "tolerations")):
        yield _problem(
            resource,
            f"asks for a GPU without tolerating the taint {GPU_TAINT}, so it is never scheduled",
            f"add a toleration with key {GPU_TAINT}, operator Exists",
        )
    if ACCELERATOR_LABEL not in _map(pod, "nodeSelector"):
        yield _problem(
            resource,
            f"does not say which GPU, so the autoscaler may start another machine: no {ACCELERATOR_LABEL}",
            f"add a nodeSelector with {ACCELERATOR_LABEL}",
        )
    for container in _containers(pod):
        limits = _map(container, "resources", "limits")
        if "memory" not in limits:
            yield _problem(
                resource,
                f"has the container {container.get('name')} without a limit of memory, so a load that outgrows the "
                "node takes the node down",
                "set resources.limits.memory",
            )


def _gpu_rollout(resource: Resource) -> Iterator[Problem]:
    strategy = _map(resource.properties, "spec", "strategy").get("type", "RollingUpdate")
    if _is(resource, "Deployment") and _gpus(_pod(resource)) and strategy != "Recreate":
        yield _problem(
            resource,
            f"holds a GPU and rolls by {strategy}: the second pod waits for ever on the GPU of the first",
            "set spec.strategy.type to Recreate",
        )


def _restricted(resource: Resource) -> Iterator[Problem]:
    pod = _pod(resource)
    if found := [*_pod_privileges(pod), *(text for c in _containers(pod) for text in _privileges(c, pod))]:
        yield _problem(
            resource,
            f"is outside of Pod Security 'restricted', so the namespace admits no pod of it: {', '.join(found)}",
            "runAsNonRoot true, allowPrivilegeEscalation false, capabilities drop ALL, seccompProfile RuntimeDefault",
        )


def _pod_privileges(pod: Properties) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    yield from (f"volume {v.get('name')} is a hostPath" for v in _list(pod, "volumes") if "hostPath" in v)


def _privileges(container: Properties, pod: Properties) -> Iterator[str]:
    name, own, shared = container.get("name"), _map(container, "securityContext"), _map(pod, "securityContext")
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate"
    if "ALL" not in (_map(own, "capabilities").get("drop") or []):
        yield f"{name} keeps capabilities"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield f"{name} runs as root"
    profile = _map(own, "seccompProfile") or _map(shared, "seccompProfile")
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name} has no seccomp profile"
    if any(port.get("hostPort") for port in _list(container, "ports")):
        yield f"{name} has a port of the host"


# Not MAX_TOKENS, and not POSTGRES_PASSWORD_FILE, which names a file.
_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?)$", re.IGNORECASE)
# user:password@ where the password is not put in by the kubelet, $(NAME).
_SECRET_URL = re.compile(r"://[^/\s:@]+:(?!\$\()[^/\s@]+@")


def _plain_secrets(resource: Resource) -> Iterator[Problem]:
    for container in _containers(_pod(resource)):
        for variable in _list(container, "env"):
            name, value = str(variable.get("name")), variable.get("value")
            if isinstance(value, str) and value and (_SECRET_NAME.search(name) or _SECRET_URL.search(value)):
                yield _problem(
                    resource,
                    f"has {name} in clear text, for everyone who may read the object or the state",
                    f"put it in a Secret, and take {name} from it with valueFrom.secretKeyRef",
                )


_PROTECTED = (
    "gcp:compute/disk:Disk",
    "gcp:container/cluster:Cluster",
    "gcp:sql/databaseInstance:DatabaseInstance",
)


def _protected(resource: Resource) -> Iterator[Problem]:
    if resource.type in _PROTECTED and not resource.protect:
        yield _problem(
            resource,
            "is not protected: a rename or a `pulumi destroy` takes its data along",
            "pulumi config set deletionProtection true   # a disk: ResourceOptions(protect=True)",
        )


def _gpu_pools(resource: Resource) -> Iterator[Problem]:
    if not _accelerators(resource):
        return
    taints = _list(resource.properties, "nodeConfig", "taints")
    if not any(t.get("key") == GPU_TAINT and t.get("effect") == "NO_SCHEDULE" for t in taints):
        yield _problem(
            resource,
            f"does not declare the taint {GPU_TAINT}: kube-system settles on the GPU node, which is then billed for "
            "ever",
            f"add nodeConfig.taints with key {GPU_TAINT}, effect NO_SCHEDULE",
        )
    surge = _map(resource.properties, "upgradeSettings").get("maxSurge")
    if surge != 0:
        shown = "GKE's default of 1" if surge is None else f"{surge:g}"
        yield _problem(
            resource,
            f"has a maxSurge of {shown}: an upgrade needs one more GPU of quota than there is, and never ends",
            "set upgradeSettings.maxSurge to 0 and maxUnavailable to 1",
        )


def _endpoints(resource: Resource) -> Iterator[Problem]:
    properties = resource.properties
    match resource.type:
        case "gcp:container/cluster:Cluster":
            if _map(properties, "controlPlaneEndpointsConfig", "ipEndpointsConfig").get("enabled") is not False:
                yield _problem(
                    resource,
                    "answers on an IP address, to anyone who has a token",
                    "set controlPlaneEndpointsConfig.ipEndpointsConfig.enabled to false, and use the DNS endpoint",
                )
            if _map(properties, "privateClusterConfig").get("enablePrivateNodes") is not True:
                yield _problem(
                    resource, "gives its nodes public addresses", "set privateClusterConfig.enablePrivateNodes to true"
                )
        case "gcp:sql/databaseInstance:DatabaseInstance":
            if _map(properties, "settings", "ipConfiguration").get("ipv4Enabled") is not False:
                yield _problem(
                    resource,
                    "has a public address",
                    "set settings.ipConfiguration.ipv4Enabled to false, with a privateNetwork",
                )
        case "kubernetes:core/v1:Service":
            kind = _map(properties, "spec").get("type", "ClusterIP")
            if kind in ("LoadBalancer", "NodePort"):
                yield _problem(
                    resource,
                    f"is of type {kind}, and so open to the outside",
                    "set spec.type to ClusterIP, and reach it with kubectl port-forward",
                )
        case _:
            if _is(resource, "Ingress", "Gateway"):
                yield _problem(resource, "opens the cluster to the outside", "remove it, or disable this policy")


# --- all of them ---------------------------------------------------------------------------------------------


def _quota(resources: Iterable[Resource], quota: int) -> Iterator[Problem]:
    resources = list(resources)
    pools = [pool for pool in resources if _accelerators(pool)]
    most = sum(_pool_gpus(pool) for pool in pools)
    if most > quota:
        names = ", ".join(f"{pool.where} ({_pool_gpus(pool)})" for pool in pools)
        yield Problem(
            f"the GPU pools may grow to {most} GPUs ({names}), and the quota is {quota}: the rest never starts",
            "pulumi config set gpuQuota "
            + str(quota)
            + "   # or, with that quota granted, raise the policy's gpuQuota",
        )
    slots = quota * max([_clients(pool) for pool in pools], default=1)
    held = {
        r.where: _gpus(_pod(r)) * int(_map(r.properties, "spec").get("replicas", 1))
        for r in resources
        if _is(r, "Deployment", "StatefulSet") and _gpus(_pod(r))
    }
    up = {where: gpus for where, gpus in held.items() if gpus}
    if sum(up.values()) > slots:
        listed = ", ".join(f"{where} ({gpus})" for where, gpus in up.items())
        first, *rest = (where.rpartition("/")[2] for where in up)
        remedy = " && ".join(f"pulumi config set {alias}:replicas 0" for alias in rest)
        yield Problem(
            f"GPUs asked for: {sum(up.values())} by {listed}; there are {slots}, so the rest waits for ever",
            f"to keep {first}: {remedy}" if rest else f"pulumi config set {first}:replicas {slots}",
        )


def _pool_gpus(pool: Resource) -> int:
    """GPUs of a pool at its largest; without autoscaling, of its fixed size."""
    scaling, properties = _map(pool.properties, "autoscaling"), pool.properties
    nodes = scaling.get("totalMaxNodeCount") or scaling.get("maxNodeCount") or properties.get("nodeCount") or 1
    return int(nodes) * sum(int(a.get("count", 1)) for a in _accelerators(pool))


def _clients(pool: Resource) -> int:
    """Pods that may share one GPU of a pool."""
    return max(int(_map(a, "gpuSharingConfig").get("maxSharedClientsPerGpu", 1)) for a in _accelerators(pool))


def _single_writer(resources: Iterable[Resource], quota: int) -> Iterator[Problem]:
    resources = list(resources)
    modes_of = {r.where: _access_modes(r) for r in resources if _is(r, "PersistentVolumeClaim")}
    for resource in resources:
        replicas = int(_map(resource.properties, "spec").get("replicas", 1)) if _is(resource, "Deployment") else 0
        namespace = resource.where.partition("/")[0]
        for volume in _list(_pod(resource), "volumes"):
            name = _map(volume, "persistentVolumeClaim").get("claimName")
            modes = modes_of.get(f"{namespace}/{name}")
            if replicas > 1 and modes and modes <= {"ReadWriteOnce", "ReadWriteOncePod"}:
                yield _problem(
                    resource,
                    f"has {replicas} replicas on the claim {name}, which one node mounts: the others wait for ever",
                    f"pulumi config set {resource.where.rpartition('/')[2]}:replicas 1",
                )


def _access_modes(claim: Resource) -> frozenset[str]:
    return frozenset(cast("list[str]", _map(claim.properties, "spec").get("accessModes") or []))


RULES = (
    Rule(
        name="gpu-pods-are-placed",
        description="A GPU pod tolerates the taint, names its GPU, has limits",
        check=_gpu_pods,
    ),
    Rule(name="gpu-rollout-recreates", description="A Deployment on a GPU never surges", check=_gpu_rollout),
    Rule(name="pods-are-restricted", description="Every pod passes Pod Security 'restricted'", check=_restricted),
    Rule(name="no-plain-secrets", description="No secret stands in an environment variable", check=_plain_secrets),
    Rule(name="data-is-protected", description="Cluster, disks and databases are protected", check=_protected),
    Rule(
        name="gpu-pools-are-tainted", description="A GPU pool is tainted and upgrades without surge", check=_gpu_pools
    ),
    Rule(name="no-public-endpoint", description="Nothing answers to the outside", check=_endpoints),
)
STACK_RULES = (
    StackRule(name="gpus-within-quota", description="Pools and pods stay within the GPU quota", check=_quota),
    StackRule(name="one-writer-a-claim", description="ReadWriteOnce claims have one replica", check=_single_writer),
)
