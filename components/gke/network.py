"""The network of a cluster: VPC-native ranges, and NAT for nodes without public addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import compute

NODES_CIDR = "10.0.0.0/20"
PODS_CIDR = "10.4.0.0/14"
SERVICES_CIDR = "10.8.0.0/20"
PODS_RANGE, SERVICES_RANGE = "pods", "services"


@dataclass(frozen=True, kw_only=True)
class GkeNetworkArgs:
    """`name` prefixes every object; `after` are the APIs that have to be enabled first."""

    name: str
    region: str  # of subnetwork, router and NAT
    after: Sequence[pulumi.Resource] = ()


class GkeNetwork(pulumi.ComponentResource):
    """VPC, subnetwork with pod and service ranges, router and NAT."""

    network_id: pulumi.Output[str]
    subnetwork_id: pulumi.Output[str]

    def __init__(self, name: str, args: GkeNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:GkeNetwork", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        network = compute.Network(
            "network",
            name=args.name,
            auto_create_subnetworks=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        subnetwork = compute.Subnetwork(
            "subnetwork",
            name=args.name,
            region=args.region,
            network=network.id,
            ip_cidr_range=NODES_CIDR,
            # Registry, hub mirror and logs are reached without NAT, and without its price.
            private_ip_google_access=True,
            # One connection in ten, by the ten minutes: enough to see who talks to whom, and a tenth of the price.
            log_config=compute.SubnetworkLogConfigArgs(
                aggregation_interval="INTERVAL_10_MIN", flow_sampling=0.1, metadata="INCLUDE_ALL_METADATA"
            ),
            secondary_ip_ranges=[
                compute.SubnetworkSecondaryIpRangeArgs(range_name=PODS_RANGE, ip_cidr_range=PODS_CIDR),
                compute.SubnetworkSecondaryIpRangeArgs(range_name=SERVICES_RANGE, ip_cidr_range=SERVICES_CIDR),
            ],
            opts=child,
        )
        router = compute.Router("router", name=args.name, region=args.region, network=network.id, opts=child)
        compute.RouterNat(
            "nat",
            name=args.name,
            region=args.region,
            router=router.name,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            log_config=compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
            opts=child,
        )
        self.network_id = network.id
        self.subnetwork_id = subnetwork.id
        self.register_outputs({"networkId": self.network_id, "subnetworkId": self.subnetwork_id})
