"""A disk of its own for data that must survive the cluster, and the volume that brings it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import compute
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.kubernetes.place import Place, StaticVolume
from components.kubernetes.pods import gib, taken_back


@dataclass(frozen=True, kw_only=True)
class PersistentDiskArgs:
    """`claim` is the only claim that may bind the volume; `after` are the APIs that have to be enabled first.

    A disk that is `former` is kept beside the database that is used now, until the stack lets go of it.
    """

    name: str  # of the disk and of the volume
    project: str  # project of Google Cloud
    zone: str  # of the disk, and so of every pod that mounts it
    gib: int  # size of the disk; it may only grow
    claim: str
    place: Place  # namespace of the claim and provider of the volume
    deletion_protection: bool  # whether the provider refuses to delete the disk
    former: bool = False
    after: Sequence[pulumi.Resource] = ()


class PersistentDisk(pulumi.ComponentResource):
    """A protected Compute Engine disk and a static PersistentVolume on it.

    A claim's own disk goes with the cluster: destroying the cluster deletes the object that owns it. This disk is
    protected instead, so `pulumi destroy --exclude-protected` keeps it in the cloud and in the state, and the
    next `pulumi up` goes on with it. A former one is not deleted when it leaves the program, and not resized.
    """

    volume: StaticVolume

    def __init__(self, name: str, args: PersistentDiskArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:PersistentDisk", name, None, opts)
        disk = compute.Disk(
            args.name,
            name=args.name,
            zone=args.zone,
            type="pd-balanced",
            size=args.gib,
            deletion_policy="PREVENT" if args.deletion_protection else "DELETE",
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=not args.former,
                retain_on_delete=args.former,
                depends_on=list(args.after),
                ignore_changes=["size"] if args.former else None,
            ),
        )
        handle = f"projects/{args.project}/zones/{args.zone}/disks/{args.name}"
        zone_term = core.NodeSelectorTermArgs(
            match_expressions=[
                core.NodeSelectorRequirementArgs(key="topology.gke.io/zone", operator="In", values=[args.zone])
            ]
        )
        volume = core.PersistentVolume(
            args.name,
            metadata=meta.ObjectMetaArgs(name=args.name, annotations=taken_back()),
            spec=core.PersistentVolumeSpecArgs(
                capacity={"storage": gib(args.gib)},
                access_modes=["ReadWriteOnce"],
                persistent_volume_reclaim_policy="Retain",
                storage_class_name="",
                claim_ref=core.ObjectReferenceArgs(
                    api_version="v1", kind="PersistentVolumeClaim", namespace=args.place.namespace, name=args.claim
                ),
                csi=core.CSIPersistentVolumeSourceArgs(
                    driver="pd.csi.storage.gke.io", volume_handle=handle, fs_type="ext4"
                ),
                node_affinity=core.VolumeNodeAffinityArgs(
                    required=core.NodeSelectorArgs(node_selector_terms=[zone_term])
                ),
            ),
            opts=pulumi.ResourceOptions.merge(
                args.place.keeping(self),
                pulumi.ResourceOptions(depends_on=[disk], ignore_changes=["spec.capacity"] if args.former else None),
            ),
        )
        self.volume = StaticVolume(args.name, volume)
        self.register_outputs({})
