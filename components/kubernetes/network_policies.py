"""Network policies: everything is denied in both directions, then named paths are opened.

They hold under GKE Dataplane V2, where two things surprise: DNS is answered by kube-dns pods, by the node-local
cache (169.254.20.10, or its pods after a local redirect) or by Cloud DNS (169.254.169.254), so all are named;
and init containers share their pod's policy, so what stages weights is open while the model serves too. No pod
of the platform uses Workload Identity, so the metadata server is opened for DNS only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.networking import v1 as net

from components.kubernetes.pods import NAME_LABEL, metadata

DEFAULT_DENY, ALLOW_DNS = "default-deny", "allow-dns"  # in every namespace, beside a policy of the name of each app
_METADATA_SERVER = "169.254.169.254/32"
_NODE_LOCAL_DNS = "169.254.20.10/32"
# Where no model server or package mirror can be: in-cluster, peered and link-local addresses.
_NOT_PUBLIC = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"]


def namespace_peer(name: str, pod_labels: Mapping[str, str] | None = None) -> net.NetworkPolicyPeerArgs:
    """Pods of another namespace, all of them or those with the labels."""
    return net.NetworkPolicyPeerArgs(
        namespace_selector=_labels({"kubernetes.io/metadata.name": name}),
        pod_selector=_labels(pod_labels) if pod_labels else None,
    )


def app_peer(app: str) -> net.NetworkPolicyPeerArgs:
    """Pods of an app in the same namespace."""
    return net.NetworkPolicyPeerArgs(pod_selector=_labels({NAME_LABEL: app}))


def cidr_peer(cidr: str, *, excluding: Sequence[str] = ()) -> net.NetworkPolicyPeerArgs:
    """An address range."""
    return net.NetworkPolicyPeerArgs(
        ip_block=net.IPBlockArgs(cidr=cidr, except_=list(excluding) if excluding else None)
    )


def any_namespace() -> net.NetworkPolicyPeerArgs:
    """Every pod of the cluster."""
    return net.NetworkPolicyPeerArgs(namespace_selector=meta.LabelSelectorArgs())


PUBLIC_INTERNET = cidr_peer("0.0.0.0/0", excluding=_NOT_PUBLIC)


def ports(*numbers: int, protocol: str = "TCP") -> list[net.NetworkPolicyPortArgs]:
    """Ports of one protocol."""
    return [net.NetworkPolicyPortArgs(port=number, protocol=protocol) for number in numbers]


def ingress(peers: Sequence[net.NetworkPolicyPeerArgs], *numbers: int) -> net.NetworkPolicyIngressRuleArgs:
    """What may come in."""
    return net.NetworkPolicyIngressRuleArgs(from_=list(peers), ports=ports(*numbers))


def egress(peers: Sequence[net.NetworkPolicyPeerArgs], *numbers: int) -> net.NetworkPolicyEgressRuleArgs:
    """What may go out."""
    return net.NetworkPolicyEgressRuleArgs(to=list(peers), ports=ports(*numbers))


def deny_by_default(namespace: str, parent: pulumi.Resource) -> None:
    """Two policies of a namespace: nothing in or out, but DNS."""
    name = f"{namespace}-{DEFAULT_DENY}"
    net.NetworkPolicy(
        name,
        metadata=metadata(DEFAULT_DENY, namespace, "network-policy"),
        spec=net.NetworkPolicySpecArgs(pod_selector=meta.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]),
        opts=pulumi.ResourceOptions(parent=parent),
    )
    dns = net.NetworkPolicyEgressRuleArgs(
        to=[
            namespace_peer("kube-system", {"k8s-app": "kube-dns"}),
            namespace_peer("kube-system", {"k8s-app": "node-local-dns"}),
            cidr_peer(_NODE_LOCAL_DNS),
            cidr_peer(_METADATA_SERVER),
        ],
        ports=[*ports(53, protocol="UDP"), *ports(53)],
    )
    net.NetworkPolicy(
        f"{namespace}-{ALLOW_DNS}",
        metadata=metadata(ALLOW_DNS, namespace, "network-policy"),
        spec=net.NetworkPolicySpecArgs(pod_selector=meta.LabelSelectorArgs(), policy_types=["Egress"], egress=[dns]),
        opts=pulumi.ResourceOptions(parent=parent),
    )


def allow(
    app: str,
    namespace: str,
    parent: pulumi.Resource,
    *,
    incoming: Sequence[net.NetworkPolicyIngressRuleArgs] = (),
    outgoing: Sequence[net.NetworkPolicyEgressRuleArgs] = (),
) -> None:
    """The paths of one app, beside the denial of everything else."""
    types = [*(["Ingress"] if incoming else []), *(["Egress"] if outgoing else [])]
    net.NetworkPolicy(
        f"{namespace}-{app}",
        metadata=metadata(app, namespace, "network-policy"),
        spec=net.NetworkPolicySpecArgs(
            pod_selector=_labels({NAME_LABEL: app}),
            policy_types=types,
            ingress=list(incoming) or None,
            egress=list(outgoing) or None,
        ),
        opts=pulumi.ResourceOptions(parent=parent),
    )


def _labels(match: Mapping[str, str]) -> meta.LabelSelectorArgs:
    return meta.LabelSelectorArgs(match_labels=dict(match))
