"""The GPU pool: g2 machines with L4s, from zero nodes up to the quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import container

from models.machines import GPU_TAINT, Machine, driver_channel

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@dataclass(frozen=True, kw_only=True)
class GkeL4NodePoolArgs:
    """`max_nodes` is a total over all zones. `min_driver` is what the images need, "580.65".

    `after` names the system pool: GKE leaves out the GPU taint, and lets kube-system settle on the GPU, where no
    other pool exists yet.
    """

    cluster: pulumi.Input[str]  # name of the cluster
    zone: str  # the one zone that has the nodes
    machine: Machine  # shape of a node, GPUs included
    max_nodes: int
    min_driver: str
    labels: Mapping[str, str]  # of its machines, for the bill
    service_account: pulumi.Input[str]  # e-mail of the nodes' account
    after: Sequence[pulumi.Resource]
    spot: bool = False  # cheaper, and may be taken away at any time
    boot_disk_gib: int = 100  # of each node: images and scratch
    sharing_clients: int = 1  # containers that share one GPU by turns; 1 is none


def pool_name(args: GkeL4NodePoolArgs) -> str:
    """A name of all that cannot be changed in place, so that a change of it makes a new pool first."""
    parts = [args.machine.name, f"{args.boot_disk_gib}g"]
    if args.spot:
        parts.append("spot")
    if args.sharing_clients > 1:
        parts.append(f"shared{args.sharing_clients}")
    return "-".join(parts)


class GkeL4NodePool(pulumi.ComponentResource):
    """One autoscaled pool. Idle it has no node and costs nothing."""

    pool_name: pulumi.Output[str]
    max_nodes: pulumi.Output[int]
    pool: container.NodePool

    def __init__(self, name: str, args: GkeL4NodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:GkeL4NodePool", name, None, opts)
        gpu = args.machine.gpu
        if gpu is None:
            raise ValueError(f"{args.machine.name} has no GPU: choose a g2 machine")
        sharing = (
            container.NodePoolNodeConfigGuestAcceleratorGpuSharingConfigArgs(
                gpu_sharing_strategy="TIME_SHARING", max_shared_clients_per_gpu=args.sharing_clients
            )
            if args.sharing_clients > 1
            else None
        )
        self.pool = container.NodePool(
            pool_name(args),
            name=pool_name(args),
            cluster=args.cluster,
            location=args.zone,
            # Another number would replace the pool, so it is a constant.
            initial_node_count=0,
            autoscaling=container.NodePoolAutoscalingArgs(
                total_min_node_count=0, total_max_node_count=args.max_nodes, location_policy="ANY"
            ),
            management=container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            # A surge node would need a second GPU of quota.
            upgrade_settings=container.NodePoolUpgradeSettingsArgs(max_surge=0, max_unavailable=1),
            node_config=container.NodePoolNodeConfigArgs(
                machine_type=args.machine.name,
                spot=args.spot,
                # G2 machines refuse pd-standard.
                disk_type="pd-balanced",
                disk_size_gb=args.boot_disk_gib,
                image_type="COS_CONTAINERD",
                service_account=args.service_account,
                oauth_scopes=_SCOPES,
                gcfs_config=container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
                resource_labels=dict(args.labels),
                guest_accelerators=[
                    container.NodePoolNodeConfigGuestAcceleratorArgs(
                        type=gpu.name,
                        count=args.machine.gpus,
                        gpu_driver_installation_config=container.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(
                            gpu_driver_version=driver_channel(args.min_driver)
                        ),
                        gpu_sharing_config=sharing,
                    )
                ],
                # Declared, not left to GKE: an untainted GPU node attracts kube-dns and is billed for ever.
                taints=[container.NodePoolNodeConfigTaintArgs(key=GPU_TAINT, value="present", effect="NO_SCHEDULE")],
                shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
                    enable_integrity_monitoring=True
                ),
                workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        self.pool_name = self.pool.name
        self.max_nodes = pulumi.Output.from_input(args.max_nodes)
        self.register_outputs({"poolName": self.pool_name, "maxNodes": self.max_nodes})
