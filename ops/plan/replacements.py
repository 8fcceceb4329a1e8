"""Which changes make another resource instead of changing the one that exists.

Kubernetes: what pulumi-kubernetes itself forces (`provider/pkg/provider/diff.go` at 94977969d, July 2026); for a kind
that is not here, name and namespace. Google Cloud: `ForceNew` and `CustomizeDiff` of the Terraform provider that
pulumi-gcp wraps (hashicorp/terraform-provider-google-beta at 93c65b2d6, August 2026), under Pulumi's names; for the
kinds that this program registers. Paths have no list indexes, and what is below a path is meant too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

# Inputs of a resource's provider that matter to it are compared below this key, beside its own.
PROVIDER = "provider"
# By package: the provider's inputs that decide where an object is.
PROVIDER_INPUTS = {"gcp": "project", "kubernetes": "clusterIdentifier"}


@dataclass(frozen=True)
class Replaces:
    """Paths whose change replaces a resource of one kind."""

    always: tuple[str, ...] = ()
    smaller: tuple[str, ...] = ()  # only where a number goes down, or a network no longer holds the old one
    removed: tuple[str, ...] = ()  # only where nothing comes in its place

    def by(self, path: str, old: object, new: object) -> bool:
        """Whether this change replaces. None stands for a property that is not there."""
        if _below(path, self.always) or (_below(path, self.removed) and new is None):
            return True
        return _below(path, self.smaller) and _is_smaller(old, new)


def _is_smaller(old: object, new: object) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return new < old
    try:
        return not IPv4Network(old).subnet_of(IPv4Network(new))
    except ValueError:
        return False


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


_OBJECT = ("metadata.name", "metadata.namespace", f"{PROVIDER}.clusterIdentifier")
_SELECTOR = ("spec.selector",)
_JOB = ("spec.completions", "spec.parallelism", "spec.selector", "spec.template")
_VOLUME_SOURCES = (
    "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs "
    "hostPath iscsi local nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume"
)

_KUBERNETES: Mapping[str, tuple[str, ...]] = {
    "apps/v1:DaemonSet": _SELECTOR,
    "apps/v1:Deployment": _SELECTOR,
    "apps/v1:StatefulSet": (
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    "batch/v1:Job": _JOB,
    "core/v1:PersistentVolume": tuple(f"spec.{source}" for source in _VOLUME_SOURCES.split()),
    "core/v1:PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    "core/v1:ResourceQuota": ("spec.scopes",),
    "core/v1:Secret": ("type",),
    "core/v1:Service": ("spec.clusterIP",),
    "rbac.authorization.k8s.io/v1:ClusterRoleBinding": ("roleRef",),
    "rbac.authorization.k8s.io/v1:RoleBinding": ("roleRef",),
    "storage.k8s.io/v1:StorageClass": ("parameters", "provisioner"),
}
# Changed in place only where the provider says so and the object is not immutable.
_CONTENT = {
    "core/v1:ConfigMap": ("enableConfigMapMutable", ("data", "binaryData")),
    "core/v1:Secret": ("enableSecretMutable", ("data", "stringData")),
}

_IN_PROJECT = ("project", f"{PROVIDER}.project")
_NODE = (
    "advancedMachineFeatures bootDiskKmsKey confidentialNodes.confidentialInstanceType enableConfidentialStorage "
    "ephemeralStorageConfig ephemeralStorageLocalSsdConfig flexStart guestAccelerators hostMaintenancePolicy "
    "localNvmeSsdBlockConfig localSsdCount localSsdEncryptionMode maxRunDuration metadata minCpuPlatform nodeGroup "
    "oauthScopes preemptible reservationAffinity sandboxConfig secondaryBootDisks serviceAccount "
    "shieldedInstanceConfig soleTenantConfig spot"
)
_NODE_CONFIG = tuple(f"nodeConfig.{name}" for name in _NODE.split())

GCP: Mapping[str, Replaces] = {
    "artifactregistry/repository:Repository": Replaces(
        always=("format", "kmsKeyName", "location", "mode", "remoteRepositoryConfig", "repositoryId", *_IN_PROJECT)
    ),
    "artifactregistry/repositoryIamMember:RepositoryIamMember": Replaces(
        always=("condition", "location", "member", "repository", "role", *_IN_PROJECT)
    ),
    "compute/disk:Disk": Replaces(
        always=(
            "architecture",
            "asyncPrimaryDisk",
            "description",
            "diskEncryptionKey",
            "image",
            "licenses",
            "multiWriter",
            "name",
            "physicalBlockSizeBytes",
            "resourcePolicies",
            "snapshot",
            "sourceDisk",
            "storagePool",
            "type",
            "zone",
            *_IN_PROJECT,
        ),
        smaller=("size",),
    ),
    "compute/globalAddress:GlobalAddress": Replaces(
        always=(
            "address",
            "addressType",
            "description",
            "ipVersion",
            "name",
            "network",
            "prefixLength",
            "purpose",
            *_IN_PROJECT,
        )
    ),
    "compute/network:Network": Replaces(
        always=("autoCreateSubnetworks", "description", "internalIpv6Range", "name", "networkProfile", *_IN_PROJECT)
    ),
    "compute/router:Router": Replaces(
        always=("encryptedInterconnectRouter", "name", "network", "region", *_IN_PROJECT)
    ),
    "compute/routerNat:RouterNat": Replaces(
        always=("endpointTypes", "initialNatIps", "name", "region", "router", "type", *_IN_PROJECT)
    ),
    "compute/subnetwork:Subnetwork": Replaces(
        always=("description", "name", "network", "region", "reservedInternalRange", *_IN_PROJECT),
        smaller=("ipCidrRange",),
    ),
    "container/cluster:Cluster": Replaces(
        always=(
            "clusterIpv4Cidr",
            "confidentialNodes",
            "datapathProvider",
            "defaultMaxPodsPerNode",
            "description",
            "enableAutopilot",
            "enableKubernetesAlpha",
            "enableTpu",
            "initialNodeCount",
            "ipAllocationPolicy.clusterIpv4CidrBlock",
            "ipAllocationPolicy.clusterSecondaryRangeName",
            "ipAllocationPolicy.podCidrOverprovisionConfig",
            "ipAllocationPolicy.servicesIpv4CidrBlock",
            "ipAllocationPolicy.servicesSecondaryRangeName",
            "location",
            "masterAuth.clientCertificateConfig",
            "name",
            "network",
            "networkingMode",
            "nodePools",
            "privateClusterConfig.masterIpv4CidrBlock",
            "privateClusterConfig.privateEndpointSubnetwork",
            "subnetwork",
            "userManagedKeysConfig",
            *_NODE_CONFIG,
            *_IN_PROJECT,
        )
    ),
    "container/nodePool:NodePool": Replaces(
        always=(
            "cluster",
            "initialNodeCount",
            "location",
            "maxPodsPerNode",
            "name",
            "namePrefix",
            "networkConfig.additionalNodeNetworkConfigs",
            "networkConfig.additionalPodNetworkConfigs",
            "networkConfig.createPodRange",
            "networkConfig.podCidrOverprovisionConfig",
            "networkConfig.podIpv4CidrBlock",
            "networkConfig.podRange",
            "networkConfig.subnetwork",
            "placementPolicy",
            "queuedProvisioning",
            *_NODE_CONFIG,
            *_IN_PROJECT,
        )
    ),
    "projects/iAMMember:IAMMember": Replaces(always=("condition", "member", "project", "role")),
    "projects/service:Service": Replaces(always=("service", *_IN_PROJECT)),
    "serviceaccount/account:Account": Replaces(always=("accountId", *_IN_PROJECT)),
    "servicenetworking/connection:Connection": Replaces(always=("network", "service")),
    "sql/database:Database": Replaces(always=("instance", "name", *_IN_PROJECT)),
    # databaseVersion and a smaller disk are no ForceNew: the API refuses the one, and with autoresize the
    # provider drops the other.
    "sql/databaseInstance:DatabaseInstance": Replaces(
        always=("encryptionKeyName", "name", "region", "settings.collation", *_IN_PROJECT),
        removed=("settings.ipConfiguration.privateNetwork",),
    ),
    "sql/user:User": Replaces(always=("host", "instance", "name", "type", *_IN_PROJECT)),
}

# What holds data, or is what such things live in.
_DATA = (
    "gcp:compute/disk:Disk",
    "gcp:container/cluster:Cluster",
    "gcp:sql/database:Database",
    "gcp:sql/databaseInstance:DatabaseInstance",
    "kubernetes:core/v1:Namespace",
    "kubernetes:core/v1:PersistentVolume",
    "kubernetes:core/v1:PersistentVolumeClaim",
)


def replacing(type_: str, inputs: Mapping[str, Any], provider: Mapping[str, Any]) -> Replaces:
    """The paths that replace a resource with these new inputs, under a provider with those."""
    package, _, kind = type_.partition(":")
    if package == "gcp":
        return GCP.get(kind, Replaces())
    if package != "kubernetes":
        return Replaces()
    paths = (*_OBJECT, *_KUBERNETES.get(kind, ()))
    if kind in _CONTENT:
        mutable, content = _CONTENT[kind]
        if str(provider.get(mutable, "")).lower() != "true" or inputs.get("immutable"):
            paths += content
    return Replaces(always=paths)


def holds_data(type_: str, inputs: Mapping[str, Any]) -> bool:
    """Whether losing a resource of this kind loses data. An immutable Secret is one that data depends on."""
    return type_ in _DATA or (type_ == "kubernetes:core/v1:Secret" and bool(inputs.get("immutable")))
