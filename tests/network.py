"""Decides whether a set of NetworkPolicy objects lets a connection through, as the Kubernetes API defines it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Endpoint:
    """A pod by its namespace and labels, or an address outside where there is no namespace."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    address: str = ""


def allowed(
    policies: Sequence[Mapping[str, Any]], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the source may leave and the target may be entered."""
    return _passes(policies, "Egress", source, target, port=port, protocol=protocol) and _passes(
        policies, "Ingress", target, source, port=port, protocol=protocol
    )


def _passes(
    policies: Iterable[Mapping[str, Any]],
    direction: str,
    subject: Endpoint,
    peer: Endpoint,
    *,
    port: int,
    protocol: str,
) -> bool:
    rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    selecting = [
        p
        for p in policies
        if p["metadata"]["namespace"] == subject.namespace
        and direction in p["spec"]["policyTypes"]
        and _selects(p["spec"]["podSelector"], subject.labels)
    ]
    if not selecting:
        return True
    opened: list[Mapping[str, Any]] = [rule for policy in selecting for rule in policy["spec"].get(rules, [])]
    return any(
        _port_matches(rule.get("ports"), port, protocol)
        and (not rule.get(peers) or any(_peer_matches(p, subject, peer) for p in rule[peers]))
        for rule in opened
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "extend this for matchExpressions"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _port_matches(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(p["port"] == port and p.get("protocol", "TCP") == protocol for p in ports)


def _peer_matches(rule: Mapping[str, Any], subject: Endpoint, peer: Endpoint) -> bool:
    if block := rule.get("ipBlock"):
        if not peer.address:
            return False
        address = ipaddress.ip_address(peer.address)
        holes: list[str] = block.get("except", [])
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(hole) for hole in holes)
    if not peer.namespace:
        return False
    if "namespaceSelector" in rule:
        if not _selects(rule["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace}):
            return False
    elif peer.namespace != subject.namespace:
        return False
    return _selects(rule.get("podSelector", {}), peer.labels)
