"""Where the gateway keeps keys, budgets and spend: what any PostgreSQL offers to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.networking import v1 as net

PORT = 5432
USER = "litellm"
NAME = "litellm"
PASSWORD_SECRET = "litellm-database"  # noqa: S105  a name; of the one in the cluster
PASSWORD = "password"  # noqa: S105  a key


@dataclass(frozen=True, kw_only=True)
class Database:
    """A reachable database with a user; the password is in a Secret of the gateway's namespace."""

    host: pulumi.Input[str]
    ssl_mode: str  # libpq's
    max_connections: int  # as the server has it
    peer: net.NetworkPolicyPeerArgs  # for the egress policy of its clients
    secret: str  # name of the Secret
    ready: Sequence[pulumi.Resource]  # clients start after these
    password: pulumi.Input[str] | None = None  # secret: where another one may come while clients run

    @property
    def changing(self) -> Mapping[str, pulumi.Input[str]]:
        """What may change while clients run, by Secret and key."""
        return {f"{self.secret}/{PASSWORD}": self.password} if self.password is not None else {}
