"""A zonal GKE cluster with its system pool, and how to reach it without a stored token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pulumi
from pulumi_gcp import container, projects, serviceaccount

from components.gke.network import PODS_RANGE, SERVICES_RANGE
from models.machines import SYSTEM_BOOT_DISK_GIB

_FIRST_POOL = "default-pool"  # Google's name for the pool that a cluster is made with
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]  # what a node may do is decided by its role


@dataclass(frozen=True, kw_only=True)
class GkeClusterArgs:
    """`system_machine_type` and `system_nodes` hold everything that needs no GPU.

    `after` are the APIs that have to be enabled first, `system_pool_after` what has to be judged before its pool.
    """

    name: str  # of the cluster in the project
    node_account: str  # id of the nodes' service account
    project: str  # project of Google Cloud
    zone: str  # of control plane and nodes
    network_id: pulumi.Input[str]  # network of the nodes
    subnetwork_id: pulumi.Input[str]  # subnetwork with the ranges of Pods and Services
    system_machine_type: str
    system_nodes: int
    deletion_protection: bool  # whether Google Cloud refuses to delete it
    labels: Mapping[str, str]  # of cluster and machines, for the bill
    after: Sequence[pulumi.Resource] = ()
    system_pool_after: Sequence[pulumi.Resource] = ()


class GkeCluster(pulumi.ComponentResource):
    """Node service account with the least role, cluster, system pool.

    Deliberately zonal: the management fee of one zonal cluster is free, and the one GPU is in one zone anyway.
    The control plane answers on its DNS name, to callers that IAM lets in, and on no IP address.
    """

    name: pulumi.Output[str]
    node_service_account: pulumi.Output[str]  # e-mail
    kubeconfig: pulumi.Output[str]
    system_pool: container.NodePool

    def __init__(self, name: str, args: GkeClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:GkeCluster", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        account = serviceaccount.Account(
            "nodes",
            account_id=args.node_account,
            display_name=f"Nodes of {args.name}",
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        member = pulumi.Output.concat("serviceAccount:", account.email)
        role = projects.IAMMember(
            "nodes-role",
            project=args.project,
            role="roles/container.defaultNodeServiceAccount",
            member=member,
            opts=child,
        )
        cluster = container.Cluster(
            "cluster",
            name=args.name,
            location=args.zone,
            network=args.network_id,
            subnetwork=args.subnetwork_id,
            networking_mode="VPC_NATIVE",
            ip_allocation_policy=container.ClusterIpAllocationPolicyArgs(
                cluster_secondary_range_name=PODS_RANGE, services_secondary_range_name=SERVICES_RANGE
            ),
            private_cluster_config=container.ClusterPrivateClusterConfigArgs(enable_private_nodes=True),
            control_plane_endpoints_config=container.ClusterControlPlaneEndpointsConfigArgs(
                dns_endpoint_config=container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(
                    allow_external_traffic=True
                ),
                ip_endpoints_config=container.ClusterControlPlaneEndpointsConfigIpEndpointsConfigArgs(enabled=False),
            ),
            # Dataplane V2 enforces network policies. It cannot be turned on later without another cluster.
            datapath_provider="ADVANCED_DATAPATH",
            workload_identity_config=container.ClusterWorkloadIdentityConfigArgs(
                workload_pool=f"{args.project}.svc.id.goog"
            ),
            release_channel=container.ClusterReleaseChannelArgs(channel="REGULAR"),
            monitoring_config=container.ClusterMonitoringConfigArgs(
                enable_components=["SYSTEM_COMPONENTS"],
                managed_prometheus=container.ClusterMonitoringConfigManagedPrometheusArgs(enabled=True),
            ),
            cost_management_config=container.ClusterCostManagementConfigArgs(enabled=True),
            resource_labels=dict(args.labels),
            # A cluster cannot be made without a pool; this one lives for minutes, as the least account.
            remove_default_node_pool=True,
            initial_node_count=1,
            node_config=container.ClusterNodeConfigArgs(service_account=account.email, oauth_scopes=_SCOPES),
            deletion_protection=args.deletion_protection,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[role],
                protect=args.deletion_protection,
                # The first two describe the pool that is gone: the API reports another pool there, and a difference
                # in either would replace the cluster. The third is Google's to say while there is no address.
                ignore_changes=["initialNodeCount", "nodeConfig", "privateClusterConfig.enablePrivateEndpoint"],
            ),
        )
        cluster.node_pools.apply(partial(_tell_first_pool, args))
        # The shape is part of the name: a machine type is not changed in place reliably, so it is a new pool.
        pool_name = f"system-{args.system_machine_type}"
        self.system_pool = container.NodePool(
            pool_name,
            name=pool_name,
            cluster=cluster.name,
            location=args.zone,
            node_count=args.system_nodes,
            management=container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            upgrade_settings=container.NodePoolUpgradeSettingsArgs(max_surge=1, max_unavailable=0),
            node_config=container.NodePoolNodeConfigArgs(
                machine_type=args.system_machine_type,
                disk_type="pd-balanced",
                disk_size_gb=SYSTEM_BOOT_DISK_GIB,
                image_type="COS_CONTAINERD",
                service_account=account.email,
                oauth_scopes=_SCOPES,
                gcfs_config=container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
                resource_labels=dict(args.labels),
                shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
                    enable_secure_boot=True, enable_integrity_monitoring=True
                ),
                workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.system_pool_after)),
        )
        self.name = cluster.name
        self.node_service_account = account.email
        endpoint = cluster.control_plane_endpoints_config.dns_endpoint_config.endpoint
        self.kubeconfig = pulumi.Output.all(args.name, endpoint).apply(lambda values: exec_kubeconfig(*values))
        self.register_outputs(
            {
                "name": self.name,
                "nodeServiceAccount": self.node_service_account,
                "kubeconfig": self.kubeconfig,
            }
        )


def _tell_first_pool(args: GkeClusterArgs, pools: Sequence[container.outputs.ClusterNodePool] | None) -> None:
    """A create that fails at its end leaves the cluster's first pool, and the provider never looks at it again."""
    if any(pool.name == _FIRST_POOL for pool in pools or ()):
        pulumi.log.warn(
            f"the cluster still has {_FIRST_POOL}, with which it was made: its node is billed. An update after a "
            "`pulumi import` removes it; else remove it by hand\n"
            f"  remedy: gcloud container node-pools delete {_FIRST_POOL} --cluster {args.name} --zone {args.zone} "
            f"--project {args.project} --quiet"
        )


def exec_kubeconfig(name: str, endpoint: str) -> str:
    """A kubeconfig that asks Google's plugin for a token at each use, so that none is stored anywhere.

    The DNS endpoint has a public certificate, so no CA either.
    """
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {"server": f"https://{endpoint}"}}],
            "users": [
                {
                    "name": name,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "gke-gcloud-auth-plugin",
                            "installHint": "gcloud components install gke-gcloud-auth-plugin",
                            "interactiveMode": "Never",
                            "provideClusterInfo": True,
                        }
                    },
                }
            ],
        }
    )
