"""Where weights come from: the hub or a mirror of it, the way there, and whether a start may fetch them at all."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.networking import v1 as net

from components.kubernetes.network_policies import PUBLIC_INTERNET, cidr_peer, egress
from components.kubernetes.pods import env
from models.weights import HUB

CA_CONFIG_MAP = "hub-ca"
CA_FILE = "ca.pem"
_CA_PATH = "/etc/hub-ca"
_HTTPS, _HTTP = 443, 80


def _port(address: str) -> int:
    parts = urlsplit(address)
    return parts.port or (_HTTPS if parts.scheme == "https" else _HTTP)


@dataclass(frozen=True, kw_only=True)
class HubAccess:
    """How pods that stage reach the hub. Without anything set: the public hub, directly."""

    endpoint: str = HUB  # what answers as the hub does
    proxy: str | None = None  # that everything goes through: "http://10.0.0.5:3128"
    ca: str | None = None  # certificates in PEM that are trusted as well
    cidr: str | None = None  # addresses that the proxy, or the mirror, is at; None: public ones
    download: bool = True  # whether a start fetches what is missing; else only a Job of `ops stage` does

    @property
    def environment(self) -> list[core.EnvVarArgs]:
        """For the staging program; nothing where it has its defaults."""
        return env(
            **({"HF_ENDPOINT": self.endpoint} if self.endpoint != HUB else {}),
            **({"HTTPS_PROXY": self.proxy, "HTTP_PROXY": self.proxy} if self.proxy else {}),
            **({"HUB_CA_FILE": f"{_CA_PATH}/{CA_FILE}"} if self.ca else {}),
            **({} if self.download else {"STAGE_DOWNLOAD": "never"}),
        )

    @property
    def volumes(self) -> list[core.VolumeArgs]:
        """What its container mounts."""
        source = core.ConfigMapVolumeSourceArgs(name=CA_CONFIG_MAP)
        return [core.VolumeArgs(name="hub-ca", config_map=source)] if self.ca else []

    @property
    def mounts(self) -> list[core.VolumeMountArgs]:
        """Where."""
        return [core.VolumeMountArgs(name="hub-ca", mount_path=_CA_PATH, read_only=True)] if self.ca else []

    @property
    def egress(self) -> Sequence[net.NetworkPolicyEgressRuleArgs]:
        """The ways out of a pod that stages: to the proxy alone, else to the hub, which sends files from elsewhere."""
        via = self.proxy or self.endpoint
        peer, port = self._peer(via), _port(via)
        rules = [egress([peer], port)]
        if not self.proxy and (port != _HTTPS or peer is not PUBLIC_INTERNET):
            rules.append(egress([PUBLIC_INTERNET], _HTTPS))
        return rules

    def _peer(self, address: str) -> net.NetworkPolicyPeerArgs:
        try:
            at = ipaddress.ip_address(urlsplit(address).hostname or "")
        except ValueError:
            return cidr_peer(self.cidr) if self.cidr else PUBLIC_INTERNET
        return cidr_peer(f"{at}/{at.max_prefixlen}")


PUBLIC_HUB = HubAccess()
